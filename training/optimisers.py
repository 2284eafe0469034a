"""Optimisers with the schedules of a recipe. All of them count their own steps, so a resumed run is where
it was.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from training.config import Loop, Optimiser


class RisingMomentumSGD(keras.optimizers.SGD):
    """Gradient descent whose momentum rises linearly over the run.

    Source: Koch, Zemel, Salakhutdinov (2015), section 3.2: momentum starts at 0.5 and rises to a value of
        each layer.
    """

    def __init__(
        self,
        learning_rate: object,
        *,
        momentum: tuple[float, float],
        steps: int,
        **kwargs: Any,  # noqa: ANN401 - of the base class
    ) -> None:
        # The base class keeps velocities only when its own momentum is not 0.
        super().__init__(learning_rate, momentum=max(momentum[1], 1e-6), **kwargs)
        self.first, self.last, self.steps = momentum[0], momentum[1], steps

    def update_step(self, gradient: tf.Tensor, variable: tf.Tensor, learning_rate: tf.Tensor) -> None:
        """Move one variable."""
        done = ops.minimum(ops.cast(self.iterations, variable.dtype) / self.steps, 1.0)
        momentum = self.first + (self.last - self.first) * done
        velocity = self.momentums[self._get_variable_index(variable)]
        moved = momentum * velocity - ops.cast(learning_rate, variable.dtype) * ops.cast(
            gradient, variable.dtype
        )
        self.assign(velocity, moved)
        self.assign_add(variable, moved)


def build_optimiser(spec: Optimiser, loop: Loop) -> keras.optimizers.Optimizer:
    """Return the optimiser of a recipe, with loss scaling where the precision needs it."""
    rate = _learning_rate(spec, loop)
    common = {"clipnorm": spec.clip_norm, "weight_decay": spec.weight_decay or None}
    if spec.kind == "sgd":
        built = RisingMomentumSGD(rate, momentum=spec.momentum, steps=loop.steps, **common)
    elif spec.kind == "adamw":
        built = keras.optimizers.AdamW(rate, **{**common, "weight_decay": spec.weight_decay})
        # Decay of a bias or of a batch norm's scale only costs accuracy.
        built.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    else:
        built = keras.optimizers.Adam(rate, **common)
    return keras.optimizers.LossScaleOptimizer(built) if loop.precision == "mixed_float16" else built


def _learning_rate(spec: Optimiser, loop: Loop) -> tf.Tensor:
    schedules = keras.optimizers.schedules
    if spec.schedule == "cosine":
        if not spec.warmup_steps:
            return schedules.CosineDecay(spec.learning_rate, loop.steps)
        return schedules.CosineDecay(
            0.0,
            max(1, loop.steps - spec.warmup_steps),
            warmup_target=spec.learning_rate,
            warmup_steps=spec.warmup_steps,
        )
    if spec.schedule == "exponential":
        return schedules.ExponentialDecay(spec.learning_rate, loop.epoch, spec.decay_an_epoch, staircase=True)
    return spec.learning_rate
