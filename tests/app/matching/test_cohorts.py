"""Error rates by cohort: by hand, recovered from known ones, and what must not be recoverable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from app.matching.bounds import wilson_interval
from app.matching.cohorts import (
    UNKNOWN,
    CohortReport,
    Share,
    TrialCounts,
    cohort_report,
    count_tail,
    count_trials,
    labelled,
)

THRESHOLD = 0.5


def counted(
    mated: Sequence[tuple[int, float]], nonmated: Sequence[tuple[int, int, float]], subjects: int
) -> TrialCounts:
    """Return counts of mated trials (subject, distance) and non-mated ones (two subjects, distance)."""
    return count_trials(
        mated_distance=np.array([distance for _, distance in mated]),
        mated_subject=np.array([subject for subject, _ in mated]),
        nonmated_distance=np.array([distance for *_, distance in nonmated]),
        nonmated_subjects=np.array([pair for *pair, _ in nonmated]),
        subjects=subjects,
        threshold=THRESHOLD,
    )


def synthetic(
    cohorts: Mapping[str, int], *, errors: Mapping[str, int] | None = None
) -> tuple[TrialCounts, list[str]]:
    """Return two mated trials a subject and one non-mated a pair; so many subjects of a cohort fail once."""
    names = [name for name, size in cohorts.items() for _ in range(size)]
    first, second = np.triu_indices(len(names), 1)
    wrong = np.zeros(len(names), np.int64)
    for name, count in (errors or {}).items():
        wrong[np.flatnonzero(np.array(names) == name)[:count]] = 1
    counts = TrialCounts(
        mated=np.full(len(names), 2),
        false_non_matches=wrong,
        pairs=np.stack([first, second], axis=1).astype(np.int64),
        nonmated=np.ones(first.size, np.int64),
        false_matches=np.zeros(first.size, np.int64),
    )
    return counts, names


def report(cohorts: Mapping[str, int], *, errors: Mapping[str, int] | None = None) -> CohortReport:
    counts, names = synthetic(cohorts, errors=errors)
    return cohort_report(counts, names, threshold=THRESHOLD, asked_fmr=0.01, minimum=30)


# Counting


def test_trials_are_counted_by_subject_and_by_pair() -> None:
    counts = counted(
        [(0, 0.5), (0, 0.6), (2, 0.1)], [(0, 1, 0.9), (1, 0, 0.5), (2, 1, 0.4), (0, 1, 0.2)], subjects=4
    )
    assert counts.mated.tolist() == [2, 0, 1, 0]
    # A distance equal to the threshold is a match.
    assert counts.false_non_matches.tolist() == [1, 0, 0, 0]
    assert counts.pairs.tolist() == [[0, 1], [1, 2]]
    assert counts.nonmated.tolist() == [3, 1]
    assert counts.false_matches.tolist() == [2, 1]
    assert counts.compared.tolist() == [True, True, True, False]


def test_counts_of_the_tail_are_those_of_all_trials() -> None:
    rng = np.random.default_rng(3)
    subject = rng.integers(0, 9, 40)
    first, second = np.triu_indices(40, 1)
    distance = rng.random(first.size)
    same = subject[first] == subject[second]
    pairs = np.stack([subject[first], subject[second]], axis=1)[~same]
    common = {"mated_distance": distance[same], "mated_subject": subject[first[same]], "threshold": 0.2}
    every = count_trials(**common, nonmated_distance=distance[~same], nonmated_subjects=pairs, subjects=9)
    near = distance[~same] < 0.25
    tail = count_tail(
        **common,
        closest_distance=distance[~same][near],
        closest_subjects=pairs[near],
        images=np.bincount(subject, minlength=9),
    )
    for name in ("mated", "false_non_matches", "pairs", "nonmated", "false_matches"):
        assert getattr(every, name).tolist() == getattr(tail, name).tolist(), name


# Rates by hand


def test_rates_are_those_of_the_cohorts_trials() -> None:
    nonmated = [(0, 1, 0.4), (0, 1, 0.9), (2, 3, 0.9), (0, 2, 0.1), (1, 3, 0.2), (1, 2, 0.9), (0, 3, 0.9)]
    counts = counted([(0, 0.1), (0, 0.9), (1, 0.1), (2, 0.1), (3, 0.2)], nonmated, subjects=4)
    names = ["a", "a", "b", None]
    got = cohort_report(counts, names, threshold=THRESHOLD, asked_fmr=0.99, minimum=1)
    a, b, unlabelled = got.cohorts
    assert [cohort.name for cohort in got.cohorts] == ["a", "b", UNKNOWN]
    assert (a.subjects, a.fnmr.trials) == (2, 3)
    assert a.fnmr.rate == pytest.approx(1 / 3)
    assert (a.fmr_within.trials, a.fmr_others.trials) == (2, 4)
    # Four pairs of subjects show a rate of 0.99, one does not.
    assert a.fmr_others.rate == 0.5
    assert a.fmr_within.rate is None
    assert a.fmr_within.reason == "1 pair of subjects compared; to show a rate of 0.99 takes 4"
    assert (b.fnmr.rate, b.fmr_within.reason) == (0.0, "no two such subjects were compared")
    assert (unlabelled.subjects, unlabelled.fnmr.trials) == (1, 1)


def test_subjects_without_trials_do_not_count() -> None:
    counts = counted([(0, 0.1), (1, 0.1)], [(0, 1, 0.9)], subjects=3)
    (only,) = cohort_report(counts, ["a", "a", "a"], threshold=0.5, asked_fmr=0.1, minimum=1).cohorts
    assert only.subjects == 2


def test_no_error_is_wilsons_interval_of_units_without_a_common_subject() -> None:
    (only,) = report({"a": 40}).cohorts
    assert (only.fnmr.lower95, only.fnmr.upper95) == wilson_interval(0.0, 40.0)
    assert (only.fmr_within.lower95, only.fmr_within.upper95) == wilson_interval(0.0, 20)
    first, _ = report({"a": 40, "b": 35}).cohorts
    assert (first.fmr_others.lower95, first.fmr_others.upper95) == wilson_interval(0.0, 35)


def test_interval_of_a_withheld_rate_stays() -> None:
    counts, names = synthetic({"a": 30})
    counts.false_matches[::11] = 1
    (only,) = cohort_report(counts, names, threshold=0.5, asked_fmr=1e-3).cohorts
    assert only.fmr_within.rate is None
    assert only.fmr_within.reason == "435 pairs of subjects compared; to show a rate of 0.001 takes 3000"
    # That 40 of 435 match, spread over all, is worse than one in a thousand all the same.
    assert only.fmr_within.lower95 is not None
    assert only.fmr_within.lower95 > 0.02


@pytest.mark.parametrize("asked", [0.0, -1.0, math.nan])
def test_asked_rate_must_be_above_zero(asked: float) -> None:
    counts, names = synthetic({"a": 3})
    with pytest.raises(ValueError, match="it must be above 0"):
        cohort_report(counts, names, threshold=0.5, asked_fmr=asked)


def test_names_are_as_many_as_subjects() -> None:
    with pytest.raises(ValueError, match="2 names of cohorts for 3 subjects"):
        cohort_report(synthetic({"a": 3})[0], ["a", "a"], threshold=0.5, asked_fmr=0.1)


def test_subjects_that_the_labels_do_not_name_are_unknown() -> None:
    assert labelled(["ada", "bob", "cy"], {"cy": "north", "zoe": "north"}) == (UNKNOWN, UNKNOWN, "north")


# Suppression


def shown(got: CohortReport) -> list[str]:
    return [cohort.name for cohort in got.cohorts]


def hidden(got: CohortReport) -> list[str]:
    return [cohort.name for cohort in got.suppressed]


def test_cohorts_of_enough_subjects_are_all_shown() -> None:
    got = report({"a": 30, "b": 31})
    assert (shown(got), hidden(got), got.together) == (["a", "b"], [], None)


def test_small_cohorts_are_shown_as_one() -> None:
    got = report({"a": 40, "b": 20, "c": 12, "d": 50}, errors={"b": 4})
    assert (shown(got), hidden(got)) == (["a", "d"], ["b", "c"])
    assert got.suppressed[0].reason == "20 subjects with mated trials; at least 30 are needed"
    assert got.together is not None
    assert (got.together.subjects, got.together.fnmr.trials, got.together.fnmr.rate) == (32, 64, 4 / 64)
    assert got.together.fmr_within.trials == 32 * 31 // 2


def test_one_small_cohort_takes_the_smallest_other_with_it() -> None:
    got = report({"a": 60, "b": 40, "small": 5})
    assert (shown(got), hidden(got)) == (["a"], ["b", "small"])
    assert got.suppressed[0].reason.startswith("held back, so that the small ones cannot be worked out")


def test_subjects_without_a_label_are_held_back_first() -> None:
    got = report({"a": 60, "b": 40, UNKNOWN: 100, "small": 5})
    assert (shown(got), hidden(got)) == (["a", "b"], ["small", UNKNOWN])


def test_few_people_in_several_small_cohorts_take_another_with_them() -> None:
    assert hidden(report({"a": 60, "b": 40, "c": 5, "d": 5})) == ["b", "c", "d"]


def test_two_cohorts_of_which_one_is_small_show_nothing_apart() -> None:
    got = report({"a": 300, "b": 5})
    assert shown(got) == []
    assert got.together is not None
    assert got.together.subjects == 305
    assert got.fnmr_ratio.reason == "0 cohorts have a rate that is shown; two are needed"


def test_all_too_small_are_not_even_shown_as_one() -> None:
    got = report({"a": 5, "b": 6})
    assert (shown(got), got.together) == ([], None)


def test_cohort_whose_subjects_have_few_mated_trials_is_suppressed() -> None:
    counts, names = synthetic({"a": 40, "b": 40, "c": 40})
    counts.mated[35:40] = 0
    counts.mated[80:111] = 0
    got = cohort_report(counts, names, threshold=0.5, asked_fmr=0.1, minimum=30)
    assert (shown(got), hidden(got)) == (["b"], ["a", "c"])
    assert got.suppressed[1].reason == "9 subjects with mated trials; at least 30 are needed"


@pytest.mark.parametrize(
    "sizes", [(60, 40, 5), (60, 40, 35, 5, 4), (90, 29), (31, 30, 29, 28, 1), (50, 1, 1)]
)
def test_what_is_shown_leaves_the_small_ones_undetermined(sizes: tuple[int, ...]) -> None:
    # Two data sets that differ only in which suppressed cohort has the errors give the same report.
    small = int(np.argmin(sizes))
    names = {f"c{index}": size for index, size in enumerate(sizes)}
    secret = f"c{small}"
    other = next(name for name in hidden(report(names)) if name != secret)
    assert report(names, errors={secret: 1}).as_json() == report(names, errors={other: 1}).as_json()


# Ratios


def test_ratio_is_of_the_largest_to_the_smallest_rate() -> None:
    ratio = report({"a": 40, "b": 40, "c": 40}, errors={"a": 2, "b": 8, "c": 4}).fnmr_ratio
    assert (ratio.largest, ratio.smallest, ratio.ratio, ratio.intervals_overlap) == ("b", "a", 4.0, True)


def test_ratio_beyond_chance_has_intervals_apart() -> None:
    assert report({"a": 90, "b": 90}, errors={"a": 2, "b": 60}).fnmr_ratio.intervals_overlap is False


def test_ratio_to_no_error_is_none() -> None:
    ratio = report({"a": 40, "b": 40}, errors={"a": 2}).fnmr_ratio
    assert ratio.ratio is None
    assert ratio.as_json() == {
        "supported": False,
        "reason": "no error was seen in b, so a ratio has no upper end",
    }


def test_subjects_without_a_label_are_no_cohort_to_compare() -> None:
    ratio = report({"a": 40, "b": 40, UNKNOWN: 40}, errors={"a": 2, "b": 4, UNKNOWN: 30}).fnmr_ratio
    assert (ratio.largest, ratio.ratio) == ("b", 2.0)


def test_withheld_rates_take_no_part_in_the_ratio() -> None:
    counts, names = synthetic({"a": 40, "b": 40, "c": 40})
    counts.false_matches[:] = 1
    got = cohort_report(counts, names, threshold=0.5, asked_fmr=3 / 779)
    assert got.fmr_ratio.ratio == 1.0
    assert cohort_report(counts, names, threshold=0.5, asked_fmr=3 / 781).fmr_ratio.ratio is None


# Simulation

SIZES: dict[str, int] = {"north": 40, "south": 60, "east": 30}
WITHIN = {"north": 0.02, "south": 0.04, "east": 0.08}
ACROSS = 0.01
MISSED = {"north": 0.03, "south": 0.06, "east": 0.15}
IMAGES = 3


class World:
    """Similarities with effects of subjects, pairs and images, whose error rates by cohort are known.

    A non-mated trial is a false match where a standard normal similarity is above what leaves the rate of its
    two cohorts; two fifths of its variance come from whom it is between, a fifth from their pair.
    """

    def __init__(self, seed: int) -> None:
        self.names = [name for name, size in SIZES.items() for _ in range(size)]
        rng = np.random.default_rng(seed)
        count, normal = len(self.names), NormalDist()
        first, second = np.triu_indices(count, 1)
        limits = {rate: normal.inv_cdf(1.0 - rate) for rate in (ACROSS, *WITHIN.values())}
        limit = np.array(
            [
                limits[WITHIN[a] if a == b else ACROSS]
                for a, b in zip(*self._sides(first, second), strict=True)
            ]
        )
        subject = rng.standard_normal(count) * math.sqrt(0.2)
        pair = rng.standard_normal(first.size) * math.sqrt(0.2)
        noise = rng.standard_normal((first.size, IMAGES**2)) * math.sqrt(0.4)
        alike = (subject[first] + subject[second] + pair)[:, None] + noise
        own = rng.standard_normal(count) * math.sqrt(0.4)
        unlike = own[:, None] + rng.standard_normal((count, IMAGES)) * math.sqrt(0.6)
        missed = np.array([normal.inv_cdf(1.0 - MISSED[name]) for name in self.names])
        self.counts = TrialCounts(
            mated=np.full(count, IMAGES),
            false_non_matches=(unlike > missed[:, None]).sum(axis=1),
            pairs=np.stack([first, second], axis=1).astype(np.int64),
            nonmated=np.full(first.size, IMAGES**2),
            false_matches=(alike > limit[:, None]).sum(axis=1),
        )

    def _sides(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> tuple[list[str], list[str]]:
        return [self.names[row] for row in first], [self.names[row] for row in second]


def test_known_rates_are_recovered_and_intervals_hold_them_about_as_often_as_they_say() -> None:
    rounds = 150
    seen: dict[tuple[str, str], list[Share]] = {}
    for seed in range(rounds):
        world = World(seed)
        got = cohort_report(world.counts, world.names, threshold=0.0, asked_fmr=ACROSS)
        for cohort in got.cohorts:
            for kind in ("fnmr", "fmr_within", "fmr_others"):
                seen.setdefault((cohort.name, kind), []).append(getattr(cohort, kind))
    truth = {
        **{(name, "fnmr"): rate for name, rate in MISSED.items()},
        **{(name, "fmr_within"): rate for name, rate in WITHIN.items()},
        **{(name, "fmr_others"): ACROSS for name in SIZES},
    }
    assert seen.keys() == truth.keys()
    held = {}
    for key, shares in seen.items():
        rates = np.array([share.rate for share in shares], np.float64)
        assert rates.mean() == pytest.approx(truth[key], rel=0.1), key
        ends = np.array([(share.lower95, share.upper95) for share in shares], np.float64)
        held[key] = float(((ends[:, 0] <= truth[key]) & (truth[key] <= ends[:, 1])).mean())
    assert min(held.values()) >= 0.9
    assert np.mean(list(held.values())) >= 0.94
