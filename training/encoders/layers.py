"""Layers that several encoders share: what happens to raw pixels first and to embeddings last."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

PACKAGE = "visavis"


@keras.saving.register_keras_serializable(PACKAGE)
class Ink(keras.layers.Layer):
    """Turn a drawing into ink: 0 is the ground, 1 is full ink, whichever of the two is dark.

    uint8[N, H, W, C] becomes float[N, H, W, C]. A drawing has less ink than ground, so an image whose mean is
    above the middle is black on white and is inverted. Without it a service would silently fail on whoever
    sends the other polarity.
    """

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Map uint8 pixels to ink in 0..1."""
        values = ops.cast(images, "float32") / 255.0
        bright = ops.mean(values, axis=(1, 2, 3), keepdims=True) > 0.5
        return ops.cast(ops.where(bright, 1.0 - values, values), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class UnitLength(keras.layers.Layer):
    """Scale each embedding to Euclidean length 1, in float32 whatever the precision before it."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - of the base class
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, embeddings: tf.Tensor) -> tf.Tensor:
        """Map float[N, D] to float32[N, D] of length 1."""
        # The small constant keeps the gradient of an all-zero embedding finite.
        squares = ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
        return embeddings * ops.rsqrt(ops.maximum(squares, 1e-12))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer, with TensorFlow's fused kernel for maps float[N, H, W, C] while it trains.

    Keras takes the moments and scales in separate passes over memory, which costs a small convolutional net
    on a CPU a fifth of its step. Weights, inference and export are Keras's own; the running variance is the
    unbiased one.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalise over all but the channels."""
        if not (training and self.trainable) or len(inputs.shape) != 4 or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.ones_like(self.moving_variance) if self.gamma is None else self.gamma,
            offset=self.beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1.0 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(PACKAGE)
class MaskedMean(keras.layers.Layer):
    """Mean of a sequence over the positions with a token: float[N, T, C] and int[N, T] to float[N, C]."""

    def call(self, sequence: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        """Average over time where the token is not 0; a text without tokens gives zeros."""
        present = ops.cast(ops.not_equal(tokens, 0), sequence.dtype)[:, :, None]
        return ops.sum(sequence * present, axis=1) / ops.maximum(ops.sum(present, axis=1), 1.0)

    def compute_output_shape(
        self, sequence_shape: tf.Tensor, tokens_shape: tf.Tensor
    ) -> tuple[int | None, ...]:
        """Return ``(N, C)``."""
        del tokens_shape
        return (sequence_shape[0], sequence_shape[2])


def image_input(height: int, width: int, channels: int) -> tf.Tensor:
    """Return the input every image encoder starts with: ``images`` uint8[N, height, width, channels]."""
    return keras.Input((height, width, channels), dtype="uint8", name="images")


def ended(inputs: tf.Tensor, embeddings: tf.Tensor, *, unit_length: bool, name: str) -> keras.Model:
    """Close a model: float32 embeddings named ``embeddings``, of length 1 if asked."""
    if unit_length:
        embeddings = UnitLength(name="embeddings")(embeddings)
    else:
        embeddings = keras.layers.Activation("linear", dtype="float32", name="embeddings")(embeddings)
    return keras.Model(inputs, embeddings, name=name)


@keras.saving.register_keras_serializable(PACKAGE)
class ScaleEach(keras.layers.Layer):
    """Multiply each component of an embedding by a constant of its own."""

    def __init__(self, scale: list[float], **kwargs: Any) -> None:  # noqa: ANN401 - of the base class
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.scale = scale

    def call(self, embeddings: tf.Tensor) -> tf.Tensor:
        """Map float32[N, D] to float32[N, D]."""
        return embeddings * ops.convert_to_tensor(self.scale, dtype="float32")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "scale": self.scale}
