"""The texts' multilayer perceptrons: pixels flattened, then dense layers."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from training.encoders.layers import ended, image_input


def mlp(
    height: int,
    width: int,
    channels: int,
    *,
    widths: Sequence[int],
    dropout: float = 0.0,
    last_linear: bool = False,
    unit_length: bool = False,
) -> keras.Model:
    """Build uint8[N, H, W, C] -> flatten -> dense layers with ReLU -> float32[N, widths[-1]].

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        channels: 1 or 3.
        widths: Units of each dense layer; (512, 256, 128) and (128, 128, 64) are the texts'.
        dropout: Share of units dropped after every hidden layer.
        last_linear: Leave out the ReLU of the last layer.
        unit_length: Scale embeddings to length 1.
    """
    inputs = image_input(height, width, channels)
    x = keras.layers.Rescaling(1.0 / 255.0)(inputs)
    x = keras.layers.Flatten()(x)
    for number, units in enumerate(widths, start=1):
        last = number == len(widths)
        x = keras.layers.Dense(units, activation=None if last and last_linear else "relu")(x)
        if dropout and not last:
            x = keras.layers.Dropout(dropout)(x)
    return ended(inputs, x, unit_length=unit_length, name="mlp")
