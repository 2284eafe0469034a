"""Face encoders: the net behind the ``faces`` bundle, whose weights load exactly, and a small one like it.

The ``faces`` encoder (OpenCV Zoo's SFace) is a MobileNet with PReLU whose last map is projected place by
place. ``mobilefacenet`` builds it for fine-tuning, and ``load_bundle_weights`` fills it from the bundle's
``encoder.onnx``: the embeddings are then the bundle's to 1e-5.

The published net comes with its batch norms, so they are layers here too, with their statistics, not folded
into the convolutions. ``trainable_stages`` holds all of them still, those of the trained stages included:
fine-tuning sees few people at a time, whose statistics are not those of the net's own training, and with
still ones the function that is trained is the function that is served.

Sources: Howard and others (2017), "MobileNets"; Chen, Liu, Gao, Han (2018), "MobileFaceNets"; Deng and others
(2019), "ArcFace", for the head (batch norm, dropout, dense, batch norm); Zhong and others (2021), "SFace".
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import onnx
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray

from training.encoders.layers import PACKAGE, ended, image_input
from training.importers.onnx_graph import initializers

STAGES = ("stage_1", "stage_2", "stage_3", "stage_4", "stage_5", "projection")
"""From the image on: maps of 112, 56, 28, 14 and 7 pixels a side, then the embedding.

The layers of ``mobilefacenet`` begin with the name of their stage.
"""

SIZE = 112
DIMENSIONS = 128
FEATURES = "features"
"""Layer of both encoders that gives the last map."""


class _Block(NamedTuple):
    """A depthwise 3 x 3 convolution and a 1 x 1 convolution, each with batch norm and PReLU."""

    stage: str
    name: str
    filters: int
    stride: int = 1


_STEM = _Block("stage_1", "conv_1", 32)
_BLOCKS = (
    _Block("stage_1", "conv_2", 64),
    _Block("stage_2", "conv_3", 128, stride=2),
    _Block("stage_2", "conv_4", 128),
    _Block("stage_3", "conv_5", 256, stride=2),
    _Block("stage_3", "conv_6", 256),
    _Block("stage_4", "conv_7", 512, stride=2),
    *(_Block("stage_4", f"conv_{number}", 512) for number in range(8, 13)),
    _Block("stage_5", "conv_13", 1024, stride=2),
    _Block("stage_5", "conv_14", 1024),
)
_SMALL_BLOCKS = ((64, 1), (96, 2), (96, 1), (192, 2), (192, 1), (256, 2), (256, 1))
"""Filters and stride of each block of the small encoder."""


@keras.saving.register_keras_serializable(PACKAGE)
class ChannelPReLU(keras.layers.Layer):
    """``x`` where it is positive, ``slope * x`` where it is negative, with a slope for each channel.

    Computed as ``slope * x + (1 - slope) * relu(x)``, which holds for every slope, above 1 and below 0 too,
    and needs no PRelu operator, at which onnxruntime is slow.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make one slope a channel, 0.25 at first (He and others, 2015)."""
        self.slope = self.add_weight(
            shape=(input_shape[-1],), initializer=keras.initializers.Constant(0.25), name="slope"
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Map float[..., C] to float[..., C]."""
        return self.slope * x + (1.0 - self.slope) * ops.relu(x)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape


def mobilefacenet(*, dropout: float = 0.0) -> keras.Model:
    """Build uint8[N, 112, 112, 3] (RGB, aligned) -> float32[N, 128] of length 1, with random weights.

    Args:
        dropout: Share of the last map's features dropped before the projection.
    """
    inputs = image_input(SIZE, SIZE, 3)
    # (pixel - 127.5) / 128 of the bundle: float32 holds every step of it exactly, in this order too.
    x = keras.layers.Rescaling(1 / 128, offset=-127.5 / 128, name="scaling")(inputs)
    x = _convolved(x, f"{_STEM.stage}_{_STEM.name}", _STEM.filters, kernel=3)
    for block in _BLOCKS:
        x = _separable(x, f"{block.stage}_{block.name}", block.filters, stride=block.stride)
    x = _normalised(x, FEATURES, epsilon=2e-5)
    x = keras.layers.Flatten(name="projection_flat")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="projection_dropout")(x)
    x = keras.layers.Dense(DIMENSIONS, name="projection_dense")(x)
    x = _normalised(x, "projection_norm", epsilon=2e-5)
    return ended(inputs, x, unit_length=True, name="mobilefacenet")


def small_face_encoder(
    height: int,
    width: int,
    channels: int,
    *,
    multiplier: float = 1.0,
    dimensions: int = 128,
    dropout: float = 0.0,
) -> keras.Model:
    """Build uint8[N, H, W, C] -> float32[N, dimensions] of length 1, small enough to train on a CPU.

    Separable blocks as in ``mobilefacenet``, with a shortcut where the shape stays, from half the side down
    to a sixteenth. Each channel of the last map is then weighed place by place (the global depthwise
    convolution of MobileFaceNets) and the sums are projected.

    Args:
        height: Of the image, in pixels, at least 16.
        width: Of the image, in pixels, at least 16.
        channels: 1 or 3.
        multiplier: Of every layer's filters.
        dimensions: Size of the embedding.
        dropout: Share of the sums dropped before the projection.
    """

    def scaled(filters: int) -> int:
        return max(8, 8 * round(filters * multiplier / 8))

    inputs = image_input(height, width, channels)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(inputs)
    x = _convolved(x, "stem", scaled(32), kernel=3, stride=2)
    for number, (filters, stride) in enumerate(_SMALL_BLOCKS, start=1):
        y = _separable(x, f"block_{number}", scaled(filters), stride=stride)
        x = keras.layers.Add(name=f"block_{number}_sum")([x, y]) if x.shape == y.shape else y
    x = _normalised(x, FEATURES)
    x = keras.layers.DepthwiseConv2D(x.shape[1:3], use_bias=False, name="projection_places")(x)
    x = keras.layers.Flatten(name="projection_flat")(_normalised(x, "projection_places_norm"))
    if dropout:
        x = keras.layers.Dropout(dropout, name="projection_dropout")(x)
    x = keras.layers.Dense(dimensions, use_bias=False, name="projection_dense")(x)
    x = _normalised(x, "projection_norm")
    return ended(inputs, x, unit_length=True, name="small_face_encoder")


def feature_model(model: keras.Model) -> keras.Model:
    """Return either encoder up to its last map: uint8[N, H, W, C] -> float32[N, h, w, F], not yet pooled.

    It shares the encoder's layers and weights.
    """
    return keras.Model(model.inputs[0], model.get_layer(FEATURES).output, name=f"{model.name}_features")


def trainable_stages(model: keras.Model, last: int) -> None:
    """Let only the last stages of a ``mobilefacenet`` train, and no batch norm.

    Args:
        model: From ``mobilefacenet``.
        last: How many of ``STAGES``, from the embedding back: 1 trains the projection alone, 6 every stage.

    Raises:
        ValueError: ``last`` is not 1 to 6.
    """
    if not 1 <= last <= len(STAGES):
        raise ValueError(f"{last} stages cannot train: the net has {len(STAGES)}")
    for layer in model.layers:
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer.name.startswith(STAGES[-last:]) and not norm


def load_bundle_weights(model: keras.Model, encoder: Path) -> None:
    """Fill a ``mobilefacenet`` with the weights of the ``faces`` bundle.

    The bundle's graph has each PReLU written as two depthwise convolutions, and the channels whose slope is
    above 1 negated (``training.importers.onnx_graph.rewrite_prelu``). Both are undone here.

    Args:
        model: From ``mobilefacenet``.
        encoder: The bundle's ``encoder.onnx``.

    Raises:
        ValueError: The file has other constants than this net.
    """
    constants = initializers(onnx.load(encoder))
    subtracted, factor = (_taken(constants, f"scalar_op{number}").item() for number in (1, 2))
    if (subtracted, factor) != (127.5, 1 / 128):
        raise ValueError(f"the file scales pixels p by (p - {subtracted}) * {factor}")
    sign = _load_convolution(model, constants, _STEM.stage, _STEM.name, np.ones(3, np.float32))
    for block in _BLOCKS:
        sign = _load_convolution(model, constants, block.stage, f"{block.name}_dw", sign)
        sign = _load_convolution(model, constants, block.stage, block.name, sign)
    if (sign < 0).any():
        raise ValueError("the file negates channels of the last map")
    _fill(model, FEATURES, _batch_norm(constants, "bn1"))
    weight, bias = (_taken(constants, f"pre_fc1_{part}_dequantized") for part in ("weight", "bias"))
    _, height, width, channels = model.get_layer(FEATURES).output.shape
    places = weight.reshape(DIMENSIONS, channels, height, width).transpose(2, 3, 1, 0)
    _fill(model, "projection_dense", [places.reshape(-1, DIMENSIONS), bias])
    _fill(model, "projection_norm", _batch_norm(constants, "fc1"))
    if constants:
        raise ValueError(
            f"the file has constants that this net has no place for: {', '.join(sorted(constants))}"
        )


def _load_convolution(
    model: keras.Model,
    constants: dict[str, NDArray[np.generic]],
    stage: str,
    name: str,
    sign: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Fill a convolution, its batch norm and its PReLU.

    Args:
        model: To fill.
        constants: Of the file; what is used is taken out.
        stage: Of the layer.
        name: Of the convolution in the file; it ends in ``_dw`` if it is depthwise.
        sign: float32[C], -1 for each input channel that the file negates.

    Returns:
        The same for the channels that come out.
    """
    layer = f"{stage}_{name}"
    kernel = _taken(constants, f"{name}_conv2d_weight_reshaped")
    if name.endswith("_dw"):
        kernel = (kernel * sign[:, None, None, None]).transpose(2, 3, 0, 1)  # C, 1, H, W -> H, W, C, 1
    else:
        kernel = (kernel * sign[:, None, None]).transpose(2, 3, 1, 0)  # out, in, H, W -> H, W, in, out
    linear, rectified = (
        _taken(constants, f"{name}_relu_{part}_weight").reshape(-1) for part in ("linear", "rectified")
    )
    negated = (linear == 1) & (rectified > 0)
    flip = np.where(negated, np.float32(-1), np.float32(1))
    gamma, beta, mean, variance = _batch_norm(constants, f"{name}_batchnorm")
    _fill(model, layer, [kernel])
    _fill(model, f"{layer}_norm", [gamma * flip, beta * flip, mean, variance])
    _fill(model, f"{layer}_prelu", [np.where(negated, 1 + rectified, linear)])
    return flip


def _batch_norm(constants: dict[str, NDArray[np.generic]], name: str) -> list[NDArray[np.float32]]:
    return [_taken(constants, f"{name}_{part}") for part in ("gamma", "beta", "moving_mean", "moving_var")]


def _taken(constants: dict[str, NDArray[np.generic]], name: str) -> NDArray[np.float32]:
    if name not in constants:
        raise ValueError(f"the file has no constant {name!r}")
    return constants.pop(name).astype(np.float32)


def _fill(model: keras.Model, layer: str, weights: list[NDArray[np.float32]]) -> None:
    try:
        model.get_layer(layer).set_weights(weights)
    except ValueError as error:
        raise ValueError(f"layer {layer!r} does not take the file's weights: {error}") from error


def _separable(x: tf.Tensor, name: str, filters: int, *, stride: int) -> tf.Tensor:
    x = keras.layers.DepthwiseConv2D(
        3, strides=stride, use_bias=False, depthwise_initializer="he_normal", name=f"{name}_dw"
    )(_padded(x, f"{name}_dw"))
    x = ChannelPReLU(name=f"{name}_dw_prelu")(_normalised(x, f"{name}_dw_norm"))
    return _convolved(x, name, filters, kernel=1)


def _convolved(x: tf.Tensor, name: str, filters: int, *, kernel: int, stride: int = 1) -> tf.Tensor:
    x = keras.layers.Conv2D(
        filters, kernel, strides=stride, use_bias=False, kernel_initializer="he_normal", name=name
    )(_padded(x, name) if kernel > 1 else x)
    return ChannelPReLU(name=f"{name}_prelu")(_normalised(x, f"{name}_norm"))


def _padded(x: tf.Tensor, name: str) -> tf.Tensor:
    # One pixel on every side. "same" would put both behind an even side that is halved.
    return keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)


def _normalised(x: tf.Tensor, name: str, *, epsilon: float = 1e-3) -> tf.Tensor:
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=epsilon, name=name)(x)
