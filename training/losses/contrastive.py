"""Contrastive loss: mated pairs are drawn together, non-mated ones pushed apart up to a margin.

Source: Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR 2006,
equation 4, without its constant factor 1/2 (as in the Keras texts), so that a pair at distance 0 that should
be a margin apart costs margin squared::

    loss(d, same) = d^2 if same else max(margin - d, 0)^2
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from training.losses.base import BatchLoss, PairLoss, serialisable
from training.losses.masks import (
    as_float32,
    balanced_mean,
    different_subject,
    pairwise_euclidean,
    require_equal_shapes,
    require_same,
)


def contrastive_terms(distance: tf.Tensor, same: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Return the contrastive loss of each pair, in the shape of ``distance``.

    Args:
        distance: float[...], Euclidean distances.
        same: bool[...] in the same shape.
        margin: Distance from which a non-mated pair costs nothing.

    Raises:
        TypeError: ``same`` is not boolean.
        ValueError: The shapes differ.
    """
    distance, same = as_float32(distance), require_same(same)
    require_equal_shapes(distance, same, "distance")
    return tf.where(same, tf.square(distance), tf.square(tf.nn.relu(margin - distance)))


def contrastive_loss(distance: tf.Tensor, same: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Return the mean contrastive loss of the pairs; see ``contrastive_terms``."""
    return tf.reduce_mean(contrastive_terms(distance, same, margin))


def batch_contrastive_loss(embeddings: tf.Tensor, labels: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Return the contrastive loss over all pairs of a batch, mated and non-mated weighted equally.

    An encoder that maps everything to one point gets margin squared / 2.
    """
    terms = contrastive_terms(
        pairwise_euclidean(embeddings), tf.logical_not(different_subject(labels)), margin
    )
    return balanced_mean(terms, labels)


@serialisable
class ContrastiveLoss(PairLoss):
    """``contrastive_loss`` for ``compile``: ``y_true`` is ``same`` bool[B], ``y_pred`` distances [B]."""

    def __init__(self, margin: float = 1.0, name: str = "contrastive", **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(name=name, **kwargs)
        self.margin = margin

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the loss of each pair."""
        return contrastive_terms(y_pred, tf.cast(y_true, tf.bool), self.margin)

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs."""
        return {**super().get_config(), "margin": self.margin}


@serialisable
class BatchContrastiveLoss(BatchLoss):
    """``batch_contrastive_loss`` for ``compile``: ``y_true`` is labels int[B], ``y_pred`` float[B, D]."""

    def __init__(self, margin: float = 1.0, name: str = "batch_contrastive", **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(name=name, **kwargs)
        self.margin = margin

    def batch_loss(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        """Return the scalar loss of the batch."""
        return batch_contrastive_loss(embeddings, labels, self.margin)

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs."""
        return {**super().get_config(), "margin": self.margin}
