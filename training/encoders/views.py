"""An encoder of drawings over several views of one drawing: softened, and moved by a pixel or two.

Augmentation turns and bends drawings by interpolation, which softens their strokes. A drawing as it is sent
is sharper than all that the encoder learned from, so it is softened too: by the 3 x 3 binomial filter. And a
convolutional net with strides does not answer quite alike to a drawing moved by a pixel (Zhang, 2019, "Making
Convolutional Networks Shift-Invariant Again"), so the embeddings of moved copies are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from training.encoders.layers import PACKAGE, Ink, ended, image_input

_BINOMIAL = np.outer([1.0, 2.0, 1.0], [1.0, 2.0, 1.0]) / 16.0


@keras.saving.register_keras_serializable(PACKAGE)
class Views(keras.layers.Layer):
    """Map ink float32[N, H, W, C] to softened, moved ink [V * N, H, W, C]; all of one view stand together.

    Args:
        shifts: Pixels down and right of each view.
    """

    def __init__(self, shifts: Sequence[tuple[int, int]], **kwargs: Any) -> None:  # noqa: ANN401 - of the base
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.shifts = [(int(down), int(right)) for down, right in shifts]

    def call(self, ink: tf.Tensor) -> tf.Tensor:
        """Soften and move; what comes in at a border is ground, 0."""
        kernel = np.repeat(_BINOMIAL[:, :, None, None], ink.shape[-1], axis=2)
        soft = tf.nn.depthwise_conv2d(ink, tf.constant(kernel, tf.float32), (1, 1, 1, 1), "SAME")
        reach = max(1, *(abs(step) for shift in self.shifts for step in shift))
        framed = tf.pad(soft, [[0, 0], [reach, reach], [reach, reach], [0, 0]])
        height, width = ink.shape[1], ink.shape[2]
        moved = [
            framed[:, reach - down : reach - down + height, reach - right : reach - right + width]
            for down, right in self.shifts
        ]
        return ops.concatenate(moved, axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape; the number of images is not known beforehand."""
        return (None, *input_shape[1:])

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "shifts": self.shifts}


@keras.saving.register_keras_serializable(PACKAGE)
class MeanOfViews(keras.layers.Layer):
    """Average the embeddings of a number of views: float32[V * N, D] to float32[N, D]."""

    def __init__(self, views: int, **kwargs: Any) -> None:  # noqa: ANN401 - of the base class
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.views = views

    def call(self, embeddings: tf.Tensor) -> tf.Tensor:
        """Average."""
        return ops.mean(ops.reshape(embeddings, (self.views, -1, embeddings.shape[-1])), axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return ``(N, D)``."""
        return (None, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "views": self.views}


def averaged_over_views(encoder: keras.Model, shifts: Sequence[tuple[int, int]]) -> keras.Model:
    """Return an encoder that averages another one's embeddings over softened, moved copies of its input.

    Args:
        encoder: uint8[N, H, W, C] drawings to float32[N, D] of length 1, in float32; its first layer is
            ``Ink``.
        shifts: Pixels down and right of each copy; (0, 0) for the one in place.

    Returns:
        The same input and output; embeddings of length 1.
    """
    first = next(layer for layer in encoder.layers if isinstance(layer, Ink))
    after_ink = keras.Model(first.output, encoder.outputs[0])
    inputs = image_input(*encoder.inputs[0].shape[1:])
    views = Views(shifts)(Ink(dtype="float32")(inputs))
    embeddings = MeanOfViews(len(shifts))(after_ink(views))
    return ended(inputs, embeddings, unit_length=True, name=encoder.name)
