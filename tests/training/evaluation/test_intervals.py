"""Intervals by resampling subjects: weights by hand, known values of Wilson's, and coverage."""

import numpy as np
import pytest

from training.evaluation.intervals import (
    clustered_interval,
    disjoint_pairs,
    jackknife_interval,
    mated_weights,
    nonmated_weights,
    resample_subjects,
    resampled_interval,
    student_quantile,
    wilson_interval,
)


def test_each_resample_draws_as_many_subjects_as_there_are() -> None:
    counts = resample_subjects(np.random.default_rng(0), 5, 1000)
    assert counts.shape == (1000, 5)
    assert (counts.sum(axis=1) == 5).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(5), abs=0.1)


def test_mated_trial_counts_as_often_as_its_subject() -> None:
    counts = np.array([[2, 0, 1]])
    assert mated_weights(counts, np.array([0, 0, 1, 2])).tolist() == [[2, 2, 0, 1]]


def test_nonmated_trial_counts_as_often_as_the_product_of_its_subjects() -> None:
    counts = np.array([[2, 0, 1], [3, 2, 1]])
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    assert nonmated_weights(counts, pairs).tolist() == [[0, 2, 0], [6, 3, 2]]


def test_wilsons_interval_of_50_in_100_is_that_of_the_textbooks() -> None:
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=5e-5)


def test_wilsons_interval_of_0_in_100_ends_below_4_percent() -> None:
    lower, upper = wilson_interval(0.0, 100)
    assert lower == 0.0
    assert upper == pytest.approx(0.0370, abs=5e-5)


def test_interval_counts_trials_as_worth_what_the_variance_says() -> None:
    # A variance of 0.0025 = 0.5 * 0.5 / 100, as 100 independent trials would have.
    resampled = 0.5 + 0.05 * np.array([-1.0, 1.0]) / np.sqrt(2)
    assert resampled_interval(0.5, resampled, trials=10_000, independent=1) == pytest.approx(
        wilson_interval(0.5, 100)
    )


def test_trials_are_never_worth_more_than_their_number() -> None:
    resampled = np.array([0.5, 0.5 + 1e-9])
    assert resampled_interval(0.5, resampled, trials=100, independent=1) == wilson_interval(0.5, 100)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_without_any_error_only_independent_trials_count(rate: float) -> None:
    resampled = np.full(1000, rate)
    assert resampled_interval(rate, resampled, trials=10**6, independent=50) == wilson_interval(rate, 50)


def test_pairs_in_a_chain_are_half_disjoint() -> None:
    assert disjoint_pairs(np.array([[0, 1], [1, 2], [2, 3], [3, 4]])) == 2


def test_pairs_that_share_one_subject_count_once() -> None:
    assert disjoint_pairs(np.array([[0, other] for other in range(1, 50)])) == 1


def coverage_of_mated_rate(interval_by_subject: bool) -> float:
    """Return how often the interval holds the true rate 0.2, when half the subjects never fail and half
    fail in 40 % of their trials, 10 trials each.
    """
    rng = np.random.default_rng(4)
    subjects, each, runs, held = 60, 10, 400, 0
    subject = np.repeat(np.arange(subjects), each)
    for _ in range(runs):
        difficulty = np.where(rng.random(subjects) < 0.5, 0.0, 0.4)
        errors = rng.random(subject.size) < difficulty[subject]
        rate = float(errors.mean())
        if interval_by_subject:
            weights = mated_weights(resample_subjects(rng, subjects, 200), subject)
            resampled = (weights @ errors) / weights.sum(axis=1)
            lower, upper = resampled_interval(rate, resampled, trials=errors.size, independent=subjects)
        else:
            lower, upper = wilson_interval(rate, errors.size)
        held += lower <= 0.2 <= upper
    return held / runs


def test_interval_by_subject_holds_the_true_rate_in_95_of_100_runs() -> None:
    assert coverage_of_mated_rate(interval_by_subject=True) == pytest.approx(0.95, abs=0.025)


def test_interval_by_trial_would_be_too_narrow() -> None:
    assert coverage_of_mated_rate(interval_by_subject=False) < 0.85


def test_interval_of_all_pairs_holds_the_true_rate_in_95_of_100_runs() -> None:
    # Each subject has a trait of 0 to 1; two are confused when both are below 0.3: a rate of 0.09.
    rng = np.random.default_rng(5)
    subjects, runs, held = 80, 300, 0
    pairs = np.stack(np.triu_indices(subjects, 1), axis=1)
    for _ in range(runs):
        trait = rng.random(subjects) < 0.3
        errors = trait[pairs].all(axis=1)
        weights = nonmated_weights(resample_subjects(rng, subjects, 200), pairs)
        resampled = (weights @ errors) / weights.sum(axis=1)
        lower, upper = resampled_interval(
            float(errors.mean()), resampled, trials=len(pairs), independent=subjects // 2
        )
        held += lower <= 0.09 <= upper
    assert held / runs == pytest.approx(0.95, abs=0.035)


def test_clusters_that_err_alike_count_every_trial() -> None:
    # 25 clusters of 4 trials with one error each: no excess, so 100 trials but for Student's quantile.
    errors = np.tile([True, False, False, False], 25)
    lower, upper = clustered_interval(errors, np.repeat(np.arange(25), 4))
    assert (lower, upper) == pytest.approx(wilson_interval(0.25, 100 * (1.96 / 2.064) ** 2), abs=1e-3)


def test_clusters_that_err_wholly_or_never_count_once_each() -> None:
    # The variance among 40 clusters, 10 all wrong: 0.25 * 0.75 / 39, as 39 trials would have.
    errors = np.repeat(np.arange(40) < 10, 5)
    found = clustered_interval(errors, np.repeat(np.arange(40), 5))
    assert found == pytest.approx(wilson_interval(0.25, 39 * (1.96 / 2.023) ** 2), abs=1e-3)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_without_any_error_only_clusters_count(rate: float) -> None:
    found = clustered_interval(np.full(400, rate == 1.0), np.repeat(np.arange(20), 20))
    assert found == wilson_interval(rate, 20)


def test_numbers_of_clusters_may_have_gaps() -> None:
    errors = np.array([True, False, False, False, True, False])
    cluster = np.array([0, 0, 1, 1, 2, 2])
    assert clustered_interval(errors, cluster * 5 + 3) == clustered_interval(errors, cluster)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (7, 2.365), (19, 2.093), (100, 1.984)])
def test_students_quantile_is_that_of_the_tables(freedom: int, quantile: float) -> None:
    assert quantile - 1e-3 <= student_quantile(freedom) <= 1.01 * quantile


@pytest.mark.parametrize(("clusters", "each"), [(10, 40), (20, 20)])
def test_interval_by_cluster_holds_the_true_rate_in_95_of_100_runs(clusters: int, each: int) -> None:
    # Alphabets differ: the error rate of each is a draw from Beta(4, 16), with mean 0.2.
    rng = np.random.default_rng(6)
    cluster = np.repeat(np.arange(clusters), each)
    runs, held, held_by_trial = 1000, 0, 0
    for _ in range(runs):
        errors = rng.random(cluster.size) < rng.beta(4, 16, clusters)[cluster]
        lower, upper = clustered_interval(errors, cluster)
        held += lower <= 0.2 <= upper
        by_trial = wilson_interval(float(errors.mean()), errors.size)
        held_by_trial += by_trial[0] <= 0.2 <= by_trial[1]
    assert held / runs == pytest.approx(0.95, abs=0.025)
    assert held_by_trial / runs < 0.90


def test_jackknife_of_a_mean_of_independent_trials_is_wilsons() -> None:
    # One trial a subject, 30 errors in 100: without a subject 29 or 30 errors are left of 99.
    errors = np.arange(100) < 30
    found = jackknife_interval(
        errors=30,
        trials=100,
        errors_without=30 - errors.astype(np.int64),
        trials_without=np.full(100, 99),
        worth_at_most=100,
        independent=100,
    )
    assert found == pytest.approx(wilson_interval(0.3, 99 * (1.96 / 1.984) ** 2), abs=1e-3)


def test_jackknife_without_an_error_counts_independent_trials_only() -> None:
    found = jackknife_interval(
        errors=0,
        trials=1000,
        errors_without=np.zeros(50, np.int64),
        trials_without=np.full(50, 980),
        worth_at_most=1000,
        independent=50,
    )
    assert found == wilson_interval(0.0, 50)
