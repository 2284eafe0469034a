"""Error rates of trials: numbers by hand, and against slow definitions written out."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.encoding.bulk import Embedded
from app.errors import InvalidRequestError
from training.evaluation.pairs import parse_pairs
from training.evaluation.verification import (
    Rates,
    Trials,
    Unsupported,
    best_threshold,
    cross_validated_accuracy,
    dealt_folds,
    evaluate,
    fold_accuracies,
    run_trials,
)


def trials_of(
    mated: list[float], nonmated: list[float], folds: list[int] | None = None, subjects: int = 40
) -> Trials:
    """Return trials with those distances, the mated ones first, each of a subject or two of its own."""
    count = len(mated) + len(nonmated)
    numbers = np.arange(count) % subjects
    second = np.where(np.arange(count) < len(mated), numbers, (numbers + 1) % subjects)
    return Trials(
        np.array([*mated, *nonmated]),
        np.arange(count) < len(mated),
        np.stack([numbers, second], axis=1),
        None if folds is None else np.array(folds),
    )


def random_trials(seed: int, count: int = 150) -> Trials:
    """Return overlapping trials with many equal distances."""
    rng = np.random.default_rng(seed)
    return trials_of(
        rng.normal(0.7, 0.25, count).round(2).tolist(), rng.normal(1.2, 0.25, count).round(2).tolist()
    )


def fmr(trials: Trials, threshold: float) -> float:
    return float(np.mean(trials.distance[~trials.mated] <= threshold))


def fnmr(trials: Trials, threshold: float) -> float:
    return float(np.mean(trials.distance[trials.mated] > threshold))


def thresholds_of(trials: Trials) -> list[float]:
    """Return a threshold for every decision that differs: below all distances, and each distance."""
    return [-1.0, *np.unique(trials.distance).tolist()]


# EER


def test_eer_of_separated_trials_is_0() -> None:
    assert evaluate(trials_of([0.1, 0.2], [0.8, 0.9]), 0.5).eer == 0.0


def test_eer_where_both_rates_meet_is_that_rate() -> None:
    # At 0.3: one of four mated is above, one of four non-mated is not.
    trials = trials_of([0.1, 0.1, 0.2, 0.8], [0.3, 0.7, 0.9, 0.9])
    assert evaluate(trials, 0.5).eer == 0.25


def test_eer_between_two_points_is_where_their_line_crosses() -> None:
    # Below 0.5: FMR 0, FNMR 1/2. From 0.5 on: FMR 1/2, FNMR 0.
    assert evaluate(trials_of([0.1, 0.5], [0.5, 0.9]), 0.5).eer == 0.25
    # Below 0.5: FMR 0, FNMR 1/2. From 0.5 on: FMR 1/4, FNMR 0.
    assert evaluate(trials_of([0.1, 0.5], [0.5, 0.9, 0.9, 0.9]), 0.5).eer == pytest.approx(1 / 6)


def test_eer_of_swapped_trials_is_1() -> None:
    assert evaluate(trials_of([0.8, 0.9], [0.1, 0.2]), 0.5).eer == 1.0


@pytest.mark.parametrize("seed", range(8))
def test_eer_equals_a_walk_along_the_curve(seed: int) -> None:
    trials = random_trials(seed)
    curve = [(fmr(trials, t), fnmr(trials, t)) for t in thresholds_of(trials)]
    for (x1, y1), (x2, y2) in pairwise(curve):
        if x1 < y1 and x2 >= y2:
            share = (y1 - x1) / ((y1 - x1) + (x2 - y2))
            assert evaluate(trials, 1.0).eer == pytest.approx(x1 + share * (x2 - x1))
            return
    pytest.fail("the curve crosses nowhere")


# FNMR at FMR


def test_fnmr_at_fmr_takes_the_highest_threshold_that_holds_the_rate() -> None:
    # 200 non-mated trials at 0.50, 0.51, ...: a rate of 0.01 allows two, so the third, 0.52, is refused.
    nonmated = [0.5 + 0.01 * k for k in range(200)]
    at = evaluate(trials_of([0.3, 0.515, 0.52, 0.9], nonmated), 1.0).fnmr_at_fmr["0.01"]
    assert isinstance(at, Rates)
    assert at.threshold == pytest.approx(0.52)
    assert at.threshold < 0.52
    assert (at.fmr, at.fnmr) == (0.01, 0.5)


def test_tied_nonmated_trials_are_all_refused_when_not_all_are_allowed() -> None:
    at = evaluate(trials_of([0.3, 0.5], [0.5] * 2 + [0.9] * 98), 1.0).fnmr_at_fmr["0.01"]
    assert isinstance(at, Rates)
    assert (at.fmr, at.fnmr) == (0.0, 0.5)


@pytest.mark.parametrize("seed", range(8))
def test_fnmr_at_fmr_equals_a_search_of_every_threshold(seed: int) -> None:
    trials = random_trials(seed)
    at = evaluate(trials, 1.0).fnmr_at_fmr["0.01"]
    assert isinstance(at, Rates)
    best = max(t for t in thresholds_of(trials) if fmr(trials, t) <= 0.01)
    assert at.fmr == fmr(trials, best) == fmr(trials, at.threshold)
    assert at.fnmr == fnmr(trials, best) == fnmr(trials, at.threshold)


def test_rate_that_the_trials_cannot_show_is_unsupported() -> None:
    report = evaluate(trials_of([0.1, 0.2], np.linspace(0.5, 1, 999).tolist()), 0.5)
    assert isinstance(report.fnmr_at_fmr["0.01"], Rates)
    assert report.fnmr_at_fmr["0.001"] == Unsupported(
        "999 non-mated trials were compared; to show a rate of 0.001 takes at least 1000"
    )
    assert report.as_json()["fnmr_at_fmr"]["0.0001"]["supported"] is False


def test_as_many_trials_as_the_rate_needs_support_it() -> None:
    report = evaluate(trials_of([0.1, 0.2], np.linspace(0.5, 1, 1000).tolist()), 0.5)
    assert isinstance(report.fnmr_at_fmr["0.001"], Rates)


# a given threshold


def test_distance_equal_to_the_threshold_is_a_match() -> None:
    at = evaluate(trials_of([0.2, 0.4, 0.4, 0.9], [0.4, 0.5]), 0.4).at_default
    assert (at.threshold, at.fmr, at.fnmr) == (0.4, 0.5, 0.25)


def test_rates_lie_within_their_intervals() -> None:
    report = evaluate(random_trials(1), 1.0)
    entry = report.fnmr_at_fmr["0.01"]
    assert isinstance(entry, Rates)
    for at in (report.at_default, entry):
        assert 0 <= at.fmr_lower95 <= at.fmr <= at.fmr_upper95 <= 1
        assert 0 <= at.fnmr_lower95 <= at.fnmr <= at.fnmr_upper95 <= 1
    assert report.eer_interval.lower95 < report.eer < report.eer_interval.upper95


def test_no_error_among_few_subjects_leaves_a_wide_interval() -> None:
    # 2,000 trials, but of 4 subjects: 4 independent mated trials and 2 independent non-mated ones.
    at = evaluate(trials_of([0.1] * 1000, [0.9] * 1000, subjects=4), 0.5).at_default
    assert (at.fmr, at.fnmr) == (0.0, 0.0)
    assert at.fnmr_upper95 > 0.4
    assert at.fmr_upper95 > 0.6


def test_interval_of_a_chosen_threshold_is_wider_than_of_a_given_one() -> None:
    trials = random_trials(2, count=400)
    chosen = evaluate(trials, 1.0).fnmr_at_fmr["0.01"]
    assert isinstance(chosen, Rates)
    given = evaluate(trials, chosen.threshold).at_default
    assert given.fnmr == chosen.fnmr
    assert chosen.fnmr_upper95 - chosen.fnmr_lower95 > 1.5 * (given.fnmr_upper95 - given.fnmr_lower95)


def test_same_trials_give_the_same_report() -> None:
    assert evaluate(random_trials(3), 1.0) == evaluate(random_trials(3), 1.0)


def test_6000_trials_of_4000_subjects_take_about_a_second() -> None:
    rng = np.random.default_rng(0)
    trials = trials_of(
        rng.normal(0.7, 0.2, 3000).tolist(), rng.normal(1.2, 0.2, 3000).tolist(), subjects=4000
    )
    started = time.perf_counter()
    evaluate(trials, 1.0)
    assert time.perf_counter() - started < 5.0  # 0.4 s on two cores that do nothing else


# accuracy


def test_best_threshold_lies_halfway_in_the_gap() -> None:
    assert best_threshold(np.array([0.25, 0.75, 0.9]), np.array([True, False, False])) == 0.5


def test_best_threshold_of_three_equal_gaps_is_in_the_middle_one() -> None:
    distance = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    mated = np.array([True, False, True, False, True, False])
    # Four right at 0.15, 0.35 and 0.55.
    assert best_threshold(distance, mated) == pytest.approx(0.35)


def test_best_threshold_may_refuse_or_accept_everything() -> None:
    assert best_threshold(np.array([0.3, 0.4]), np.array([False, False])) < 0.3
    assert best_threshold(np.array([0.3, 0.4]), np.array([True, True])) == 0.4


def test_accuracy_is_measured_on_each_fold_at_the_threshold_of_the_others() -> None:
    # Fold 0 alone would be parted at 0.5, fold 1 at 0.3; each is judged at the other's.
    trials = trials_of([0.4, 0.1], [0.6, 0.5], folds=[0, 1, 0, 1])
    accuracy = cross_validated_accuracy(trials)
    assert accuracy.mean == 0.5 * (0.5 + 0.5)
    assert (accuracy.std, accuracy.folds) == (0.0, 2)


def test_std_is_the_sample_standard_deviation_over_folds() -> None:
    # Each fold is parted right at 0.5, but for one mated trial at 0.9 in fold 0: accuracies 1/2 and 1.
    trials = trials_of([0.9, 0.1, 0.1], [0.9, 0.9, 0.9], folds=[0, 1, 2, 0, 1, 2])
    accuracy = cross_validated_accuracy(trials)
    assert accuracy.mean == pytest.approx(5 / 6)
    assert accuracy.std == pytest.approx(np.std([0.5, 1, 1], ddof=1))


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_equals_a_search_of_every_threshold(seed: int) -> None:
    trials = random_trials(seed, count=60)
    folds = dealt_folds(trials.mated, seed=seed)

    def right(inside: NDArray[np.bool_], threshold: float) -> float:
        return float(np.mean((trials.distance <= threshold)[inside] == trials.mated[inside]))

    expected = []
    for fold in range(10):
        others = folds != fold
        values = np.unique(trials.distance[others]).tolist()
        candidates = [values[0] - 1e-9, *((a + b) / 2 for a, b in pairwise(values)), values[-1]]
        scores = [right(others, t) for t in candidates]
        best = [t for t, score in zip(candidates, scores, strict=True) if score == max(scores)]
        expected.append(right(~others, best[(len(best) - 1) // 2]))
    assert cross_validated_accuracy(trials, seed=seed).mean == pytest.approx(np.mean(expected))


def test_dealt_folds_hold_both_kinds_evenly() -> None:
    mated = np.arange(60) < 20
    folds = dealt_folds(mated, seed=1)
    assert np.bincount(folds[mated]).tolist() == [2] * 10
    assert np.bincount(folds[~mated]).tolist() == [4] * 10
    assert folds.tolist() != dealt_folds(mated, seed=2).tolist()


def test_dealt_folds_are_fewer_than_ten_when_a_kind_has_fewer() -> None:
    assert set(dealt_folds(np.arange(20) < 3, seed=1).tolist()) == {0, 1, 2}


# failures to acquire


def test_failed_trials_are_wrong_when_mated_and_right_when_not_in_the_accuracy() -> None:
    inf = float("inf")
    whole = trials_of([0.1, 0.1], [0.9, 0.9], folds=[0, 1, 0, 1])
    assert cross_validated_accuracy(whole).mean == 1.0
    mated_failed = trials_of([inf, 0.1], [0.9, 0.9], folds=[0, 1, 0, 1])
    assert cross_validated_accuracy(mated_failed).mean == 0.75
    nonmated_failed = trials_of([0.1, 0.1], [inf, 0.9], folds=[0, 1, 0, 1])
    assert cross_validated_accuracy(nonmated_failed).mean == 1.0


def test_failed_trials_are_counted_and_left_out_of_every_rate() -> None:
    inf = float("inf")
    with_failures = evaluate(trials_of([0.1, 0.6, inf, inf], [0.4, 0.9, inf]), 0.5)
    without = evaluate(trials_of([0.1, 0.6], [0.4, 0.9]), 0.5)
    assert with_failures.trials == (4, 3)
    assert with_failures.failed_trials == (2, 1)
    assert (with_failures.at_default.fmr, with_failures.at_default.fnmr) == (0.5, 0.5)
    assert with_failures.eer == without.eer


def test_trials_of_which_all_of_a_kind_failed_are_refused() -> None:
    inf = float("inf")
    with pytest.raises(InvalidRequestError, match="2 mated and 2 non-mated trials 0 and 2 could be compared"):
        evaluate(trials_of([inf, inf], [0.4, 0.9]), 0.5)


def test_fewer_than_two_trials_of_a_kind_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="2 mated and 1 non-mated trials; at least two of each"):
        evaluate(trials_of([0.1, 0.2], [0.9]), 0.5)


def test_two_trials_of_each_kind_are_enough_to_report() -> None:
    report = evaluate(trials_of([0.1, 0.2], [0.8, 0.9], subjects=2), 0.5)
    assert report.accuracy.folds == 2


def test_json_has_the_keys_that_others_rely_on() -> None:
    answer = evaluate(random_trials(0), 1.0).as_json()
    assert set(answer["accuracy"]) == {"mean", "std", "folds"}
    assert answer["trials"] == {"mated": 150, "nonmated": 150}
    assert set(answer["fnmr_at_fmr"]) == {"0.01", "0.001", "0.0001"}
    assert answer["fnmr_at_fmr"]["0.01"]["supported"] is True
    assert {"threshold", "fmr", "fnmr", "fnmr_lower95", "fnmr_upper95"} <= set(answer["fnmr_at_fmr"]["0.01"])
    assert isinstance(answer["eer"], float)


# from embeddings to trials


def embedded_at(degrees: list[float | None]) -> Embedded:
    """Return unit vectors at those angles; None is an image that failed."""
    radians = np.deg2rad([angle or 0.0 for angle in degrees])
    ok = np.array([angle is not None for angle in degrees])
    vectors = np.stack([np.cos(radians), np.sin(radians)], axis=1) * ok[:, None]
    return Embedded(
        tuple(Path(f"{i}.png") for i in range(len(degrees))),
        vectors.astype(np.float32),
        ok,
        tuple("" if fine else "no_face: none" for fine in ok),
    )


def test_trials_are_the_distances_of_their_pairs_in_the_order_of_the_list() -> None:
    listed = parse_pairs("2 1\nCy 1 2\nAda 1 Bob 1\nBob 1 2\nBob 2 Cy 1\n", "pairs.txt")
    assert listed.photos() == [("Ada", 1), ("Bob", 1), ("Bob", 2), ("Cy", 1), ("Cy", 2)]
    trials = run_trials(listed, embedded_at([0, 90, 90, 30, 90]), "euclidean")
    assert trials.distance == pytest.approx([1.0, np.sqrt(2), 0.0, 1.0], abs=1e-6)
    assert trials.mated.tolist() == [True, False, True, False]
    assert trials.subjects.tolist() == [[2, 2], [0, 1], [1, 1], [1, 2]]
    assert trials.folds is not None
    assert trials.folds.tolist() == [0, 0, 1, 1]


def test_trial_with_an_image_that_failed_is_infinitely_far() -> None:
    listed = parse_pairs("Ada 1 2\nAda 1 Bob 1\nAda 2 Bob 1\n", "pairs.txt")
    trials = run_trials(listed, embedded_at([0, None, 90]), "cosine")
    assert trials.distance == pytest.approx([np.inf, 1.0, np.inf])
    assert trials.compared.tolist() == [False, True, False]


def test_accuracy_is_the_mean_of_the_folds_each_at_the_threshold_of_the_others() -> None:
    # Fold 0 would be right at 0.5, fold 1 at 0.25; each is judged by the other's.
    trials = trials_of([0.1, 0.3, 0.1, 0.2], [0.7, 0.8, 0.3, 0.4], [0, 0, 1, 1, 0, 0, 1, 1])
    folds = fold_accuracies(trials)
    assert [fold.threshold for fold in folds] == pytest.approx([0.25, 0.5])
    assert [fold.accuracy for fold in folds] == [0.75, 0.5]
    assert cross_validated_accuracy(trials).mean == 0.625


def test_rates_at_other_thresholds_are_those_at_the_default_one() -> None:
    trials = random_trials(5)
    report = evaluate(trials, 0.9, points={"same": 0.9, "strict": 0.5}, resamples=50)
    assert report.at_points["same"] == report.at_default
    assert report.at_points["strict"].fmr == fmr(trials, 0.5)
    assert report.at_points["strict"].fnmr == fnmr(trials, 0.5)
    assert list(report.as_json()["at_operating_points"]) == ["same", "strict"]
