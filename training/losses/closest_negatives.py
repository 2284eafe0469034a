"""Mean-negative plus closest-negative loss over the cosines of two views of a batch.

Row i of the matrix holds the cosines of sample i's first view with every second view; the diagonal entry is
the mated one. Each row costs::

    max(margin - mated + mean of the non-mated, 0) + max(margin - mated + closest of the non-mated, 0)

where the closest non-mated is the largest that does not exceed the mated one (a tie does not exceed).
Larger ones are hard, often mislabelled; they act through the mean, which is also less noisy than a single
entry. A collapsed encoder, whose cosines are all equal, costs twice the margin.

Source: the "triplet loss" of the natural language courses on duplicate questions (after Schroff et al.
2015).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from training.losses.base import BatchLoss, serialisable
from training.losses.masks import different_subject, pairwise_cosine

BELOW_ANY_COSINE = -2.0


def closest_negatives_terms(
    first: tf.Tensor,
    second: tf.Tensor,
    margin: float = 0.25,
    *,
    labels: tf.Tensor | None = None,
    exclude_closer: bool = True,
) -> tf.Tensor:
    """Return float32[B], the loss of each row; their sum is the total that the courses print.

    Args:
        first: float[B, D], one view of each sample; brought to norm 1 here.
        second: float[B, D], the other view, in the same order.
        margin: In cosine.
        labels: int[B], when samples may share a subject: those are then no negatives of one another.
        exclude_closer: Whether negatives closer than the mated view are passed over in the second term (as
            the courses' text has it) or may be the closest (as in some of their code).

    A row without a negative costs 0.
    """
    cosines = pairwise_cosine(first, second)
    rows = tf.range(tf.shape(cosines)[0]) if labels is None else labels
    negative = different_subject(rows)
    mated = tf.linalg.diag_part(cosines)
    shortfall = margin - mated

    count = tf.cast(tf.math.count_nonzero(negative, axis=1), tf.float32)
    total = tf.reduce_sum(tf.where(negative, cosines, tf.zeros_like(cosines)), axis=1)
    mean_cost = tf.nn.relu(shortfall + tf.math.divide_no_nan(total, count))

    eligible = negative
    if exclude_closer:
        eligible = tf.logical_and(negative, cosines <= mated[:, tf.newaxis])
    closest = tf.reduce_max(tf.where(eligible, cosines, BELOW_ANY_COSINE * tf.ones_like(cosines)), axis=1)
    closest_cost = tf.nn.relu(shortfall + closest)

    nothing = tf.zeros_like(mated)
    return tf.where(count > 0, mean_cost, nothing) + tf.where(
        tf.reduce_any(eligible, axis=1), closest_cost, nothing
    )


def closest_negatives_loss(
    first: tf.Tensor,
    second: tf.Tensor,
    margin: float = 0.25,
    *,
    labels: tf.Tensor | None = None,
    exclude_closer: bool = True,
) -> tf.Tensor:
    """Return the mean over the rows; see ``closest_negatives_terms``."""
    terms = closest_negatives_terms(first, second, margin, labels=labels, exclude_closer=exclude_closer)
    return tf.reduce_mean(terms)


@serialisable
class ClosestNegativesLoss(BatchLoss):
    """``closest_negatives_loss`` for ``compile``: ``y_true`` is labels [B], ``y_pred`` views [B, 2, D]."""

    def __init__(
        self,
        margin: float = 0.25,
        exclude_closer: bool = True,
        name: str = "closest_negatives",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.margin, self.exclude_closer = margin, exclude_closer

    def batch_loss(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        """Return the scalar loss of the batch."""
        first, second = tf.unstack(embeddings, num=2, axis=1)
        return closest_negatives_loss(
            first, second, self.margin, labels=labels, exclude_closer=self.exclude_closer
        )

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs."""
        return {**super().get_config(), "margin": self.margin, "exclude_closer": self.exclude_closer}
