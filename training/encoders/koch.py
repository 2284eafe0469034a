"""Koch's convolutional twin for 105 x 105 characters.

Source: Koch, Zemel, Salakhutdinov (2015), "Siamese Neural Networks for One-shot Image Recognition", figure 4
and section 3.2.
"""

from __future__ import annotations

from typing import Literal

import keras

from training.encoders.layers import Ink, ended, image_input

Initialisation = Literal["koch", "he"]

_CONVOLUTIONS = ((64, 10), (128, 7), (128, 4), (256, 4))


def koch(
    *,
    size: int = 105,
    initialisation: Initialisation = "koch",
    l2_convolution: float = 2e-4,
    l2_dense: float = 1e-4,
    units: int = 4096,
) -> keras.Model:
    """Build uint8[N, size, size, 1] -> float32[N, units] in 0..1 (sigmoid), as the paper draws it.

    Args:
        size: Side of the image in pixels; 105 gives the paper's shapes.
        initialisation: ``koch`` draws convolution weights from N(0, 0.01) and dense ones from N(0, 0.2),
            biases from N(0.5, 0.01), as the paper says; ``he`` starts where the gradients of ReLU layers keep
            their size.
        l2_convolution: Weight decay of the convolutions; the paper searches 0 to 0.1, layer by layer.
        l2_dense: Weight decay of the dense layer.
        units: Size of the embedding; the paper has 4096.
    """
    inputs = image_input(size, size, 1)
    x = Ink()(inputs)
    for number, (filters, kernel) in enumerate(_CONVOLUTIONS, start=1):
        x = keras.layers.Conv2D(
            filters,
            kernel,
            activation="relu",
            kernel_initializer=_normal(0.0, 0.01) if initialisation == "koch" else "he_normal",
            bias_initializer=_normal(0.5, 0.01) if initialisation == "koch" else "zeros",
            kernel_regularizer=keras.regularizers.L2(l2_convolution),
            name=f"convolution_{number}",
        )(x)
        if number < len(_CONVOLUTIONS):
            x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(
        units,
        activation="sigmoid",
        kernel_initializer=_normal(0.0, 0.2) if initialisation == "koch" else "glorot_normal",
        bias_initializer=_normal(0.5, 0.01) if initialisation == "koch" else "zeros",
        kernel_regularizer=keras.regularizers.L2(l2_dense),
        name="dense",
    )(x)
    return ended(inputs, x, unit_length=False, name="koch")


def _normal(mean: float, deviation: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(mean, deviation)
