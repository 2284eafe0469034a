"""Notices a training run that is dead, and says why.

Fed at intervals with a few numbers, without any framework. What it looks for:

* ``loss_not_finite``: the loss or the embeddings became NaN or infinite; final at once.
* ``embeddings_collapsed``: all embeddings point one way. The spread, the mean squared distance of unit
  embeddings from their mean, is 0 then and about 1 for embeddings all over the sphere; it is the embedding
  variance (mean over dimensions) times the number of dimensions, so one bound serves all widths.
* ``loss_stuck_at_margin``: the loss equals what an encoder gets that maps everything to one point. It also
  catches embeddings that are not normalised and shrink to the origin while their directions stay spread.
* ``no_active_triplets``: nothing costs anything, so nothing is learned. By itself that is what success
  looks like: a hinge loss of 0 on every triplet. It is held against a run only where that reading fails:
  there was no triplet at all (batches without two samples of a subject, or of one subject only), or the
  loss is not 0 although no triplet is active (only a penalty drives the weights), or the validation error
  says that the task is not solved (the triplets are too easy).

All but the first need several checks in a row, since a young or a hard run passes through such states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from app.errors import VisavisError


class Reason(StrEnum):
    """Why a run is dead."""

    LOSS_NOT_FINITE = "loss_not_finite"
    EMBEDDINGS_COLLAPSED = "embeddings_collapsed"
    LOSS_STUCK_AT_MARGIN = "loss_stuck_at_margin"
    NO_ACTIVE_TRIPLETS = "no_active_triplets"


REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.LOSS_NOT_FINITE: "lower the learning rate, clip the gradients (clipnorm), or train in float32",
    Reason.EMBEDDINGS_COLLAPSED: "lower the learning rate, or begin with semi-hard mining, not batch-hard",
    Reason.LOSS_STUCK_AT_MARGIN: (
        "lower the learning rate, begin with semi-hard mining, not batch-hard, or normalise the embeddings"
    ),
    Reason.NO_ACTIVE_TRIPLETS: (
        "draw batches of several subjects with at least two samples each, mine harder negatives "
        "(batch-hard), or widen the margin"
    ),
}


class CollapsedError(VisavisError):
    """The run learns nothing any more.

    Attributes:
        reason: Which way it died.
        step: At which step this was noticed.
    """

    code = "training_collapsed"

    def __init__(self, reason: Reason, step: int, seen: str) -> None:
        super().__init__(f"training collapsed at step {step} ({reason}): {seen}; {REMEDIES[reason]}")
        self.reason = reason
        self.step = step

    def details(self) -> dict[str, object]:
        """Return the reason and the step."""
        return {"reason": str(self.reason), "step": self.step}


@dataclass(frozen=True)
class Observation:
    """What was seen since the last check.

    Attributes:
        step: Steps made so far.
        loss: Mean loss, without penalties on the weights.
        embedding_variance: ``embedding_variance`` of a batch.
        active_triplets: Mined triplets that cost something; None for a loss without triplets.
        valid_triplets: Mined triplets; None for a loss without triplets.
        validation_error: Share of wrong decisions (EER or one-shot error), the latest known.
    """

    step: int
    loss: float
    embedding_variance: float
    active_triplets: float | None = None
    valid_triplets: float | None = None
    validation_error: float | None = None


def embedding_variance(embeddings: ArrayLike) -> float:
    """Return the variance over the batch of unit embeddings, averaged over the dimensions.

    Args:
        embeddings: float[B, D], normalised or not; zero vectors stay zero.

    Returns:
        Between 0 (all point one way) and 1 / D. NaN when an embedding is not finite.

    >>> embedding_variance([[3.0, 0.0], [0.0, 5.0]])
    0.25
    """
    values = np.asarray(embeddings, np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return float(np.mean(np.var(values / np.where(norms > 0, norms, 1.0), axis=0)))


class CollapseDetector:
    """Decides from observations whether a run is dead.

    Args:
        dimensions: D of the embeddings.
        collapsed_loss: Loss of an encoder that maps everything to one point: the margin for triplets, margin
            squared / 2 for the balanced contrastive loss, twice the margin for closest negatives. None
            when there is no such value worth stopping at.
        patience: Checks in a row after which a state is final.
        grace_steps: Until this step only a loss that is not finite counts.
        smallest_spread: Spread below which embeddings have collapsed; 1e-4 is about 0.6 degrees.
        loss_tolerance: Relative distance to ``collapsed_loss`` within which the loss is stuck at it.
        solved_loss: Loss at most which, without an active triplet, the training task is solved.
        solved_error: Validation error at most which the task is solved.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        collapsed_loss: float | None = None,
        patience: int = 5,
        grace_steps: int = 0,
        smallest_spread: float = 1e-4,
        loss_tolerance: float = 0.01,
        solved_loss: float = 1e-6,
        solved_error: float = 0.02,
    ) -> None:
        self.dimensions = dimensions
        self.collapsed_loss = collapsed_loss
        self.patience = patience
        self.grace_steps = grace_steps
        self.smallest_spread = smallest_spread
        self.loss_tolerance = loss_tolerance
        self.solved_loss = solved_loss
        self.solved_error = solved_error
        self._streaks: dict[Reason, int] = {}

    def examine(self, seen: Observation) -> CollapsedError | None:
        """Return what is wrong once it is certain, else None. Call it once an interval, in order."""
        if not (math.isfinite(seen.loss) and math.isfinite(seen.embedding_variance)):
            what = f"the loss is {seen.loss}, the embedding variance {seen.embedding_variance}"
            return CollapsedError(Reason.LOSS_NOT_FINITE, seen.step, what)
        if seen.step <= self.grace_steps:
            self._streaks = {}
            return None
        suspicions = self._suspicions(seen)
        self._streaks = {reason: self._streaks.get(reason, 0) + 1 for reason in suspicions}
        for reason, what in suspicions.items():
            if self._streaks[reason] >= self.patience:
                return CollapsedError(reason, seen.step, f"{what}, for {self._streaks[reason]} checks")
        return None

    def require_alive(self, seen: Observation) -> None:
        """Raise what ``examine`` returns.

        Raises:
            CollapsedError: The run is dead.
        """
        if error := self.examine(seen):
            raise error

    def state(self) -> dict[str, int]:
        """Return the checks in a row by reason: what a resumed run needs to decide as an unbroken one."""
        return {str(reason): count for reason, count in self._streaks.items()}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a ``state``."""
        self._streaks = {Reason(reason): count for reason, count in state.items()}

    def _suspicions(self, seen: Observation) -> dict[Reason, str]:
        """Return what looks wrong in one observation, most telling first."""
        found = {}
        spread = seen.embedding_variance * self.dimensions
        if spread < self.smallest_spread:
            found[Reason.EMBEDDINGS_COLLAPSED] = (
                f"the embeddings of a batch point one way (spread {spread:.2g} of 1, "
                f"below {self.smallest_spread:g})"
            )
        stuck_at = self.collapsed_loss
        if stuck_at is not None and abs(seen.loss - stuck_at) <= self.loss_tolerance * stuck_at:
            found[Reason.LOSS_STUCK_AT_MARGIN] = (
                f"the loss is {seen.loss:.4g}, that of an encoder that maps everything to one point "
                f"({stuck_at:g})"
            )
        if idle := self._idle(seen):
            found[Reason.NO_ACTIVE_TRIPLETS] = idle
        return found

    def _idle(self, seen: Observation) -> str | None:
        """Return why the absence of active triplets is no success, or None."""
        if seen.valid_triplets is None or seen.active_triplets:
            return None
        if seen.valid_triplets == 0:
            return "no batch had a triplet"
        if seen.loss > self.solved_loss:
            return f"no triplet is active, yet the loss is {seen.loss:.3g}"
        if seen.validation_error is not None and seen.validation_error > self.solved_error:
            return f"no triplet is active, yet the validation error is {seen.validation_error:.3g}"
        return None
