"""Triplet loss with batch-all, semi-hard and batch-hard mining, and over triplets given explicitly.

A triplet costs ``max(d(anchor, positive) - d(anchor, negative) + margin, 0)``. By kind it is

* easy: the negative is farther than the positive by at least the margin (costs nothing),
* semi-hard: the negative is farther than the positive, but by less than the margin,
* hard: the negative is no farther than the positive (a tie is hard).

d is the Euclidean distance, or its square (as Schroff et al. have it). An encoder that maps everything to one
point costs the margin in every triplet. Without any triplet the loss is 0, and so is its gradient.

Sources: Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015 (semi-hard negatives); Hermans, Beyer and
Leibe, "In defense of the triplet loss for person re-identification", 2017 (batch all, batch hard).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import keras
import tensorflow as tf

from training.losses.base import BatchLoss, serialisable
from training.losses.masks import (
    different_subject,
    euclidean,
    mean_where,
    pairwise_distance,
    same_subject,
    squared_euclidean,
    valid_triplets,
)


class TripletCounts(NamedTuple):
    """How many of the mined triplets are of each kind: int32 scalars, or plain ints outside a graph."""

    easy: tf.Tensor
    semi_hard: tf.Tensor
    hard: tf.Tensor

    @property
    def valid(self) -> tf.Tensor:
        """Return the number of triplets."""
        return self.easy + self.semi_hard + self.hard

    @property
    def active(self) -> tf.Tensor:
        """Return the number of triplets that cost something."""
        return self.semi_hard + self.hard

    def shares(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return the share of each kind, float32 in the order of the fields; 0 where there is no triplet."""
        valid = tf.cast(self.valid, tf.float32)
        easy, semi_hard, hard = (tf.math.divide_no_nan(tf.cast(kind, tf.float32), valid) for kind in self)
        return easy, semi_hard, hard


def batch_all_triplet_loss(
    embeddings: tf.Tensor,
    labels: tf.Tensor,
    margin: float = 1.0,
    *,
    squared: bool = False,
    active_only: bool = True,
) -> tuple[tf.Tensor, TripletCounts]:
    """Return the mean loss of every triplet in the batch, and their counts.

    Args:
        embeddings: float[B, D].
        labels: int[B].
        margin: In the unit of the distance.
        squared: Whether d is the squared Euclidean distance.
        active_only: Whether the mean is over triplets that cost something (Hermans' "non-zero" mean, which
            easy triplets do not dilute) or over all.

    Memory: B * B * B floats.
    """
    distance = pairwise_distance(embeddings, squared=squared)
    gap = distance[:, :, tf.newaxis] - distance[:, tf.newaxis, :]
    valid = valid_triplets(labels)
    cost = _cost(gap, margin)
    # "Not <= 0" instead of "> 0": a cost that is not a number must reach the loss.
    averaged = tf.logical_and(valid, tf.logical_not(cost <= 0)) if active_only else valid
    return mean_where(cost, averaged), _counts(gap, valid, margin)


def semi_hard_triplet_loss(
    embeddings: tf.Tensor, labels: tf.Tensor, margin: float = 1.0, *, squared: bool = False
) -> tuple[tf.Tensor, TripletCounts]:
    """Return the mean loss over all (anchor, positive) pairs, each with one mined negative, and their counts.

    The negative is the closest one that is farther from the anchor than the positive. Where none is farther
    (all negatives are hard), it is the farthest of them: the least hard, since the hardest ones lead to
    collapse early in training. A negative as far as the positive is not farther.

    Args:
        embeddings: float[B, D].
        labels: int[B]. A subject with one sample serves as negative only.
        margin: In the unit of the distance.
        squared: Whether d is the squared Euclidean distance.
    """
    distance = pairwise_distance(embeddings, squared=squared)
    negative = different_subject(labels)
    fixed = tf.stop_gradient(distance)
    # Each row's negatives by distance, with the rest behind them: one sort instead of B * B * B comparisons.
    keys = tf.where(negative, fixed, tf.fill(tf.shape(fixed), float("inf")))
    order = tf.argsort(keys, axis=1)
    first_farther = tf.searchsorted(tf.gather(keys, order, batch_dims=1), fixed, side="right")
    negatives = tf.math.count_nonzero(negative, axis=1, keepdims=True, dtype=tf.int32)
    place = tf.maximum(tf.minimum(first_farther, negatives - 1), 0)
    chosen = tf.gather(distance, tf.gather(order, place, batch_dims=1), batch_dims=1)
    gap = distance - chosen
    valid = tf.logical_and(same_subject(labels), negatives > 0)
    return mean_where(_cost(gap, margin), valid), _counts(gap, valid, margin)


def batch_hard_triplet_loss(
    embeddings: tf.Tensor, labels: tf.Tensor, margin: float = 1.0, *, squared: bool = False
) -> tuple[tf.Tensor, TripletCounts]:
    """Return the mean loss over anchors, each with its farthest positive and closest negative, and counts.

    Args:
        embeddings: float[B, D].
        labels: int[B]. A sample without a second one of its subject is no anchor.
        margin: In the unit of the distance.
        squared: Whether d is the squared Euclidean distance.
    """
    distance = pairwise_distance(embeddings, squared=squared)
    positive, negative = same_subject(labels), different_subject(labels)
    farthest_positive = tf.reduce_max(tf.where(positive, distance, tf.zeros_like(distance)), axis=1)
    # A stand-in above every distance; infinity would turn gradients into NaN.
    beyond = tf.reduce_max(tf.stop_gradient(distance), axis=1, keepdims=True) + 1.0
    closest_negative = tf.reduce_min(tf.where(negative, distance, beyond), axis=1)
    gap = farthest_positive - closest_negative
    valid = tf.logical_and(tf.reduce_any(positive, axis=1), tf.reduce_any(negative, axis=1))
    return mean_where(_cost(gap, margin), valid), _counts(gap, valid, margin)


def explicit_triplet_loss(
    anchor: tf.Tensor,
    positive: tf.Tensor,
    negative: tf.Tensor,
    margin: float = 1.0,
    *,
    squared: bool = False,
) -> tuple[tf.Tensor, TripletCounts]:
    """Return the mean loss of triplets given as three float[B, D], and their counts."""
    measure = squared_euclidean if squared else euclidean
    gap = measure(anchor, positive) - measure(anchor, negative)
    everywhere = tf.ones_like(gap, tf.bool)
    return mean_where(_cost(gap, margin), everywhere), _counts(gap, everywhere, margin)


MINING: Final[dict[str, Callable[..., tuple[tf.Tensor, TripletCounts]]]] = {
    "batch_all": batch_all_triplet_loss,
    "semi_hard": semi_hard_triplet_loss,
    "batch_hard": batch_hard_triplet_loss,
}
"""Mining rules by name."""


@serialisable
class TripletLoss(BatchLoss):
    """A mining rule for ``compile``: ``y_true`` is labels int[B], ``y_pred`` embeddings [B, D].

    Args:
        mining: A key of ``MINING``.
        margin: In the unit of the distance.
        squared: Whether d is the squared Euclidean distance.
        name: Of the loss.
        **kwargs: Of ``keras.losses.Loss``.

    Raises:
        ValueError: The mining rule is unknown.
    """

    def __init__(
        self,
        mining: str = "semi_hard",
        margin: float = 1.0,
        squared: bool = False,
        name: str = "triplet",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(name=name, **kwargs)
        if mining not in MINING:
            raise ValueError(f"mining {mining!r} is unknown; choose one of {', '.join(MINING)}")
        self.mining, self.margin, self.squared = mining, margin, squared

    def with_counts(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, TripletCounts]:
        """Return the loss and the counts of the mined triplets."""
        return MINING[self.mining](embeddings, labels, self.margin, squared=self.squared)

    def batch_loss(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        """Return the scalar loss of the batch."""
        return self.with_counts(labels, embeddings)[0]

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs."""
        own = {"mining": self.mining, "margin": self.margin, "squared": self.squared}
        return {**super().get_config(), **own}


@serialisable
class ExplicitTripletLoss(keras.losses.Loss):
    """``explicit_triplet_loss`` for ``compile``: ``y_pred`` is float[B, 3, D], ``y_true`` is not looked at.

    Along the second axis: anchor, positive, negative.
    """

    def __init__(
        self,
        margin: float = 1.0,
        squared: bool = False,
        name: str = "explicit_triplet",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.margin, self.squared = margin, squared

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the loss as float32[1]."""
        anchor, positive, negative = tf.unstack(y_pred, num=3, axis=1)
        loss, _ = explicit_triplet_loss(anchor, positive, negative, self.margin, squared=self.squared)
        return tf.reshape(loss, [1])

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs."""
        return {**super().get_config(), "margin": self.margin, "squared": self.squared}


def _cost(gap: tf.Tensor, margin: float) -> tf.Tensor:
    if margin <= 0:
        raise ValueError(f"margin is {margin}; it must be positive")
    return tf.nn.relu(gap + margin)


def _counts(gap: tf.Tensor, valid: tf.Tensor, margin: float) -> TripletCounts:
    active = tf.logical_and(valid, _cost(gap, margin) > 0)
    hard = tf.math.count_nonzero(tf.logical_and(valid, gap >= 0), dtype=tf.int32)
    active_count = tf.math.count_nonzero(active, dtype=tf.int32)
    return TripletCounts(
        easy=tf.math.count_nonzero(valid, dtype=tf.int32) - active_count,
        semi_hard=active_count - hard,
        hard=hard,
    )
