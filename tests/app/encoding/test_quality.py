"""Measures of quality on inputs whose values are known by hand, and the floor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.encoding.alignment import TEMPLATE_112
from app.encoding.detection import Face
from app.encoding.quality import Quality, QualityFloor, measure_quality
from app.errors import QualityTooLowError

FRONTAL = np.array([[0.0, 0], [40, 0], [20, 19.798], [4, 40], [36, 40]])
"""Eyes 40 apart, mouth 40 below them, the nose 0.495 of the way as on the alignment template."""


def face(landmarks: NDArray[np.float64], box: tuple[float, float, float, float] = (0, 0, 50, 60)) -> Face:
    return Face(box, landmarks, 0.9)


def measured(landmarks: NDArray[np.float64]) -> Quality:
    return measure_quality(np.zeros((4, 4, 3), np.uint8), face(landmarks))


@pytest.mark.parametrize("grey", [0, 51, 128, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_flat_surface_has_no_sharpness_and_its_own_brightness(grey: int, channels: int) -> None:
    quality = measure_quality(np.full((16, 16, channels), grey, np.uint8), None)
    assert quality.sharpness == pytest.approx(0.0, abs=1e-3)
    assert quality.brightness == pytest.approx(grey / 255, abs=1e-4)
    assert quality.contrast == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("colour", "brightness"), [((255, 0, 0), 0.299), ((0, 255, 0), 0.587), ((0, 0, 255), 0.114)]
)
def test_brightness_weighs_colours_as_the_eye_does(colour: tuple[int, int, int], brightness: float) -> None:
    assert measure_quality(np.full((4, 4, 3), colour, np.uint8), None).brightness == brightness


def test_half_black_half_white_has_the_largest_contrast() -> None:
    halves = np.zeros((8, 8, 1), np.uint8)
    halves[:, 4:] = 255
    assert measure_quality(halves, None).contrast == 0.5


def test_sharpness_of_one_bright_pixel_is_that_of_its_laplacian() -> None:
    pixels = np.zeros((5, 5, 1), np.uint8)
    pixels[2, 2] = 255
    # The inner 3 x 3 is -4 in the middle, 1 beside it, 0 in the corners, times 255.
    assert measure_quality(pixels, None).sharpness == pytest.approx(255 * math.sqrt((16 + 4) / 9), abs=1e-3)


def test_blur_lowers_sharpness() -> None:
    rough = np.random.default_rng(3).integers(0, 256, (32, 32, 1)).astype(np.float64)
    blurred = (rough + np.roll(rough, 1, 0) + np.roll(rough, 1, 1) + np.roll(rough, 1, (0, 1))) / 4
    before, after = (measure_quality(x.astype(np.uint8), None).sharpness for x in (rough, blurred))
    assert after < before / 2


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (2, 2, 3), (2, 50, 3), (50, 1, 3)])
def test_input_too_small_for_a_laplacian_has_no_sharpness(shape: tuple[int, ...]) -> None:
    assert measure_quality(np.full(shape, 255, np.uint8), None) == Quality(0.0, 1.0, 0.0)


def test_whole_image_has_no_face_measures() -> None:
    quality = measure_quality(np.zeros((8, 8, 1), np.uint8), None)
    assert (quality.face_size, quality.eye_distance) == (None, None)
    assert (quality.yaw, quality.pitch, quality.roll) == (None, None, None)


def test_face_size_is_the_shorter_side_and_eyes_are_measured_in_pixels() -> None:
    quality = measure_quality(np.zeros((4, 4, 3), np.uint8), face(FRONTAL, (3, 4, 70, 50)))
    assert quality.face_size == 50
    assert quality.eye_distance == 40


@pytest.mark.parametrize("landmarks", [FRONTAL, TEMPLATE_112])
def test_frontal_face_has_no_angles(landmarks: NDArray[np.float64]) -> None:
    quality = measured(landmarks)
    assert quality.yaw == pytest.approx(0.0, abs=0.01)
    assert quality.pitch == pytest.approx(0.0, abs=0.001)
    assert quality.roll == pytest.approx(0.0, abs=0.35)


# The nose moves by half of half an eye distance (10 pixels), or by a quarter of the way down (10 pixels).
@pytest.mark.parametrize(
    ("nose", "yaw", "pitch"),
    [((10, 0), 0.5, 0), ((-10, 0), -0.5, 0), ((0, 10), 0, 0.25), ((0, -10), 0, -0.25), ((20, 0), 1, 0)],
)
def test_nose_to_the_right_is_positive_yaw_and_down_is_positive_pitch(
    nose: tuple[float, float], yaw: float, pitch: float
) -> None:
    moved = FRONTAL.copy()
    moved[2] += nose
    assert measured(moved).yaw == pytest.approx(yaw, abs=1e-3)
    assert measured(moved).pitch == pytest.approx(pitch, abs=1e-3)


@given(st.floats(-179, 179), st.floats(0.5, 20), st.floats(-500, 500))
def test_roll_is_the_clockwise_turn_and_changes_no_other_angle(
    degrees: float, scale: float, shift: float
) -> None:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    moved = FRONTAL + np.array([[0, 0], [0, 0], [7, 5], [0, 0], [0, 0]])
    quality = measured(moved @ np.array([[c, s], [-s, c]]) * scale + shift)
    assert quality.roll == pytest.approx(degrees, abs=0.01)
    assert quality.yaw == pytest.approx(measured(moved).yaw, abs=0.002)
    assert quality.pitch == pytest.approx(measured(moved).pitch, abs=0.002)


def test_mouth_on_the_line_of_the_eyes_has_no_pitch() -> None:
    flat = FRONTAL * [1.0, 0.0]
    assert measured(flat).pitch is None


def test_eyes_in_one_point_raise_nothing() -> None:
    together = FRONTAL.copy()
    together[1] = together[0]
    assert measured(together).eye_distance == 0


GOOD = Quality(
    sharpness=10, brightness=0.5, contrast=0.2, face_size=100, eye_distance=40, yaw=0.1, pitch=0, roll=0
)


@pytest.mark.parametrize(
    ("floor", "missed"),
    [
        (QualityFloor(), []),
        (QualityFloor(min_face_size=100, min_sharpness=10, min_brightness=0.5, max_brightness=0.5), []),
        (QualityFloor(max_yaw=0.1), []),
        (QualityFloor(min_face_size=100.1), ["face_size"]),
        (QualityFloor(min_sharpness=10.1), ["sharpness"]),
        (QualityFloor(min_brightness=0.51), ["brightness"]),
        (QualityFloor(max_brightness=0.49), ["brightness"]),
        (QualityFloor(max_yaw=0.05), ["yaw"]),
        (QualityFloor(min_face_size=200, min_sharpness=20, max_yaw=0.0), ["face_size", "sharpness", "yaw"]),
    ],
)
def test_floor_names_every_measure_that_misses_it(floor: QualityFloor, missed: list[str]) -> None:
    assert [shortfall["measure"] for shortfall in floor.shortfalls(GOOD)] == missed


def test_yaw_to_either_side_is_held_to_the_same_floor() -> None:
    to_the_left = Quality(10, 0.5, 0.2, 100, 40, -0.4, 0, 0)
    assert QualityFloor(max_yaw=0.3).shortfalls(to_the_left) == [
        {"measure": "yaw", "value": 0.4, "rule": "at most 0.3 is wanted"}
    ]


def test_measures_a_whole_image_lacks_are_not_held_against_it() -> None:
    strict = QualityFloor(min_face_size=1000, max_yaw=0.0)
    assert strict.shortfalls(Quality(sharpness=1, brightness=0.5, contrast=0.1)) == []


def test_shortfalls_make_a_sentence() -> None:
    error = QualityTooLowError(QualityFloor(min_face_size=150).shortfalls(GOOD), field="image")
    assert str(error).endswith("face_size is 100, at least 150 is wanted")
