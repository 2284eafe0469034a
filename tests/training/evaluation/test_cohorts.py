"""Cohorts of a set of trials: what failed is left out, and which rate the threshold stands for."""

import numpy as np
import pytest

from training.evaluation.cohorts import measured_by_cohort
from training.evaluation.verification import Rates, Trials


def rates(fmr: float, upper: float) -> Rates:
    return Rates(0.5, fmr, 0.0, upper, 0.0, 0.0, 0.0)


def some_trials() -> Trials:
    """Return a mated trial each of 40 subjects and one of each pair; the first subject's image failed."""
    first, second = np.triu_indices(40)
    mated = first == second
    distance = np.where(mated, 0.2, 0.9)
    distance[first == 0] = np.inf
    distance[(first == 1) & mated] = 0.7
    return Trials(distance, mated, np.stack([first, second], axis=1))


def test_trials_that_were_not_compared_do_not_count() -> None:
    got = measured_by_cohort(some_trials(), ["a"] * 40, rates(0.0, 0.1), asked_fmr=0.01)
    (only,) = got.cohorts
    assert (only.subjects, only.fnmr.trials) == (39, 39)
    assert only.fnmr.rate == pytest.approx(1 / 39)
    assert only.fmr_within.trials == 39 * 38 // 2
    assert (got.threshold, got.asked_fmr) == (0.5, 0.01)


@pytest.mark.parametrize(("fmr", "expected"), [(0.02, 0.02), (0.0, 0.1)])
def test_threshold_that_promises_nothing_stands_for_what_all_trials_show(fmr: float, expected: float) -> None:
    assert measured_by_cohort(some_trials(), ["a"] * 40, rates(fmr, 0.1)).asked_fmr == expected
