"""What is minimised: a loss with the head it needs, on a labelled batch or on pairs, with the metrics it
logs.

On a labelled batch a pair loss takes all pairs of the batch, mated and non-mated ones weighing the same.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.config import RecipeError
from training.encoders.mobilefacenet import FEATURES
from training.heads import PairFeatures, SigmoidDistance, WeightedL1
from training.losses.closest_negatives import closest_negatives_loss
from training.losses.contrastive import batch_contrastive_loss, contrastive_loss
from training.losses.margin_softmax import MarginSoftmax, margin_softmax_loss
from training.losses.masks import different_subject, euclidean, mean_where, pairwise_euclidean
from training.losses.pair_probability import (
    PairMining,
    batch_pair_probability_loss,
    pair_probability_loss,
)
from training.losses.triplet import MINING

Metrics = dict[str, Any]


class Objective(keras.layers.Layer):
    """Base: an objective that takes neither kind of batch."""

    collapsed_loss: float | None = None
    """Loss of a run whose embeddings are all one point; None where no value tells."""

    wants_features = False
    """Whether the encoder's feature maps are needed beside its embeddings."""

    def __init__(self) -> None:
        super().__init__(dtype="float32")

    def prepare(self, encoder: keras.Model) -> None:
        """Make the weights that fit an encoder."""
        self.build(encoder.output_shape)

    def on_labels(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Metrics:
        """Return scalars of a labelled batch: int32[B], float[B, D]."""
        raise NotImplementedError(f"{type(self).__name__} does not take labelled batches")

    def on_pairs(self, same: tf.Tensor, left: tf.Tensor, right: tf.Tensor) -> Metrics:
        """Return scalars of pairs: bool[B], float[B, D] twice."""
        raise NotImplementedError(f"{type(self).__name__} does not take pairs")


def with_features(encoder: keras.Model) -> keras.Model:
    """Return the encoder with two outputs, its last map float[N, h, w, F] and its embeddings float[N, D].

    It shares the encoder's layers and weights.

    Raises:
        RecipeError: The encoder has no such map.
    """
    names = [layer.name for layer in encoder.layers]
    if FEATURES not in names:
        raise RecipeError(f"encoder {encoder.name} has no feature maps for a pair-feature head")
    maps = encoder.get_layer(FEATURES).output
    return keras.Model(encoder.input, [maps, encoder.output], name=f"{encoder.name}_with_features")


class ContrastiveObjective(Objective):
    """Contrastive loss on Euclidean distance."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin
        self.collapsed_loss = 0.5 * margin * margin

    def on_labels(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Metrics:
        """Take all pairs of the batch."""
        return {"loss": batch_contrastive_loss(embeddings, labels, self.margin)}

    def on_pairs(self, same: tf.Tensor, left: tf.Tensor, right: tf.Tensor) -> Metrics:
        """Take the pairs given; also logs the accuracy at half the margin."""
        apart = euclidean(left, right)
        right_decisions = tf.equal(apart <= self.margin / 2.0, same)
        return {
            "loss": contrastive_loss(apart, same, self.margin),
            "accuracy": tf.reduce_mean(tf.cast(right_decisions, tf.float32)),
        }


class TripletObjective(Objective):
    """Triplet loss with mining in the batch; logs the share of triplets of each kind."""

    def __init__(self, mining: str, margin: float, *, squared: bool) -> None:
        super().__init__()
        self.mine, self.margin, self.squared = MINING[mining], margin, squared
        self.collapsed_loss = margin

    def on_labels(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Metrics:
        """Mine the batch."""
        loss, counts = self.mine(embeddings, labels, self.margin, squared=self.squared)
        valid = tf.maximum(tf.cast(counts.valid, tf.float32), 1.0)
        easy, semi_hard, hard = (
            tf.cast(kind, tf.float32) / valid for kind in (counts.easy, counts.semi_hard, counts.hard)
        )
        return {
            "loss": loss,
            "easy_triplets": easy,
            "semi_hard_triplets": semi_hard,
            "hard_triplets": hard,
            "active_triplets": semi_hard + hard,
            "valid_triplets": valid,
        }


class ClosestNegativesObjective(Objective):
    """Mean and closest negatives over the cosines of two views."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin
        self.collapsed_loss = 2.0 * margin

    def on_labels(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Metrics:
        """Take a batch of P subjects with two samples each, side by side: one view each."""
        first, second = embeddings[0::2], embeddings[1::2]
        return {"loss": closest_negatives_loss(first, second, self.margin, labels=labels[0::2])}

    def on_pairs(self, same: tf.Tensor, left: tf.Tensor, right: tf.Tensor) -> Metrics:
        """Take mated pairs; the other rows are each row's negatives."""
        tf.debugging.assert_equal(tf.reduce_all(same), True, "closest-negatives takes mated pairs only")
        return {"loss": closest_negatives_loss(left, right, self.margin)}


class WeightedL1Objective(Objective):
    """Koch's cross-entropy over the sigmoid of a weighted L1 distance."""

    def __init__(self, mining: PairMining = "all") -> None:
        super().__init__()
        self.head = WeightedL1()
        self.mining = mining

    def build(self, embeddings_shape: tf.Tensor) -> None:
        """Make the head's weights, so that a sum over all components starts at about the same logit."""
        self.head = WeightedL1(initial_weight=min(0.1, 40.0 / embeddings_shape[-1]), initial_bias=2.0)
        self.head.build(embeddings_shape)

    def folded_scale(self) -> NDArray[np.float32]:
        """Return float32[D], to fold into the embedding."""
        return self.head.folded_scale()

    def on_labels(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Metrics:
        """Take the pairs of the batch that are mined."""
        return _in_batch(self.head(embeddings[:, None], embeddings[None, :]), labels, self.mining)

    def on_pairs(self, same: tf.Tensor, left: tf.Tensor, right: tf.Tensor) -> Metrics:
        """Take the pairs given."""
        logit = self.head(left, right)
        return {"loss": pair_probability_loss(logit, same), **_hits(logit, same)}


class SigmoidDistanceObjective(Objective):
    """Cross-entropy over the sigmoid of a Euclidean distance."""

    def __init__(self) -> None:
        super().__init__()
        self.head = SigmoidDistance()

    def build(self, embeddings_shape: tf.Tensor) -> None:
        """Make scale and offset."""
        del embeddings_shape
        self.head.build()

    def on_labels(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Metrics:
        """Take all pairs of the batch."""
        return _in_batch(self.head(pairwise_euclidean(embeddings)), labels)

    def on_pairs(self, same: tf.Tensor, left: tf.Tensor, right: tf.Tensor) -> Metrics:
        """Take the pairs given."""
        logit = self.head(euclidean(left, right))
        return {"loss": pair_probability_loss(logit, same), **_hits(logit, same)}


class PairFeaturesObjective(Objective):
    """The pair-feature head on feature maps, beside a contrastive term on the embeddings."""

    wants_features = True

    def __init__(self, units: int, dropout: float, distance_weight: float) -> None:
        super().__init__()
        self.head = PairFeatures(units, dropout)
        self.distance_weight = distance_weight

    def prepare(self, encoder: keras.Model) -> None:
        """Make the head's weights for the encoder's feature maps."""
        self.head.build(with_features(encoder).outputs[0].shape)
        self.built = True

    def on_pairs(self, same: tf.Tensor, left: tf.Tensor, right: tf.Tensor) -> Metrics:
        """Take the pairs given; each side is (feature maps, embeddings)."""
        logit = self.head(left[0], right[0], training=True)
        by_distance = contrastive_loss(euclidean(left[1], right[1]), same, 1.0)
        loss = pair_probability_loss(logit, same) + self.distance_weight * by_distance
        return {"loss": loss, "contrastive": by_distance, **_hits(logit, same)}


class MarginSoftmaxObjective(Objective):
    """Additive-margin softmax over the training subjects."""

    def __init__(self, subjects: int, *, scale: float, margin: float) -> None:
        super().__init__()
        self.softmax = MarginSoftmax(subjects, scale, margin)

    def build(self, embeddings_shape: tf.Tensor) -> None:
        """Make the subjects' directions."""
        self.softmax.build(embeddings_shape)

    def on_labels(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Metrics:
        """Classify; also logs the share of samples nearest to their own subject's direction."""
        cosines = self.softmax.cosines(embeddings)
        right = tf.equal(tf.argmax(cosines, axis=1, output_type=labels.dtype), labels)
        return {
            "loss": margin_softmax_loss(cosines, labels, self.softmax.scale, self.softmax.margin),
            "accuracy": tf.reduce_mean(tf.cast(right, tf.float32)),
        }


def _in_batch(logits: tf.Tensor, labels: tf.Tensor, mining: PairMining = "all") -> Metrics:
    """Return the loss over the mined pairs and hits over all pairs of a batch, from logits float32[B, B]."""
    same = ~different_subject(labels)
    off_diagonal = ~tf.eye(tf.shape(logits)[0], dtype=tf.bool)
    right = tf.cast(tf.equal(logits > 0.0, same), tf.float32)
    return {
        "loss": batch_pair_probability_loss(logits, labels, mining=mining),
        "accuracy_mated": mean_where(right, same & off_diagonal),
        "accuracy_nonmated": mean_where(right, ~same),
    }


def _hits(logit: tf.Tensor, same: tf.Tensor) -> Metrics:
    """Return how often the more probable answer is right, mated and non-mated pairs each."""
    right = tf.cast(tf.equal(logit > 0.0, same), tf.float32)
    return {"accuracy_mated": mean_where(right, same), "accuracy_nonmated": mean_where(right, ~same)}
