"""Augmentation inside the input graph: uint8[B, H, W, C] in, the same shape and type out.

Every function takes a ``seed`` int32[2] and uses stateless randomness, so that a batch depends on the run's
seed and the step alone and a resumed run sees what an unbroken one would have seen.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from training.data.augmentation import Affine, Augmentation, Elastic


def augment(images: tf.Tensor, spec: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Apply an augmentation to uint8[B, H, W, C]; each image draws its own numbers."""
    if spec == Augmentation(fill=spec.fill):
        return images
    values = tf.cast(images, tf.float32)
    seeds = tf.unstack(tf.random.split(seed, 6))
    if spec.elastic is not None:
        values = elastic(values, spec.elastic, seeds[0], fill=spec.fill)
    if spec.affine is not None:
        values = affine(values, spec.affine, seeds[1], fill=spec.fill)
    if spec.crop:
        values = crop(values, spec.crop, seeds[2], fill=spec.fill)
    if spec.flip:
        values = flip(values, seeds[3])
    if spec.brightness or spec.contrast or spec.saturation:
        values = colour(values, spec, seeds[4])
    if spec.blur:
        values = blur(values, spec.blur, seeds[5])
    return tf.cast(tf.round(tf.clip_by_value(values, 0.0, 255.0)), tf.uint8)


def affine(values: tf.Tensor, spec: Affine, seed: tf.Tensor, *, fill: int) -> tf.Tensor:
    """Turn, scale, shear and shift float32[B, H, W, C], bilinear."""
    count = tf.shape(values)[0]
    height, width = values.shape[1], values.shape[2]
    draws = tf.random.stateless_uniform((7, count), seed, -1.0, 1.0)
    taken = tf.random.stateless_uniform((4, count), seed + 1) < spec.each_with
    angle = tf.where(taken[0], draws[0] * math.radians(spec.rotation_deg), 0.0)
    across = tf.where(taken[1], draws[1] * spec.zoom, 0.0) + 1.0
    down = tf.where(taken[1], draws[2] * spec.zoom, 0.0) + 1.0
    shear = tf.where(taken[2], draws[3] * spec.shear, 0.0)
    right = tf.where(taken[3], draws[4] * spec.shift, 0.0) * width
    below = tf.where(taken[3], draws[5] * spec.shift, 0.0) * height
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return _projected(
        values,
        across=(across * cosine, across * (shear * cosine - sine), right),
        down=(down * sine, down * (shear * sine + cosine), below),
        fill=fill,
    )


def crop(values: tf.Tensor, share: float, seed: tf.Tensor, *, fill: int) -> tf.Tensor:
    """Cut a window out of each of float32[B, H, W, C] and enlarge it to the whole, bilinear."""
    count = tf.shape(values)[0]
    height, width = values.shape[1], values.shape[2]
    size = 1.0 - share * tf.random.stateless_uniform((count,), seed)
    room = (1.0 - size) / 2.0
    place = tf.random.stateless_uniform((2, count), seed + 1, -1.0, 1.0)
    zero = tf.zeros_like(size)
    return _projected(
        values,
        across=(size, zero, place[0] * room * width),
        down=(zero, size, place[1] * room * height),
        fill=fill,
    )


def _projected(
    values: tf.Tensor, *, across: tuple[Any, Any, Any], down: tuple[Any, Any, Any], fill: int
) -> tf.Tensor:
    """Sample each image at ``(x, y) -> (a x + b y + c, d x + e y + f)`` measured from its centre."""
    centre_x, centre_y = (values.shape[2] - 1) / 2.0, (values.shape[1] - 1) / 2.0
    (a, b, c), (d, e, f) = across, down
    zero = tf.zeros_like(a)
    rows = [
        a,
        b,
        c + centre_x - a * centre_x - b * centre_y,
        d,
        e,
        f + centre_y - d * centre_x - e * centre_y,
        zero,
        zero,
    ]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=values,
        transforms=tf.stack(rows, axis=1),
        output_shape=values.shape[1:3],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=float(fill),
    )


def elastic(values: tf.Tensor, spec: Elastic, seed: tf.Tensor, *, fill: int) -> tf.Tensor:
    """Displace the pixels of float32[B, H, W, C] smoothly, bilinear; beyond the border is ``fill``."""
    count = tf.shape(values)[0]
    height, width = values.shape[1], values.shape[2]
    grid = tf.random.stateless_uniform((count, spec.grid, spec.grid, 2), seed, -1.0, 1.0)
    shift = tf.image.resize(grid, (height, width), "bicubic") * spec.amplitude
    y, x = tf.meshgrid(tf.range(height, dtype=tf.float32), tf.range(width, dtype=tf.float32), indexing="ij")
    # A frame of ground around the image answers for all that lies beyond it.
    padded = tf.pad(values, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=float(fill))
    at_y = tf.clip_by_value(y + shift[..., 0] * height + 1.0, 0.0, height + 0.999)
    at_x = tf.clip_by_value(x + shift[..., 1] * width + 1.0, 0.0, width + 0.999)
    low_y, low_x = tf.floor(at_y), tf.floor(at_x)
    part_y, part_x = (at_y - low_y)[..., None], (at_x - low_x)[..., None]
    flat = tf.reshape(padded, (count, (height + 2) * (width + 2), values.shape[3]))

    def at(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.gather(flat, tf.cast(row * (width + 2) + column, tf.int32), batch_dims=1)

    upper = at(low_y, low_x) * (1.0 - part_x) + at(low_y, low_x + 1.0) * part_x
    lower = at(low_y + 1.0, low_x) * (1.0 - part_x) + at(low_y + 1.0, low_x + 1.0) * part_x
    return upper * (1.0 - part_y) + lower * part_y


def flip(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirror every second image of float32[B, H, W, C], left to right."""
    mirrored = tf.random.stateless_uniform((tf.shape(values)[0], 1, 1, 1), seed) < 0.5
    return tf.where(mirrored, values[:, :, ::-1], values)


def colour(values: tf.Tensor, spec: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Change brightness, contrast and saturation of float32[B, H, W, C] in 0..255."""
    count = tf.shape(values)[0]
    draws = tf.random.stateless_uniform((3, count, 1, 1, 1), seed, -1.0, 1.0)
    mean = tf.reduce_mean(values, axis=(1, 2, 3), keepdims=True)
    values = (values - mean) * (1.0 + draws[0] * spec.contrast) + mean + draws[1] * spec.brightness * 255.0
    if spec.saturation:
        grey = tf.reduce_mean(values, axis=3, keepdims=True)
        values = grey + (values - grey) * (1.0 - tf.abs(draws[2]) * spec.saturation)
    return values


def blur(values: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    """Blur a share of the images of float32[B, H, W, C] with the 3 x 3 binomial filter."""
    taps = tf.constant([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16.0
    kernel = tf.tile(taps[:, :, None, None], (1, 1, values.shape[3], 1))
    edges = tf.pad(values, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    blurred = tf.nn.depthwise_conv2d(edges, kernel, (1, 1, 1, 1), "VALID")
    chosen = tf.random.stateless_uniform((tf.shape(values)[0], 1, 1, 1), seed) < share
    return tf.where(chosen, blurred, values)
