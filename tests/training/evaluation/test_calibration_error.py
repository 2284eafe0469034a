"""Calibration error: by hand, on probabilities that are right by construction, and on held-out people."""

from __future__ import annotations

import math

import numpy as np
import pytest

from app.matching.likelihood import LikelihoodRatio
from tests.support.vectors import people
from training.evaluation.calibration_error import (
    calibration_error,
    error_on,
    held_out_error,
    held_out_of_all_pairs,
)
from training.trial_sets import Photos, TrialSet


def test_two_trials_by_hand() -> None:
    # Ratios 3 and 1/3: 75 % stated for the mated trial, 25 % for the other.
    found = calibration_error(np.log([3.0, 1 / 3]), np.array([1.0, 0.0]), np.array([0.0, 1.0]), bins=2)
    assert found.brier == pytest.approx(0.0625)
    assert found.cllr == pytest.approx(math.log2(4 / 3))
    assert found.ece == pytest.approx(0.25)
    assert found.stated == pytest.approx([0.25, 0.75])
    assert found.observed == pytest.approx([0.0, 1.0])
    assert found.weight == pytest.approx([0.5, 0.5])


def test_mated_and_nonmated_trials_weigh_equally_however_many() -> None:
    few = calibration_error(np.log([3.0, 1 / 3]), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    many = calibration_error(np.log([3.0, 1 / 3]), np.array([1.0, 0.0]), np.array([0.0, 1e6]))
    assert (many.ece, many.brier, many.cllr) == pytest.approx((few.ece, few.brier, few.cllr))


def test_true_probabilities_have_no_error_and_twice_the_odds_do() -> None:
    rng = np.random.default_rng(3)
    # Distances of mated trials normal about 0, of others about 1: the ratio is exp(1/2 - d) exactly.
    mated, nonmated = rng.normal(0, 1, 200_000), rng.normal(1, 1, 200_000)
    logarithm = 0.5 - np.r_[mated, nonmated]
    ones = np.repeat([1.0, 0.0], 200_000)
    right = calibration_error(logarithm, ones, 1.0 - ones)
    assert right.ece < 0.004
    wrong = calibration_error(logarithm + math.log(2.0), ones, 1.0 - ones)
    assert wrong.ece > 0.1
    assert wrong.brier > right.brier
    assert wrong.cllr > right.cllr


def test_certainty_in_a_wrong_answer_costs_its_logarithm_without_overflow() -> None:
    found = calibration_error(np.array([800.0]), np.array([1.0]), np.array([1.0]))
    assert found.cllr == pytest.approx(400.0 / math.log(2.0))
    assert found.brier == pytest.approx(0.5)


@pytest.mark.parametrize(("mated", "nonmated"), [(1.0, 0.0), (0.0, 1.0)])
def test_one_kind_alone_is_refused(mated: float, nonmated: float) -> None:
    with pytest.raises(ValueError, match="mated and on non-mated"):
        calibration_error(np.zeros(1), np.array([mated]), np.array([nonmated]))


def test_held_out_people_of_one_population_are_calibrated() -> None:
    vectors, labels = people(80, 8, spread=0.9)
    found = held_out_of_all_pairs(vectors, labels, "euclidean")
    assert found is not None
    assert len(found.splits) == 6
    assert found.ece < 0.05
    assert found.cllr < 0.8  # far from knowing nothing
    assert found.as_json()["ece_range"] == [
        min(s.ece for s in found.splits),
        max(s.ece for s in found.splits),
    ]


def test_a_ratio_of_other_people_shows_as_an_error() -> None:
    vectors, labels = people(80, 8, spread=0.9)
    everybody = TrialSet(Photos(vectors, labels, tuple(map(str, range(80))), ()), "euclidean").evidence()
    own = everybody.likelihood_ratio
    assert own is not None
    shifted = LikelihoodRatio(own.distance + 0.2, own.logarithm)
    assert error_on(shifted, everybody).ece > error_on(own, everybody).ece + 0.05


def test_halves_share_no_subject_and_make_up_all() -> None:
    vectors, labels = people(20, 4)
    trials = TrialSet(Photos(vectors, labels, tuple(map(str, range(20))), ()), "euclidean")
    asked: list[list[int]] = []

    def among(units: np.ndarray) -> object:
        asked.append(units.tolist())
        return trials.among(units)

    assert held_out_error(among, 20, seeds=(5,)) is not None  # type: ignore[arg-type]
    first, second = asked
    assert sorted(first + second) == list(range(20))
    assert len(first) == 10


def test_few_subjects_are_not_split() -> None:
    vectors, labels = people(9, 4)
    assert held_out_of_all_pairs(vectors, labels, "euclidean") is None


def test_subjects_of_one_image_have_no_mated_trials_to_fit() -> None:
    vectors, labels = people(30, 1)
    assert held_out_of_all_pairs(vectors, labels, "euclidean") is None
