"""Koch's convolutional twin for 105 x 105 characters.

Source: Koch, Zemel, Salakhutdinov (2015), "Siamese Neural Networks for One-shot Image Recognition", figure 4
and section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import keras

from training.encoders.layers import BatchNormalization, Ink, ended, image_input

Initialisation = Literal["koch", "he"]

FILTERS = (64, 128, 128, 256)
KERNELS = (10, 7, 4, 4)


def koch(
    *,
    size: int = 105,
    filters: Sequence[int] = FILTERS,
    kernels: Sequence[int] = KERNELS,
    initialisation: Initialisation = "koch",
    l2_convolution: float | Sequence[float] = 2e-4,
    l2_dense: float = 1e-4,
    units: int = 4096,
    batch_norm: bool = False,
) -> keras.Model:
    """Build uint8[N, size, size, 1] -> float32[N, units] in 0..1 (sigmoid), as the paper draws it.

    Args:
        size: Side of the image in pixels; 105 gives the paper's shapes.
        filters: Of the four convolutions; the paper's are the best of its search over 16 to 256.
        kernels: Their sides in pixels; searched over 3 to 20.
        initialisation: ``koch`` draws convolution weights from N(0, 0.01) and dense ones from N(0, 0.2),
            biases from N(0.5, 0.01), as the paper says; ``he`` starts where the gradients of ReLU layers keep
            their size.
        l2_convolution: Weight decay of the convolutions, one for all or one for each; the paper searches 0
            to 0.1, layer by layer.
        l2_dense: Weight decay of the dense layer.
        units: Size of the embedding; the paper has 4096.
        batch_norm: Normalises the batch in front of each activation while training (Ioffe and Szegedy, 2015,
            which the paper could not know). At inference that is a factor and an offset a channel, which fold
            into the layer before: the trained net is the paper's, found in far fewer steps.

    Raises:
        ValueError: The image shrinks to nothing: kernels too large for its size.
    """
    decays = [l2_convolution] * len(filters) if isinstance(l2_convolution, float | int) else l2_convolution
    if smallest_map(size, kernels) < 1:
        raise ValueError(f"kernels {tuple(kernels)} leave nothing of an image of {size} pixels")
    inputs = image_input(size, size, 1)
    x = Ink()(inputs)
    layers = zip(filters, kernels, decays, strict=True)
    for number, (width, kernel, decay) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(
            width,
            kernel,
            use_bias=not batch_norm,
            kernel_initializer=_normal(0.0, 0.01) if initialisation == "koch" else "he_normal",
            bias_initializer=_normal(0.5, 0.01) if initialisation == "koch" else "zeros",
            kernel_regularizer=keras.regularizers.L2(decay),
            name=f"convolution_{number}",
        )(x)
        # ReLU and a rising normalisation (scale=False) give the same after the pooling as before it, on a
        # quarter of the values.
        if number < len(filters):
            x = keras.layers.MaxPooling2D()(x)
        if batch_norm:
            x = BatchNormalization(scale=False, momentum=0.98)(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(
        units,
        use_bias=not batch_norm,
        kernel_initializer=_normal(0.0, 0.2) if initialisation == "koch" else "glorot_normal",
        bias_initializer=_normal(0.5, 0.01) if initialisation == "koch" else "zeros",
        kernel_regularizer=keras.regularizers.L2(l2_dense),
        name="dense",
    )(x)
    if batch_norm:
        x = BatchNormalization(momentum=0.98)(x)
    x = keras.layers.Activation("sigmoid")(x)
    return ended(inputs, x, unit_length=False, name="koch")


def smallest_map(size: int, kernels: Sequence[int]) -> int:
    """Return the side in pixels of the last convolution's map; below 1 where a kernel finds no room."""
    for number, kernel in enumerate(kernels, start=1):
        size -= kernel - 1
        if size < 1:
            return size
        if number < len(kernels):
            size //= 2
    return size


def _normal(mean: float, deviation: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(mean, deviation)
