"""Labelled images: what fits together, and picking subjects."""

import numpy as np
import pytest

from training.data.labelled import LabelledImages


def four_images() -> LabelledImages:
    """Images of one pixel with values 10, 20, 30, 40, of subjects a, b, c, a."""
    return LabelledImages(
        np.array([10, 20, 30, 40], np.uint8).reshape(4, 1, 1, 1),
        np.array([0, 1, 2, 0], np.int32),
        ("a", "b", "c"),
        ("x", "x", "y"),
    )


def test_picked_subjects_are_renumbered_in_the_order_given() -> None:
    picked = four_images().of_subjects([2, 0])
    assert picked.subjects == ("c", "a")
    assert picked.groups == ("y", "x")
    assert picked.labels.tolist() == [1, 0, 1]
    assert picked.images.ravel().tolist() == [10, 30, 40]


def test_subjects_are_picked_by_name_too() -> None:
    assert four_images().named(["b"]).images.ravel().tolist() == [20]


def test_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError, match="d"):
        four_images().named(["d"])


def test_counts_are_images_of_each_subject() -> None:
    assert four_images().counts.tolist() == [2, 1, 1]


def test_subject_picked_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        four_images().of_subjects([1, 1])


@pytest.mark.parametrize(
    ("images", "labels", "subjects", "groups", "problem"),
    [
        (np.zeros((2, 1, 1, 1), np.float32), [0, 1], "ab", None, "images: uint8"),
        (np.zeros((2, 1, 1), np.uint8), [0, 1], "ab", None, "images: uint8"),
        (np.zeros((2, 1, 1, 1), np.uint8), [0, 1, 1], "ab", None, "labels: int32"),
        (np.zeros((2, 1, 1, 1), np.uint8), [0, 2], "abc", None, "each at least once"),
        (np.zeros((2, 1, 1, 1), np.uint8), [0, 1], "aa", None, "a name occurs twice"),
        (np.zeros((2, 1, 1, 1), np.uint8), [0, 1], "ab", "x", "groups: 1 names"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    images: np.ndarray, labels: list[int], subjects: str, groups: str | None, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        LabelledImages(images, np.array(labels, np.int32), tuple(subjects), tuple(groups) if groups else None)
