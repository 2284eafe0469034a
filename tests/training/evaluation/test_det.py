"""The curve of error rates over the threshold: points by hand, thinning, the area under it."""

import numpy as np
import pytest

from app.errors import InvalidRequestError
from training.evaluation.det import error_curve
from training.evaluation.verification import Trials, evaluate


def trials_of(mated: list[float], nonmated: list[float]) -> Trials:
    count = len(mated) + len(nonmated)
    second = np.where(np.arange(count) < len(mated), 0, 1)
    return Trials(
        np.array([*mated, *nonmated]), second == 0, np.stack([np.zeros(count, np.intp), second], axis=1)
    )


def random_trials(count: int = 3000) -> Trials:
    rng = np.random.default_rng(1)
    return trials_of(rng.normal(0.6, 0.2, count).tolist(), rng.normal(1.2, 0.2, count).tolist())


def test_curve_has_a_point_for_each_distance_and_one_before_all() -> None:
    curve = error_curve(trials_of([0.1, 0.3, 0.3], [0.3, 0.9]))
    assert curve.thresholds.tolist() == [-np.inf, 0.1, 0.3, 0.9]
    assert curve.fmr.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert curve.fnmr.tolist() == pytest.approx([1.0, 2 / 3, 0.0, 0.0])


def test_curve_goes_through_the_rates_of_the_report() -> None:
    trials = random_trials(300)
    report = evaluate(trials, 0.9, resamples=2)
    curve = error_curve(trials)
    at = int(np.searchsorted(curve.thresholds, 0.9, side="right")) - 1
    assert (curve.fmr[at], curve.fnmr[at]) == (report.at_default.fmr, report.at_default.fnmr)


def test_trials_that_were_not_compared_are_left_out() -> None:
    curve = error_curve(trials_of([0.1, np.inf], [0.9, np.inf]))
    assert (curve.fmr.tolist(), curve.fnmr.tolist()) == ([0.0, 0.0, 1.0], [1.0, 0.0, 0.0])


def test_curve_without_nonmated_trials_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="2 mated and 0 non-mated trials were compared"):
        error_curve(trials_of([0.1, 0.2], [np.inf]))


def test_area_is_the_share_of_pairs_of_trials_in_the_right_order() -> None:
    rng = np.random.default_rng(2)
    mated, nonmated = rng.integers(0, 9, 40) / 10, rng.integers(3, 12, 30) / 10
    nearer = np.mean(mated[:, None] < nonmated) + np.mean(mated[:, None] == nonmated) / 2
    assert error_curve(trials_of(mated.tolist(), nonmated.tolist())).area_under_roc == pytest.approx(nearer)


def test_thinned_curve_keeps_points_of_the_whole_one_down_to_its_smallest_rates() -> None:
    curve = error_curve(random_trials())
    thin = curve.thinned(200)
    assert 100 < thin.thresholds.size <= 202
    rows = np.searchsorted(curve.thresholds, thin.thresholds)
    assert (curve.fmr[rows] == thin.fmr).all()
    assert (curve.fnmr[rows] == thin.fnmr).all()
    assert (thin.fmr[-1], thin.fnmr[0]) == (1.0, 1.0)
    # One false match and one false non-match in 3000.
    assert thin.fmr[thin.fmr > 0].min() == thin.fnmr[thin.fnmr > 0].min() == 1 / 3000


def test_small_curve_is_not_thinned() -> None:
    curve = error_curve(trials_of([0.1], [0.9]))
    assert curve.thinned(10) is curve


def test_json_has_finite_numbers_only() -> None:
    answer = error_curve(trials_of([0.1], [0.9])).as_json()
    assert answer == {"thresholds": [0.1, 0.9], "fmr": [0.0, 1.0], "fnmr": [0.0, 0.0]}
