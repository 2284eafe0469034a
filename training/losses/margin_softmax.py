"""Additive-margin softmax over the subjects of the training set.

Each subject has a direction; the cosine of an embedding with its own subject's direction must beat those of
all others by a margin::

    loss = -log softmax(scale * (cosines - margin * one_hot(label)))[label]

Source: Wang et al., "Additive margin softmax for face verification", 2018, equation 6, and "CosFace", CVPR
2018, equation 4.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from training.losses.base import serialisable
from training.losses.masks import as_float32, pairwise_cosine


def margin_softmax_terms(
    cosines: tf.Tensor, labels: tf.Tensor, scale: float = 30.0, margin: float = 0.35
) -> tf.Tensor:
    """Return float32[B], the loss of each sample in nats.

    Args:
        cosines: float[B, S], of each embedding with each of the S subjects' directions.
        labels: int[B] in 0..S-1.
        scale: What cosines are multiplied by; the largest logit.
        margin: In cosine.
    """
    cosines = as_float32(cosines)
    labels = tf.cast(labels, tf.int32)
    own = tf.one_hot(labels, tf.shape(cosines)[1], dtype=tf.float32)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scale * (cosines - margin * own))


def margin_softmax_loss(
    cosines: tf.Tensor, labels: tf.Tensor, scale: float = 30.0, margin: float = 0.35
) -> tf.Tensor:
    """Return the mean loss of the samples; see ``margin_softmax_terms``."""
    return tf.reduce_mean(margin_softmax_terms(cosines, labels, scale, margin))


@serialisable
class MarginSoftmax(keras.layers.Layer):
    """The subjects' directions, and the loss against them; dropped once training ends.

    Calling it with embeddings float[B, D] and labels int[B] gives the scalar loss, in float32 under any
    precision policy.

    Args:
        subjects: S, how many subjects the training set has.
        scale: See ``margin_softmax_terms``.
        margin: See ``margin_softmax_terms``.
        **kwargs: Of ``keras.layers.Layer``.
    """

    def __init__(
        self,
        subjects: int,
        scale: float = 30.0,
        margin: float = 0.35,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.subjects, self.scale, self.margin = subjects, scale, margin

    def build(self, embeddings_shape: tuple[int, ...], labels_shape: object = None) -> None:
        """Create the directions, at norm about 1: the step size of a direction is relative to its norm."""
        self.directions = self.add_weight(
            name="directions",
            shape=(self.subjects, embeddings_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=1 / math.sqrt(embeddings_shape[-1])),
        )

    def cosines(self, embeddings: tf.Tensor) -> tf.Tensor:
        """Return float32[B, S], the cosine of each embedding with each subject's direction."""
        return pairwise_cosine(embeddings, tf.convert_to_tensor(self.directions))

    def call(self, embeddings: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Return the scalar loss."""
        return margin_softmax_loss(self.cosines(embeddings), labels, self.scale, self.margin)

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs."""
        own = {"subjects": self.subjects, "scale": self.scale, "margin": self.margin}
        return {**super().get_config(), **own}
