"""Learned heads: what turns two embeddings (or a distance) into the probability that they are of one subject.

Every head gives a **logit**, larger for more likely the same; ``training.losses.pair_probability`` trains it.
The public distance of a head that is no metric is ``1 - sigmoid(logit)`` (``head_distance``).
All heads compute in float32 and broadcast: ``a[:, None, :]`` against ``b[None, :, :]`` gives every pair.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.losses.base import serialisable
from training.losses.masks import as_float32, unit


def head_distance(logit: tf.Tensor) -> tf.Tensor:
    """Return ``1 - sigmoid(logit)``, computed so that it does not round to 0 where the head is sure."""
    return tf.sigmoid(-as_float32(logit))


@serialisable
class WeightedL1(keras.layers.Layer):
    """Koch's head, ``logit = bias - sum_j w_j |a_j - b_j|`` with all w_j >= 0.

    The sign is fixed (Koch leaves it free) so that the weights fold into the embedding: the L1 distance
    between ``w * a`` and ``w * b`` orders a gallery exactly as the head does. The constraint is applied by
    Keras optimizers after each step.

    Args:
        initial_weight: Of every coordinate. Small enough for the first logits not to saturate: |a - b| sums
            to tens for 4096 sigmoid units.
        initial_bias: Logit of two equal embeddings.
        **kwargs: Of ``keras.layers.Layer``.

    Source: Koch, Zemel and Salakhutdinov, "Siamese neural networks for one-shot image recognition", 2015.
    """

    def __init__(
        self,
        initial_weight: float = 0.1,
        initial_bias: float = 1.0,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.initial_weight, self.initial_bias = initial_weight, initial_bias

    def build(self, a_shape: tuple[int, ...], b_shape: object = None) -> None:
        """Create one weight a coordinate, and the bias."""
        self.scale = self.add_weight(
            name="scale",
            shape=(a_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_weight),
            constraint=keras.constraints.NonNeg(),
        )
        self.bias = self.add_weight(
            name="bias", shape=(), initializer=keras.initializers.Constant(self.initial_bias)
        )

    def call(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        """Return the logits of pairs of embeddings float[..., D], as float32[...]."""
        apart = tf.abs(as_float32(a) - as_float32(b))
        return self.bias - tf.reduce_sum(self.scale * apart, axis=-1)

    def similarity(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        """Return the probability that the pairs are of one subject."""
        return tf.sigmoid(self(a, b))

    def folded_scale(self) -> NDArray[np.float32]:
        """Return w float32[D], for which ``|w * a - w * b|_1`` is the head's weighted distance.

        The logit is ``bias`` minus that distance.

        Raises:
            ValueError: A weight is negative: something other than a Keras optimizer changed them.
        """
        scale = np.asarray(self.scale.value.numpy(), np.float32)
        if scale.min() < 0:
            raise ValueError(
                f"{(scale < 0).sum()} weights of the head are negative and cannot be folded into the "
                "embedding; train it with a Keras optimizer, which applies the constraint"
            )
        return scale

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs."""
        own = {"initial_weight": self.initial_weight, "initial_bias": self.initial_bias}
        return {**super().get_config(), **own}


@serialisable
class SigmoidDistance(keras.layers.Layer):
    """``logit = scale * (offset - distance)``: distances below the offset are more likely the same.

    The scale is learned as its logarithm, so it stays positive and the order of distances is kept.

    Args:
        initial_scale: Larger is steeper.
        initial_offset: In the unit of the distance; 1 is in the midst of the range of unit embeddings.
        **kwargs: Of ``keras.layers.Layer``.
    """

    def __init__(
        self,
        initial_scale: float = 4.0,
        initial_offset: float = 1.0,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.initial_scale, self.initial_offset = initial_scale, initial_offset

    def build(self, distance_shape: object = None) -> None:
        """Create the two scalars."""
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(),
            initializer=keras.initializers.Constant(math.log(self.initial_scale)),
        )
        self.offset = self.add_weight(
            name="offset", shape=(), initializer=keras.initializers.Constant(self.initial_offset)
        )

    def call(self, distance: tf.Tensor) -> tf.Tensor:
        """Return the logits of distances, in their shape."""
        return tf.exp(self.log_scale) * (self.offset - as_float32(distance))

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs."""
        own = {"initial_scale": self.initial_scale, "initial_offset": self.initial_offset}
        return {**super().get_config(), **own}


def pool_features(features: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Return the largest and the mean of each channel, concatenated: float32[B, 2C].

    Args:
        features: float[B, H, W, C] maps, float[B, T, C] sequences, or float[B, D] vectors, which come back
            as they are. Pooled vectors are therefore as good as the maps to whatever pools.
        mask: bool[B, T], for sequences: steps that are False are padding. A sequence without any step
            pools to zeros.
    """
    features = as_float32(features)
    rank = features.shape.rank
    if rank == 2:
        return features
    axes = list(range(1, rank - 1))
    if mask is None:
        largest, mean = tf.reduce_max(features, axis=axes), tf.reduce_mean(features, axis=axes)
    else:
        kept = tf.cast(mask, tf.bool)[..., tf.newaxis]
        count = tf.cast(tf.math.count_nonzero(kept, axis=1), tf.float32)
        mean = tf.math.divide_no_nan(
            tf.reduce_sum(tf.where(kept, features, tf.zeros_like(features)), axis=1), count
        )
        lowest = tf.fill(tf.shape(features), features.dtype.min)
        largest = tf.reduce_max(tf.where(kept, features, lowest), axis=1)
        largest = tf.where(count > 0, largest, tf.zeros_like(largest))
    return tf.concat([largest, mean], axis=-1)


@serialisable
class PairFeatures(keras.layers.Layer):
    """The pair-feature head: hand-made comparisons of pooled features, then a small dense network.

    Both sides are pooled (``pool_features``) to a and b; ``(a - b)^2``, ``|a^2 - b^2|`` and the cosine of a
    and b are concatenated and go through dense, ReLU, dropout, dense. In the texts the difference of squares
    keeps its sign, which swapping the sides turns round; its absolute value makes the head symmetric.

    Args:
        units: Width of the hidden layer.
        dropout: Share of it dropped in training.
        **kwargs: Of ``keras.layers.Layer``.

    Source: the texts on kinship and face pairs, which put it on two pooled VGG-Face or FaceNet towers.
    """

    def __init__(self, units: int = 128, dropout: float = 0.1, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**{"dtype": "float32", **kwargs})
        self.supports_masking = True
        self.units, self.rate = units, dropout
        self.hidden = keras.layers.Dense(units, activation="relu", dtype=self.dtype_policy)
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.logit = keras.layers.Dense(1, dtype=self.dtype_policy)

    def build(self, a_shape: tuple[int, ...], b_shape: object = None) -> None:
        """Create the dense layers."""
        width = a_shape[-1] if len(a_shape) == 2 else 2 * a_shape[-1]
        self.hidden.build((None, 2 * width + 1))
        self.logit.build((None, self.units))

    def call(
        self,
        a: tf.Tensor,
        b: tf.Tensor,
        a_mask: tf.Tensor | None = None,
        b_mask: tf.Tensor | None = None,
        training: bool | None = None,
    ) -> tf.Tensor:
        """Return the logits float32[B] of pairs of feature maps, sequences or vectors.

        Args:
            a: See ``pool_features``.
            b: In the shape of ``a``; sequences may differ in length.
            a_mask: bool[B, T], which steps of a sequence count; Keras fills it in behind an embedding layer
                with ``mask_zero``.
            b_mask: The same for ``b``.
            training: Whether dropout is active.
        """
        compared = pair_features(pool_features(a, a_mask), pool_features(b, b_mask))
        return self.logit(self.dropout(self.hidden(compared), training=training))[..., 0]

    def compute_mask(self, inputs: object, previous_mask: object = None) -> None:
        """Return no mask: the logits have no steps left."""

    def similarity(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        """Return the probability that the pairs are of one subject."""
        return tf.sigmoid(self(a, b, training=False))

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` needs."""
        return {**super().get_config(), "units": self.units, "dropout": self.rate}


def pair_features(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return squared difference, absolute difference of squares and cosine: float[..., 2D + 1].

    Args:
        a: float[..., D].
        b: float[..., D].
    """
    cosine = tf.reduce_sum(unit(a) * unit(b), axis=-1, keepdims=True)
    return tf.concat([tf.square(a - b), tf.abs(tf.square(a) - tf.square(b)), cosine], axis=-1)
