"""The similarity transform and the crop it cuts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from app.encoding.alignment import TEMPLATE_112, align_face, can_align, similarity_transform

COORDINATE = st.floats(-1000, 1000)
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=2, max_size=8).map(np.array)


def turned(degrees: float, scale: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    """Return the 2 x 3 matrix of a clockwise turn (y is down), then a scale, then a shift."""
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def applied(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


@given(POINTS, st.floats(-180, 180), st.floats(0.01, 100), st.tuples(COORDINATE, COORDINATE))
def test_turn_scale_and_shift_are_recovered(
    points: NDArray[np.float64], degrees: float, scale: float, shift: tuple[float, float]
) -> None:
    assume(np.ptp(points, axis=0).max() > 1.0)
    matrix = turned(degrees, scale, shift)
    found = similarity_transform(points, applied(matrix, points))
    assert found == pytest.approx(matrix, rel=1e-6, abs=1e-6 * (scale + 1) * 1000)


@given(POINTS, st.data())
def test_transform_is_the_least_squares_solution(points: NDArray[np.float64], data: st.DataObject) -> None:
    assume(np.ptp(points, axis=0).max() > 1.0)
    target = np.array(
        data.draw(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=len(points), max_size=len(points)))
    )
    # Unknowns a, b, tx, ty of x' = ax - by + tx and y' = bx + ay + ty, solved without the closed form.
    x, y, one, none = points[:, 0], points[:, 1], np.ones(len(points)), np.zeros(len(points))
    rows = np.concatenate([np.stack([x, -y, one, none], axis=1), np.stack([y, x, none, one], axis=1)])
    a, b, tx, ty = np.linalg.lstsq(rows, np.concatenate([target[:, 0], target[:, 1]]), rcond=None)[0]
    assert similarity_transform(points, target) == pytest.approx(
        np.array([[a, -b, tx], [b, a, ty]]), abs=1e-5
    )


def test_mirrored_face_is_not_mirrored_back() -> None:
    mirrored = TEMPLATE_112 * [-1.0, 1.0]
    matrix = similarity_transform(mirrored, TEMPLATE_112)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_points_in_one_place_have_no_transform() -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(np.ones((5, 2)), TEMPLATE_112)
    assert not can_align(np.ones((5, 2)))


def test_ordinary_and_turned_faces_can_be_aligned() -> None:
    for degrees in (0, 45, 90, 180, 270):
        assert can_align(applied(turned(degrees, 30.0, (500.0, 800.0)), TEMPLATE_112))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8))


def test_face_already_in_place_is_cut_without_change() -> None:
    image = noise(112, 112)
    assert np.array_equal(align_face(image, TEMPLATE_112, (112, 112)), np.asarray(image))


def test_shift_by_whole_pixels_shifts() -> None:
    image = noise(200, 180)
    crop = align_face(image, TEMPLATE_112 + np.array([31.0, 17.0]), (112, 112))
    expected = np.asarray(image)[17 : 17 + 112, 31 : 31 + 112]
    # Pillow cuts fractions off instead of rounding, and the last bit of the shift makes 195 into 194.99.
    assert np.isin(expected.astype(int) - crop, (0, 1)).all()


def test_turn_by_a_quarter_is_exact() -> None:
    # A quarter turn about the middle of a 112 x 112 image, whose pixel centres run from 0 to 111.
    image = noise(112, 112)
    middle = np.array([55.5, 55.5])
    clockwise = (TEMPLATE_112 - middle) @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + middle
    crop = align_face(image.transpose(Image.Transpose.ROTATE_270), clockwise, (112, 112))
    assert np.array_equal(crop, np.asarray(image))


def test_face_twice_as_large_is_averaged_by_twos() -> None:
    # A pixel centre c of the crop is at 2c + 0.5 of the image: between the two pixels it covers.
    image = noise(224, 224)
    crop = align_face(image, TEMPLATE_112 * 2.0 + 0.5, (112, 112))
    assert np.array_equal(crop, np.asarray(image.reduce(2)))


def spots(points: NDArray[np.float64], size: tuple[int, int], radius: float) -> Image.Image:
    """Return black with a soft white spot at each point; pixel (0, 0) has its centre at (0, 0)."""
    y, x = np.mgrid[: size[1], : size[0]]
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2)) for px, py in points)
    return Image.fromarray(np.rint(255 * np.clip(light, 0, 1)).astype(np.uint8)).convert("RGB")


def centre_near(crop: NDArray[np.uint8], point: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Return the centre of light within ``reach`` pixels of a point."""
    column, row = np.rint(point).astype(int)
    window = crop[row - reach : row + reach + 1, column - reach : column + reach + 1, 0].astype(float)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.array([column + (x * window).sum() / window.sum(), row + (y * window).sum() / window.sum()])


@pytest.mark.parametrize("size", [112, 160])
@pytest.mark.parametrize("degrees", [0, 30, -75, 180])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.9, 2.1, 3.5, 6.0])
def test_landmarks_land_on_the_template(size: int, degrees: float, scale: float) -> None:
    template = TEMPLATE_112 * size / 112
    middle = template.mean(axis=0)
    matrix = turned(degrees, scale * 112 / size, (0.0, 0.0))
    matrix[:, 2] = 300.3 - matrix[:, :2] @ middle
    landmarks = applied(matrix, template)
    crop = align_face(spots(landmarks, (600, 600), 2.5 * scale), landmarks, (size, size))
    for point in template:
        assert np.abs(centre_near(crop, point, 7) - point).max() < 0.2


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_crop_is_black_outside_the_image(scale: float) -> None:
    # The face's middle is on the left border: the left half of the crop lies outside.
    side = int(112 * scale)
    landmarks = (TEMPLATE_112 - [55.5, 0.0]) * scale
    crop = align_face(Image.new("RGB", (side, side), (255, 255, 255)), landmarks, (112, 112))
    assert not crop[8:100, :54].any()
    assert (crop[8:100, 58:104] == 255).all()


def test_face_wholly_outside_the_image_gives_black() -> None:
    white = Image.new("RGB", (50, 50), (255, 255, 255))
    for shift in (-1000.0, 1000.0):
        assert not align_face(white, TEMPLATE_112 + shift, (112, 112)).any()
        assert not align_face(white, TEMPLATE_112 * 5 + 10 * shift, (112, 112)).any()


@pytest.mark.parametrize("factor", [3, 4, 5.5, 8])
def test_fine_checks_of_a_large_face_become_grey(factor: float) -> None:
    side = math.ceil(112 * factor)
    checks = (np.indices((side, side)).sum(axis=0) % 2 * 255).astype(np.uint8)
    crop = align_face(Image.fromarray(checks).convert("RGB"), TEMPLATE_112 * factor, (112, 112))
    assert np.abs(crop[2:-2, 2:-2].astype(int) - 127).max() <= 15


def test_crop_hardly_changes_where_averaging_sets_in() -> None:
    y, x = np.mgrid[:300, :300]
    smooth = Image.fromarray(np.rint(127 + 60 * np.sin(x / 25) + 60 * np.cos(y / 31)).astype(np.uint8))
    below, above = (
        align_face(smooth.convert("RGB"), TEMPLATE_112 * factor, (112, 112)).astype(int)
        for factor in (1.999, 2.001)
    )
    assert np.abs(below - above)[:110, :110].max() <= 3


def test_landmarks_in_one_place_cannot_be_aligned() -> None:
    with pytest.raises(ValueError, match="coincide"):
        align_face(noise(20, 20), np.full((5, 2), 3.0), (112, 112))


def test_landmarks_that_fit_no_turn_cannot_be_aligned() -> None:
    # Eyes swapped, mouth not, in the ratio of the template's widths: the best scale is nothing.
    crossed = np.array([[29.1806, 0.0], [-29.1806, 0], [0, 0], [-35.2372, 0], [35.2372, 0]])
    with pytest.raises(ValueError, match="do not lie like a face's"):
        align_face(noise(20, 20), crossed, (112, 112))
