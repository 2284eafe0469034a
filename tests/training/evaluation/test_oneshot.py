"""One-shot trials: how they are drawn, what counts as an error, and rates known by hand."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.errors import InvalidRequestError
from app.matching.distances import Metric, distance
from training.evaluation.intervals import wilson_interval
from training.evaluation.oneshot import (
    OneShotTrials,
    draw_trials,
    is_error,
    one_shot,
    one_shot_curve,
    trial_distances,
)

ALPHABETS = ["Greek"] * 6 + ["Latin"] * 5 + ["Runes"] * 3
"""Of 14 characters, each drawn once by the four drawers of its alphabet."""
LABELS = np.repeat(np.arange(14), 4)
DRAWERS = np.tile(np.arange(4), 14)


def drawn(ways: int = 5, trials: int = 300, seed: int = 1, **options: object) -> OneShotTrials:
    return draw_trials(LABELS, ways=ways, trials=trials, seed=seed, **options)  # type: ignore[arg-type]


def circle(degrees: list[float]) -> NDArray[np.float64]:
    """Return unit vectors at those angles."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def trials_of(rows: list[list[int]], cluster: list[int] | None = None) -> OneShotTrials:
    """Return trials of rows [probe, right candidate, other candidates...]."""
    table = np.array(rows)
    clusters = np.arange(len(rows)) if cluster is None else np.array(cluster)
    return OneShotTrials(table[:, 0], table[:, 1:], clusters)


# Drawing


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_trial_has_the_probes_subject_in_column_0_and_nowhere_else(within: bool, known: bool) -> None:
    trials = drawn(groups=ALPHABETS, drawers=DRAWERS if known else None, within=within)
    asked, candidates = LABELS[trials.probe], LABELS[trials.candidates]
    assert (candidates[:, 0] == asked).all()
    assert (candidates[:, 1:] != asked[:, None]).all()
    assert all(len(set(row)) == 5 for row in candidates.tolist())


def test_probe_is_never_its_own_candidate() -> None:
    trials = drawn()
    assert (trials.candidates[:, 0] != trials.probe).all()


@pytest.mark.parametrize("within", [False, True])
def test_no_candidate_is_by_the_probes_drawer(within: bool) -> None:
    trials = drawn(groups=ALPHABETS, drawers=DRAWERS, within=within)
    group = np.unique(ALPHABETS, return_inverse=True)[1][LABELS]
    same_person = (group[trials.candidates] == group[trials.probe][:, None]) & (
        DRAWERS[trials.candidates] == DRAWERS[trials.probe][:, None]
    )
    assert not same_person.any()


def test_drawers_of_two_alphabets_are_two_people() -> None:
    # One character each, by drawers 0 and 1: were they the same two people, a candidate by another than
    # the probe's drawer would always be by the same one as the right candidate.
    trials = draw_trials(
        np.array([0, 0, 1, 1]), ways=2, trials=100, seed=0, groups=["A", "B"], drawers=[0, 1, 0, 1]
    )
    drawer = np.array([0, 1, 0, 1])[trials.candidates]
    assert 30 < np.count_nonzero(drawer[:, 0] != drawer[:, 1]) < 70


def test_one_drawer_drew_all_candidates_within_an_alphabet() -> None:
    trials = drawn(groups=ALPHABETS, drawers=DRAWERS, within=True)
    assert (DRAWERS[trials.candidates] == DRAWERS[trials.candidates[:, :1]]).all()


def test_trials_within_alphabets_are_spread_evenly_over_those_that_are_large_enough() -> None:
    trials = drawn(groups=ALPHABETS, within=True)
    groups = np.array(ALPHABETS)[LABELS[trials.candidates]]
    assert (groups == groups[:, :1]).all()
    assert dict(zip(*np.unique(groups[:, 0], return_counts=True), strict=True)) == {
        "Greek": 150,
        "Latin": 150,
    }


def test_trials_across_alphabets_ask_all_subjects_equally() -> None:
    asked = np.bincount(LABELS[drawn(trials=2800, groups=ALPHABETS).probe], minlength=14)
    assert asked.sum() == 2800
    # 200 each, give or take four standard deviations.
    assert (np.abs(asked - 200) < 4 * np.sqrt(200)).all()


def test_clusters_are_alphabets_where_there_are_some_and_subjects_otherwise() -> None:
    grouped = drawn(groups=ALPHABETS)
    assert (np.unique(ALPHABETS, return_inverse=True)[1][LABELS[grouped.probe]] == grouped.cluster).all()
    plain = drawn()
    assert (LABELS[plain.probe] == plain.cluster).all()


def test_same_seed_draws_the_same_trials_and_another_seed_others() -> None:
    first, again, other = drawn(seed=7), drawn(seed=7), drawn(seed=8)
    assert (first.probe == again.probe).all()
    assert (first.candidates == again.candidates).all()
    assert (first.candidates != other.candidates).any()


def test_subject_with_one_image_is_a_candidate_but_never_asked_about() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    trials = draw_trials(labels, ways=3, trials=50, seed=0)
    assert set(labels[trials.probe]) == {0, 1}
    assert (labels[trials.candidates] == 2).any(axis=1).all()


@pytest.mark.parametrize(
    ("ways", "within"), [(15, False), (7, True)], ids=["all 14 characters", "largest alphabet has 6"]
)
def test_more_ways_than_subjects_is_refused(ways: int, within: bool) -> None:
    with pytest.raises(InvalidRequestError, match=f"trials of {ways} ways need {ways} subjects"):
        drawn(ways=ways, groups=ALPHABETS, within=within)


def test_single_images_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="need 2 subjects"):
        draw_trials(np.arange(5), ways=2, trials=1, seed=0)


def test_candidates_by_the_probes_drawer_alone_are_refused() -> None:
    # Drawer 0 drew everything, drawer 1 only subject 0: a probe by 0 leaves no second candidate.
    with pytest.raises(InvalidRequestError, match="fewer than 2 subjects have an image by another drawer"):
        draw_trials(np.array([0, 0, 1]), ways=2, trials=50, seed=0, drawers=[0, 1, 0])


# Errors


def test_nearest_candidate_is_the_answer() -> None:
    points = circle([0, 10, 50, 5])
    trials = trials_of([[0, 1, 2], [0, 1, 3]])
    rate = one_shot(trials, trial_distances(trials, points, "euclidean"))
    assert (rate.error_rate, rate.errors, rate.trials, rate.ways) == (0.5, 1, 2, 2)


def test_tie_is_an_error_and_is_counted() -> None:
    distance = np.array([[0.3, 0.3, 0.9], [0.3, 0.2, 0.2], [0.3, 0.4, 0.4]])
    rate = one_shot(trials_of([[0, 1, 2, 3]] * 3), distance)
    assert (rate.errors, rate.ties) == (2, 1)


def test_encoder_that_maps_all_to_one_point_is_always_wrong() -> None:
    trials = drawn(ways=2)
    rate = one_shot(trials, trial_distances(trials, np.ones((56, 8)), "cosine"))
    assert (rate.error_rate, rate.ties) == (1.0, 300)


def test_probe_or_right_candidate_that_failed_is_an_error_another_candidate_is_not() -> None:
    points = circle([0, 10, 50, 0])
    trials = trials_of([[3, 1, 2], [0, 3, 2], [0, 1, 3]])
    distance = trial_distances(trials, points, "euclidean", np.array([True, True, True, False]))
    rate = one_shot(trials, distance)
    assert is_error(distance).tolist() == [True, True, False]
    assert (rate.errors, rate.failures, rate.ties) == (2, 2, 0)


def test_embedding_that_is_no_number_is_a_failure() -> None:
    points = circle([0, 10, 50])
    points[1] = np.nan
    trials = trials_of([[0, 1, 2]])
    assert one_shot(trials, trial_distances(trials, points, "euclidean")).failures == 1


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "l1"])
def test_distances_are_those_of_one_pair_at_a_time(metric: Metric) -> None:
    points = np.random.default_rng(3).normal(size=(56, 16)).astype(np.float32)
    trials = drawn(trials=20)
    measured = trial_distances(trials, points, metric)
    for row, probe in enumerate(trials.probe):
        for column, candidate in enumerate(trials.candidates[row]):
            assert measured[row, column] == distance(points[probe], points[candidate], metric)


def test_many_trials_are_measured_in_blocks_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(3).normal(size=(56, 16))
    trials = drawn(trials=23)
    whole = trial_distances(trials, points, "euclidean")
    monkeypatch.setattr("training.evaluation.oneshot._BLOCK_ELEMENTS", 3 * 5 * 16)
    assert (trial_distances(trials, points, "euclidean") == whole).all()


# Rates


def test_error_rate_of_noise_is_that_of_guessing() -> None:
    points = np.random.default_rng(5).normal(size=(56, 64))
    trials = drawn(trials=3000)
    rate = one_shot(trials, trial_distances(trials, points, "euclidean"))
    assert rate.chance_error_rate == 0.8
    assert rate.error_rate == pytest.approx(0.8, abs=0.06)


def test_curve_rises_with_the_ways_and_ends_with_all_candidates() -> None:
    points = np.random.default_rng(5).normal(size=(56, 2))
    trials = drawn()
    measured = trial_distances(trials, points, "euclidean")
    curve = one_shot_curve(trials, measured, range(2, 6))
    assert [rate.ways for rate in curve] == [2, 3, 4, 5]
    errors = [rate.errors for rate in curve]
    assert errors == sorted(errors)
    assert curve[-1] == one_shot(trials, measured)


def test_curves_two_ways_are_as_good_as_trials_of_two_ways() -> None:
    points = np.random.default_rng(6).normal(size=(56, 3)) + 0.6 * np.random.default_rng(7).normal(
        size=(14, 3)
    ).repeat(4, axis=0)
    rates = []
    for ways in (2, 10):
        trials = drawn(ways=ways, trials=4000)
        rates.append(one_shot(trials, trial_distances(trials, points, "euclidean"), 2).error_rate)
    assert rates[0] == pytest.approx(rates[1], abs=0.04)


def test_interval_by_trial_is_wilsons() -> None:
    rate = one_shot(trials_of([[0, 1, 2]] * 100), np.array([[0.5, 0.9]] * 96 + [[0.5, 0.1]] * 4))
    assert rate.trial_interval == wilson_interval(0.04, 100)


def test_interval_by_cluster_is_wider_where_clusters_differ() -> None:
    distance = np.array([[0.5, 0.9]] * 80 + [[0.5, 0.1]] * 20)
    rate = one_shot(trials_of([[0, 1, 2]] * 100, [k // 10 for k in range(100)]), distance)
    assert rate.interval.upper95 - rate.interval.lower95 > 2 * (
        rate.trial_interval.upper95 - rate.trial_interval.lower95
    )


def test_report_names_rates_intervals_and_counts() -> None:
    rate = one_shot(trials_of([[0, 1, 2]] * 4), np.array([[0.5, 0.9]] * 3 + [[0.5, 0.5]]))
    answer = rate.as_json()
    assert (answer["error_rate"], answer["trials"], answer["ways"], answer["ties"]) == (0.25, 4, 2, 1)
    assert answer["chance_error_rate"] == 0.5
    assert answer["error_rate_lower95"] < 0.25 < answer["error_rate_upper95"]


def test_example_of_the_documentation_runs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example is not None
    names = {
        "labels": np.repeat(np.arange(40), 4),
        "alphabets": ["Greek"] * 20 + ["Latin"] * 20,
        "drawers": np.tile(np.arange(4), 40),
        "embeddings": np.eye(40).repeat(4, axis=0),
    }
    exec(example[1], names)
    assert one_shot(names["trials"], names["distance"]).errors == 0  # type: ignore[arg-type]
