"""Accuracy and EER of pairs that share texts or images, by hand and by brute force."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.clustered_pairs import eer_difference, evaluate_pairs

SAME = np.array([True, True, True, True, False, False, False, False])
APART = np.array([0.1, 0.2, 0.3, 0.7, 0.4, 0.6, 0.8, 0.9])
ALONE = np.arange(8)


def drawn(pairs: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    same = rng.permutation(pairs) < pairs // 2
    return rng.normal(np.where(same, 0.0, 1.0), 0.8), same


def test_distance_equal_to_the_threshold_is_taken_for_mated() -> None:
    assert evaluate_pairs(APART, SAME, ALONE, 0.3).accuracy == 7 / 8
    assert evaluate_pairs(APART, SAME, ALONE, 0.4).accuracy == 6 / 8


def test_eer_is_where_as_many_mated_pairs_lie_above_as_non_mated_ones_below() -> None:
    report = evaluate_pairs(APART, SAME, ALONE, 0.5)
    assert report.eer == pytest.approx(0.25)  # 0.7 is missed, 0.4 is accepted
    assert (report.mated, report.nonmated, report.clusters) == (4, 4, 8)


def test_equal_distances_are_one_point_of_the_curve() -> None:
    report = evaluate_pairs(
        np.array([0.5, 0.5, 0.5, 0.5]), np.array([True, False, True, False]), ALONE[:4], 1
    )
    assert report.eer == pytest.approx(0.5)


def test_intervals_hold_the_rates() -> None:
    apart, same = drawn(400, 1)
    report = evaluate_pairs(apart, same, np.arange(400), 0.5)
    assert report.eer_lower95 < report.eer < report.eer_upper95
    assert report.accuracy_lower95 < report.accuracy < report.accuracy_upper95


def test_pairs_that_come_four_at_a_time_are_worth_fewer() -> None:
    apart, same = drawn(200, 2)
    single = evaluate_pairs(apart, same, np.arange(200), 0.5)
    fourfold = evaluate_pairs(np.tile(apart, 4), np.tile(same, 4), np.tile(np.arange(200), 4), 0.5)
    apparent = evaluate_pairs(np.tile(apart, 4), np.tile(same, 4), np.arange(800), 0.5)
    width = {
        name: report.eer_upper95 - report.eer_lower95
        for name, report in (("single", single), ("fourfold", fourfold), ("apparent", apparent))
    }
    assert width["fourfold"] == pytest.approx(width["single"], rel=0.1)
    assert width["apparent"] < 0.6 * width["single"]


def test_interval_agrees_with_resampling_one_pair_at_a_time() -> None:
    apart, same = drawn(120, 3)
    report = evaluate_pairs(apart, same, np.arange(120), 0.5)
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(600):
        rows = rng.integers(120, size=120)
        cuts = np.sort(apart[rows])
        fmr = np.array([(apart[rows][~same[rows]] <= cut).mean() for cut in cuts])
        fnmr = np.array([(apart[rows][same[rows]] > cut).mean() for cut in cuts])
        rates.append(np.min(np.maximum(fmr, fnmr)))
    width = report.eer_upper95 - report.eer_lower95
    assert width == pytest.approx(2 * 1.96 * np.std(rates), rel=0.2)


def test_pairs_of_one_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        evaluate_pairs(APART, np.ones(8, np.bool_), ALONE, 0.5)


def test_rank_keeping_change_of_distances_leaves_no_difference() -> None:
    apart, same = drawn(200, 4)
    difference, within = eer_difference(np.exp(apart), apart, same, np.arange(200))
    assert difference == 0.0
    assert within == (0.0, 0.0)


def test_better_distances_have_a_difference_below_zero() -> None:
    apart, same = drawn(300, 5)
    better = np.where(same, apart - 1.0, apart)
    difference, within = eer_difference(better, apart, same, np.arange(300))
    assert difference < -0.1
    assert within.lower95 < difference < within.upper95 < 0.0
