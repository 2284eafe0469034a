"""Binary cross-entropy of "these two are the same" over the logit of a head (``training.heads``).

With ``WeightedL1`` it is the loss of Koch, Zemel and Salakhutdinov, "Siamese neural networks for one-shot
image recognition", 2015, equation for L(x1, x2); with ``SigmoidDistance`` that of the texts' sigmoid over a
distance::

    loss(logit, same) = -log sigmoid(logit) if same else -log(1 - sigmoid(logit))

Computed from the logit, where the probability itself would round to 0 or 1. A head that cannot tell costs
log 2.
"""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

from training.losses.base import PairLoss, serialisable
from training.losses.masks import (
    as_float32,
    balanced_mean,
    different_subject,
    mean_where,
    require_equal_shapes,
    require_same,
    same_subject,
)

PairMining = Literal["all", "batch_hard"]


def pair_probability_terms(logit: tf.Tensor, same: tf.Tensor) -> tf.Tensor:
    """Return the cross-entropy of each pair in nats, in the shape of ``logit``.

    Args:
        logit: float[...], larger is more likely the same.
        same: bool[...] in the same shape.

    Raises:
        TypeError: ``same`` is not boolean.
        ValueError: The shapes differ.
    """
    logit, same = as_float32(logit), require_same(same)
    require_equal_shapes(logit, same, "logit")
    return tf.nn.softplus(tf.where(same, -logit, logit))


def pair_probability_loss(logit: tf.Tensor, same: tf.Tensor) -> tf.Tensor:
    """Return the mean cross-entropy of the pairs; see ``pair_probability_terms``."""
    return tf.reduce_mean(pair_probability_terms(logit, same))


def batch_pair_probability_loss(
    logits: tf.Tensor, labels: tf.Tensor, *, mining: PairMining = "all"
) -> tf.Tensor:
    """Return the cross-entropy over the pairs of a batch, mated and non-mated weighted equally.

    Args:
        logits: float[B, B], the head applied to every pair; the diagonal is left out.
        labels: int[B].
        mining: ``all`` takes every pair. ``batch_hard`` takes all mated pairs and, for each sample, only the
            non-mated one that costs most: nearly all others are told apart soon and teach nothing more
            (the rule of Hermans, Beyer, Leibe 2017 for triplets, carried over).
    """
    different = different_subject(labels)
    terms = pair_probability_terms(logits, tf.logical_not(different))
    if mining == "all":
        return balanced_mean(terms, labels)
    hardest = tf.reduce_max(tf.where(different, terms, tf.zeros_like(terms)), axis=1)
    nonmated = mean_where(hardest, tf.reduce_any(different, axis=1))
    return 0.5 * (mean_where(terms, same_subject(labels)) + nonmated)


@serialisable
class PairProbabilityLoss(PairLoss):
    """``pair_probability_loss`` for ``compile``: ``y_true`` is ``same`` bool[B], ``y_pred`` logits [B]."""

    def __init__(self, name: str = "pair_probability", **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(name=name, **kwargs)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the loss of each pair."""
        return pair_probability_terms(y_pred, tf.cast(y_true, tf.bool))
