"""Encoders with the objective they are trained for: what the loop sees of a task.

Twins are one encoder that sees both sides, so their weights are shared by being the same. Two towers are two
encoders for two kinds of input that end in one embedding space.
"""

from __future__ import annotations

from typing import Any

import keras

from training.objectives import Objective, with_features


class Learner:
    """Turns a batch into its loss and metrics.

    Attributes:
        left: Encoder of the left side, and of labelled samples.
        right: Encoder of the right side; the left one for twins.
        objective: What is minimised; owns a head's weights.
    """

    def __init__(self, left: keras.Model, objective: Objective, right: keras.Model | None = None) -> None:
        self.left = left
        self.right = right or left
        self.objective = objective
        # What training runs: the encoders themselves, or with their feature maps as another output.
        self._seen = tuple(
            with_features(encoder) if objective.wants_features else encoder
            for encoder in (self.left, self.right)
        )

    @property
    def twins(self) -> bool:
        """Whether one encoder sees both sides."""
        return self.right is self.left

    @property
    def dimensions(self) -> int:
        """D of the embeddings."""
        return int(self.left.output_shape[-1])

    @property
    def collapsed_loss(self) -> float | None:
        """Loss of an encoder that maps everything to one point, where the objective has such a value."""
        return self.objective.collapsed_loss

    @property
    def trainable_variables(self) -> list[Any]:
        """Weights that learn, in a fixed order."""
        return self._gathered("trainable_variables")

    @property
    def variables(self) -> list[Any]:
        """All weights and states, in a fixed order."""
        return self._gathered("variables")

    def _gathered(self, name: str) -> list[Any]:
        parts = [self.left, *([] if self.twins else [self.right]), self.objective]
        return [variable for part in parts for variable in getattr(part, name)]

    def metrics(self, batch: tuple[Any, ...]) -> dict[str, Any]:
        """Return scalars of a batch; ``loss`` is what is minimised, the layers' ``penalty`` included.

        Args:
            batch: ``(samples, labels int32[B])`` or ``(left, right, same bool[B])``.
        """
        if len(batch) == 2:
            samples, labels = batch
            metrics = self.objective.on_labels(labels, self._seen[0](samples, training=True))
        else:
            left, right, same = batch
            metrics = self.objective.on_pairs(
                same, self._seen[0](left, training=True), self._seen[1](right, training=True)
            )
        parts = [self.left] if self.twins else [self.left, self.right]
        penalties = [penalty for part in parts for penalty in part.losses]
        if penalties:
            metrics["penalty"] = sum(penalties)
            metrics["loss"] += metrics["penalty"]
        return metrics
