"""FPIR by size of the gallery, against galleries drawn one by one and against the plain formula."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from app.matching.open_set import OpenSetCurve, open_set_curve


def _all_pairs(
    position: NDArray[np.float64], subject: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    pairs = np.array(
        [(i, j) for i, j in itertools.combinations(range(subject.size), 2) if subject[i] != subject[j]]
    )
    distance = np.abs(position[pairs[:, 0]] - position[pairs[:, 1]])
    order = np.argsort(distance, kind="stable")
    return distance[order], pairs[order]


def _drawn(
    position: NDArray[np.float64], subject: NDArray[np.int64], threshold: float, size: int, draws: int
) -> float:
    """Return the share of probes with a false candidate, over galleries drawn at random."""
    rng = np.random.default_rng(7)
    subjects = int(subject.max()) + 1
    hits = 0
    for _ in range(draws):
        probe = int(rng.integers(subject.size))
        others = rng.permutation([s for s in range(subjects) if s != subject[probe]])[:size]
        gallery = [rng.choice(np.flatnonzero(subject == other)) for other in others]
        hits += bool((np.abs(position[gallery] - position[probe]) <= threshold).any())
    return hits / draws


def _crowd(subjects: int = 40, images: int = 3) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    # People on a line; a third of them stand close together and resemble one another.
    rng = np.random.default_rng(3)
    centre = rng.uniform(0, 100, subjects)
    centre[: subjects // 3] = rng.uniform(40, 45, subjects // 3)
    subject = np.repeat(np.arange(subjects), images)
    return centre[subject] + rng.normal(0, 0.3, subject.size), subject


@pytest.mark.parametrize("size", [1, 5, 15, 30])
def test_rate_is_that_of_galleries_drawn_at_random(size: int) -> None:
    position, subject = _crowd()
    curve = open_set_curve(*_all_pairs(position, subject), subject)
    assert curve is not None
    threshold = float(curve.thresholds[30])
    predicted = curve.at(threshold, size)
    assert predicted is not None
    drawn = _drawn(position, subject, threshold, size, 4000)
    # Four standard errors of the draws, and what drawing without replacement changes among forty.
    assert predicted[0] == pytest.approx(drawn, abs=4 * np.sqrt(drawn * (1 - drawn) / 4000) + 0.02 * drawn)


def test_lookalikes_make_the_rate_smaller_than_independent_comparisons_would() -> None:
    position, subject = _crowd()
    curve = open_set_curve(*_all_pairs(position, subject), subject)
    assert curve is not None
    threshold = float(curve.thresholds[30])
    alone = curve.at(threshold, 1)
    many = curve.at(threshold, 30)
    assert alone is not None
    assert many is not None
    assert many[0] < 0.85 * (1 - (1 - alone[0]) ** 30)


def test_one_pair_within_reach_of_forty_people() -> None:
    # Two images of two people: each is found when the other is among the 10 of 39, by a quarter of a chance.
    subject = np.arange(40)
    curve = open_set_curve(np.array([0.1]), np.array([[3, 8]]), subject)
    assert curve is not None
    column = curve.at(0.1, 10)
    assert column is not None
    assert column[0] == pytest.approx(2 / 40 * 10 / 39, rel=0.02)


def test_rate_rises_with_size_and_threshold_and_stays_below_its_bound() -> None:
    position, subject = _crowd()
    curve = open_set_curve(*_all_pairs(position, subject), subject)
    assert curve is not None
    assert (np.diff(curve.fpir, axis=0) >= -1e-12).all()
    assert (np.diff(curve.fpir, axis=1) >= -1e-12).all()
    assert (curve.fpir <= curve.fpir_upper95 + 1e-12).all()
    assert curve.sizes[-1] == 39


def test_larger_galleries_than_measured_are_several_measured_ones() -> None:
    curve = OpenSetCurve(
        np.array([1, 10]), np.array([0.5]), np.array([[0.01], [0.1]]), np.array([[0.02], [0.2]])
    )
    found = curve.at(0.4, 30)
    assert found is not None
    assert found[0] == pytest.approx(1 - 0.9**3)
    assert found[1] == pytest.approx(1 - 0.8**3)


def test_threshold_holds_the_rate_asked_for() -> None:
    curve = OpenSetCurve(
        np.array([1, 4]),
        np.array([0.2, 0.4, 0.6]),
        np.array([[0.0, 0.1, 0.2], [0.1, 0.3, 0.5]]),
        np.array([[0.1, 0.2, 0.3], [0.2, 0.4, 0.6]]),
    )
    assert curve.threshold_for(0.2, 4) == pytest.approx(0.3)
    assert curve.threshold_for(0.05, 4) is None
    assert curve.threshold_for(0.5, 4) == 0.6
    assert curve.threshold_for(0.3, 4) == pytest.approx(0.4)
    at = curve.at(0.7, 4)
    assert at is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sizes": np.array([2, 3])}, "rise from 1"),
        ({"thresholds": np.array([0.4, 0.2])}, "thresholds must rise"),
        ({"fpir": np.zeros((1, 2))}, "sizes by thresholds"),
        ({"fpir_upper95": np.full((2, 2), 1.5)}, "not within 0..1"),
    ],
)
def test_contradictions_are_refused(changed: dict[str, NDArray[np.float64]], message: str) -> None:
    whole = {
        "sizes": np.array([1, 2]),
        "thresholds": np.array([0.2, 0.4]),
        "fpir": np.zeros((2, 2)),
        "fpir_upper95": np.ones((2, 2)),
    }
    with pytest.raises(ValueError, match=message):
        OpenSetCurve(**{**whole, **changed})


def test_two_subjects_have_no_curve() -> None:
    assert open_set_curve(np.array([0.1]), np.array([[0, 1]]), np.array([0, 1])) is None
