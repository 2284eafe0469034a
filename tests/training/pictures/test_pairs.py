"""Pairs of images: what is written above each, and that both images are shown as they are."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from training.pictures.pairs import pair_grid
from training.pictures.style import RIGHT, WRONG, png

IMAGES = [np.full((4, 6, 1), value, np.uint8) for value in (0, 60, 120, 250)]


def grid(distance, mated, **options):
    count = len(distance)
    return pair_grid(
        IMAGES[:count], IMAGES[:count][::-1], np.array(distance), np.array(mated), threshold=0.5, **options
    )


@pytest.mark.parametrize(
    ("distance", "mated", "words", "colour"),
    [
        (0.5, True, "distance 0.500 · match\n✓ right: same", RIGHT),
        (0.5, False, "distance 0.500 · match\n✗ wrong: different", WRONG),
        (0.501, True, "distance 0.501 · non-match\n✗ wrong: same", WRONG),
        (0.501, False, "distance 0.501 · non-match\n✓ right: different", RIGHT),
        (np.inf, True, "no distance · non-match\n✗ wrong: same", WRONG),
    ],
)
def test_a_pair_says_its_distance_decision_and_truth(distance, mated, words, colour) -> None:
    title = grid([distance], [mated]).axes[0].title
    assert title.get_text() == words
    assert title.get_color() == colour


def test_a_wrong_pair_is_told_without_colour() -> None:
    right, wrong = grid([0.1, 0.1], [True, False]).axes
    frames = [next(p for p in axes.patches if isinstance(p, Rectangle)) for axes in (right, wrong)]
    assert [frame.get_linestyle() for frame in frames] == ["-", "--"]


def test_both_images_are_shown_as_they_are() -> None:
    shown = grid([0.1, 0.2, 0.3, 0.4], [True] * 4).axes[1].images
    assert [np.asarray(image.get_array()).tolist() for image in shown] == [
        [[60] * 6] * 4,
        [[120] * 6] * 4,
    ]


def test_a_colour_image_and_a_grey_one_of_another_size_are_shown_equally_high() -> None:
    left, right = [np.zeros((8, 8, 3), np.uint8)], [np.zeros((20, 10), np.uint8)]
    images = pair_grid(left, right, np.array([0.1]), np.array([True]), threshold=0.5).axes[0].images
    extents = [image.get_extent() for image in images]
    assert [extent[1] - extent[0] for extent in extents] == pytest.approx([1.0, 0.5])
    assert [extent[3] - extent[2] for extent in extents] == [1.0, 1.0]


def test_cells_without_a_pair_are_empty() -> None:
    figure = grid([0.1, 0.2, 0.3], [True] * 3, columns=2)
    assert [len(axes.images) for axes in figure.axes] == [2, 2, 2, 0]


def test_no_pairs_give_a_picture() -> None:
    assert png(grid([], []))
