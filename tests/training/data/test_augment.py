from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from training.data import augment as a
from training.data.augmentation import Affine, Augmentation, Elastic

SEED = tf.constant([1, 2])
FULL = Augmentation(
    affine=Affine(rotation_deg=30, zoom=0.2, shear=0.3, shift=0.1),
    elastic=Elastic(),
    flip=True,
    crop=0.2,
    brightness=0.2,
    contrast=0.2,
    saturation=0.5,
    blur=0.5,
)


def noise(count: int = 6, side: int = 9, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (count, side, side, channels), np.uint8)


def dot(row: int, column: int, side: int = 9) -> NDArray[np.float32]:
    """One image, black but for one pixel."""
    image = np.zeros((1, side, side, 1), np.float32)
    image[0, row, column] = 200
    return image


def moved(image: NDArray[np.float32], **given: Any) -> NDArray[np.float32]:
    """Apply the map from a place in the result to the place it is taken from."""
    identity = {"across": (1, 0, 0), "down": (0, 1, 0), "fill": 0}
    known = {**identity, **given}
    for name in ("across", "down"):
        known[name] = tuple(tf.constant([float(value)]) for value in known[name])
    result: NDArray[np.float32] = a._projected(tf.constant(image), **known).numpy()
    return result


def test_nothing_asked_for_changes_nothing() -> None:
    images = noise()
    np.testing.assert_array_equal(a.augment(tf.constant(images), Augmentation(fill=7), SEED), images)


def test_ranges_of_zero_change_nothing() -> None:
    images = noise()
    spec = Augmentation(affine=Affine(), elastic=Elastic(amplitude=1e-9))
    np.testing.assert_array_equal(a.augment(tf.constant(images), spec, SEED), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_everything_at_once_keeps_shape_and_type(channels: int) -> None:
    images = noise(channels=channels)
    result = a.augment(tf.constant(images), FULL, SEED)
    assert result.dtype == tf.uint8
    assert result.shape == images.shape
    assert not np.array_equal(result, images)


def test_result_depends_on_the_seed_alone() -> None:
    images = tf.constant(noise())
    first = a.augment(images, FULL, SEED).numpy()
    np.testing.assert_array_equal(first, a.augment(images, FULL, SEED))
    for other in ([1, 3], [2, 2]):
        assert not np.array_equal(first, a.augment(images, FULL, tf.constant(other)))


def test_each_image_draws_its_own_numbers() -> None:
    images = tf.constant(np.repeat(noise(count=1), 6, axis=0))
    result = a.augment(images, FULL, SEED).numpy()
    assert len({image.tobytes() for image in result}) == 6


def test_shift_by_two_pixels_takes_each_pixel_from_two_to_the_right() -> None:
    result = moved(dot(3, 5), across=(1, 0, 2))
    assert result[0, 3, 3] == 200
    assert result.sum() == 200


def test_quarter_turn_takes_the_top_from_the_right() -> None:
    # x' = -y, y' = x: the place (0, -4) above the centre shows what was at (4, 0), right of it.
    result = moved(dot(4, 8), across=(0, -1, 0), down=(1, 0, 0))
    assert result[0, 0, 4] == pytest.approx(200)
    assert result.sum() == pytest.approx(200)


def test_factor_of_two_about_the_centre_halves_distances_to_it() -> None:
    result = moved(dot(0, 8), across=(2, 0, 0), down=(0, 2, 0))
    assert result[0, 2, 6] == 200
    assert result.sum() == 200


def test_what_lies_beyond_the_image_is_filled() -> None:
    result = moved(np.zeros((1, 9, 9, 1), np.float32), across=(1, 0, 20), fill=255)
    assert (result == 255).all()


@pytest.mark.parametrize(
    "spec",
    [
        Augmentation(affine=Affine(shift=0.5), fill=255),
        Augmentation(elastic=Elastic(amplitude=0.5), fill=255),
    ],
)
def test_white_paper_stays_white_paper(spec: Augmentation) -> None:
    paper = np.full((8, 12, 12, 1), 255, np.uint8)
    np.testing.assert_array_equal(a.augment(tf.constant(paper), spec, SEED), paper)


def corners_turned_by(spec: Affine, count: int = 500) -> NDArray[np.float64]:
    """Return the angle in degrees by which each of many drawn turns moved a dot right of the centre."""
    side = 41
    images = np.repeat(dot(20, 36, side), count, axis=0)
    result = a.affine(tf.constant(images), spec, SEED, fill=0).numpy()[..., 0]
    weight = result / result.sum(axis=(1, 2), keepdims=True)
    y = (weight.sum(axis=2) * np.arange(side)).sum(axis=1) - 20
    x = (weight.sum(axis=1) * np.arange(side)).sum(axis=1) - 20
    angles: NDArray[np.float64] = np.degrees(np.arctan2(y, x))
    return angles


def test_turns_fill_their_range_on_both_sides_and_stay_within() -> None:
    angles = corners_turned_by(Affine(rotation_deg=20))
    assert -20.3 <= angles.min() < -18
    assert 18 < angles.max() <= 20.3
    assert abs(angles.mean()) < 2


def test_half_of_the_images_are_not_turned_where_each_takes_part_with_one_half() -> None:
    angles = corners_turned_by(Affine(rotation_deg=20, each_with=0.5))
    assert 0.42 < np.mean(np.abs(angles) < 1e-6) < 0.58


def test_zoom_draws_a_factor_for_each_axis() -> None:
    side, count = 41, 200
    image = np.zeros((1, side, side, 1), np.float32)
    image[0, 10:31, 10:31] = 1
    images = np.repeat(image, count, axis=0)
    result = a.affine(tf.constant(images), Affine(zoom=0.2), SEED, fill=0).numpy()[..., 0]
    wide, high = result[:, 20, :].sum(axis=1), result[:, :, 20].sum(axis=1)
    for size in (wide, high):
        assert 21 / 1.2 - 1 < size.min() < 19
        assert 24 < size.max() < 21 / 0.8 + 1
    assert abs(np.corrcoef(wide, high)[0, 1]) < 0.2


def test_crop_enlarges_and_never_looks_beyond_the_image() -> None:
    images = np.full((200, 20, 20, 1), 200, np.float32)
    images[:, 8:12, 8:12] = 0
    result = a.crop(tf.constant(images), 0.5, SEED, fill=0).numpy()
    dark = (200 - result).sum(axis=(1, 2, 3)) / 200
    # 16 dark pixels of a window of 10 to 20 pixels become 16 to 64 of 20 x 20, or less where the window
    # leaves them out; the fill, black as well, would add whole rows.
    assert dark.max() <= 66
    assert dark.max() > 40


def test_elastic_moves_a_pixel_by_its_amplitude_at_most() -> None:
    side, amplitude = 40, 0.1
    ramp = np.broadcast_to(np.arange(side, dtype=np.float32)[None, None, :, None], (50, side, side, 1))
    result = a.elastic(tf.constant(ramp), Elastic(amplitude=amplitude, grid=4), SEED, fill=0).numpy()
    away = np.abs(result - ramp)[:, 6:-6, 6:-6]
    # Bicubic interpolation overshoots its grid a little.
    assert 0.6 * amplitude * side < away.max() < 1.3 * amplitude * side
    neighbours = np.abs(np.diff(result - ramp, axis=2))[:, 6:-6, 6:-6]
    # Smooth: two vectors of the grid, 10 pixels apart, differ by 8 at most, and a cubic rises half as steeply
    # again in its middle.
    assert neighbours.max() < 1.5 * 8 / 10


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = np.repeat(noise(count=1), 400, axis=0).astype(np.float32)
    result = a.flip(tf.constant(images), SEED).numpy()
    mirrored = (result == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (result == images).all(axis=(1, 2, 3))).all()
    assert 160 < mirrored.sum() < 240


def test_contrast_keeps_the_mean_and_brightness_moves_it_within_its_range() -> None:
    images = noise(count=300).astype(np.float32) / 4 + 96
    means = images.mean(axis=(1, 2, 3))
    contrasted = a.colour(tf.constant(images), Augmentation(contrast=0.3), SEED).numpy()
    np.testing.assert_allclose(contrasted.mean(axis=(1, 2, 3)), means, rtol=1e-4)
    factor = contrasted.std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert 0.7 <= factor.min() < 0.72
    assert 1.28 < factor.max() <= 1.3
    lit = a.colour(tf.constant(images), Augmentation(brightness=0.1), SEED).numpy()
    by = (lit - images).mean(axis=(1, 2, 3))
    assert -25.51 < by.min() < -24
    assert 24 < by.max() < 25.51


def test_saturation_only_takes_colour_away() -> None:
    images = noise(count=300).astype(np.float32)
    result = a.colour(tf.constant(images), Augmentation(saturation=1.0), SEED).numpy()
    np.testing.assert_allclose(result.mean(axis=3), images.mean(axis=3), rtol=1e-3)
    left = np.ptp(result, axis=3).mean(axis=(1, 2)) / np.ptp(images, axis=3).mean(axis=(1, 2))
    assert left.min() < 0.02
    assert 0.98 < left.max() <= 1.0001


def test_blur_of_a_dot_is_the_binomial_filter() -> None:
    result = a.blur(tf.constant(dot(4, 4)), 1.0, SEED).numpy()[0, 3:6, 3:6, 0]
    np.testing.assert_allclose(result, 200 / 16 * np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]))


def test_blur_takes_the_share_of_images_it_was_given() -> None:
    images = noise(count=400).astype(np.float32)
    result = a.blur(tf.constant(images), 0.25, SEED).numpy()
    assert 70 < (result != images).any(axis=(1, 2, 3)).sum() < 130


def test_brightened_values_are_clipped_not_wrapped_around() -> None:
    white = np.full((50, 4, 4, 1), 250, np.uint8)
    result = a.augment(tf.constant(white), Augmentation(brightness=0.5), SEED).numpy()
    assert result.max() == 255
    assert result.min() >= 250 - 128
