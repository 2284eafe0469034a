"""A small residual encoder for drawings and other small pictures.

Source: basic blocks of He, Zhang, Ren, Sun (2016), "Deep Residual Learning for Image Recognition", with the
shortcut averaged before it is projected (He, T. and others, 2019, "Bag of Tricks", ResNet-D), and the
features of the last map taken place by place instead of averaged, which keeps where a stroke is.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from training.encoders.layers import BatchNormalization, Ink, ended, image_input

BATCH_NORM_MOMENTUM = 0.97
"""Runs are a few thousand steps: with Keras's 0.99 the averages would lag behind the weights."""


def residual(
    height: int,
    width: int,
    channels: int,
    *,
    ink: bool,
    stem: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    dimensions: int,
    dropout: float,
) -> keras.Model:
    """Build uint8[N, H, W, C] -> residual stages, each halving the side -> float32[N, dimensions], length 1.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        channels: 1 or 3.
        ink: Normalise the polarity of a drawing; otherwise pixels are scaled to -1..1.
        stem: Filters of the first convolution, at full size.
        widths: Filters of each stage.
        blocks: Residual blocks of each stage.
        dimensions: Size of the embedding.
        dropout: Share of the last map's features dropped before the projection.
    """
    inputs = image_input(height, width, channels)
    x = Ink()(inputs) if ink else keras.layers.Rescaling(1.0 / 127.5, offset=-1.0)(inputs)
    x = _convolved(x, stem, kernel=3)
    for filters, count in zip(widths, blocks, strict=True):
        for number in range(count):
            x = _block(x, filters, stride=2 if number == 0 else 1)
    x = keras.layers.Flatten()(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(dimensions, use_bias=False)(x)
    x = _normalised(x)
    return ended(inputs, x, unit_length=True, name="residual")


def _block(x: tf.Tensor, filters: int, *, stride: int) -> tf.Tensor:
    y = _convolved(x, filters, kernel=3, stride=stride)
    y = _convolved(y, filters, kernel=3, activation=False)
    if stride > 1:
        x = keras.layers.AveragePooling2D(stride, padding="same")(x)
    if x.shape[-1] != filters:
        x = _convolved(x, filters, kernel=1, activation=False)
    return keras.layers.Activation("relu")(keras.layers.Add()([x, y]))


def _convolved(
    x: tf.Tensor, filters: int, *, kernel: int, stride: int = 1, activation: bool = True
) -> tf.Tensor:
    x = keras.layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False)(x)
    x = _normalised(x)
    return keras.layers.Activation("relu")(x) if activation else x


def _normalised(x: tf.Tensor) -> tf.Tensor:
    return BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x)
