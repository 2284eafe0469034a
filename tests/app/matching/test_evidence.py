"""From an error rate to a threshold: exact, with ties, tails and refusals."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InsufficientEvidenceError
from app.matching.bounds import upper_bound
from app.matching.evidence import Evidence, read_evidence
from tests.support.bundles import angle_evidence


def evidence(
    nonmated: Sequence[float],
    *,
    mated: Sequence[float] = (),
    subjects: int = 5,
    total: int | None = None,
) -> Evidence:
    """Return trials whose subject pairs go round and round; all of them kept unless a total is given."""
    first, second = np.triu_indices(subjects, 1)
    pairs = np.stack([first, second], axis=1).astype(np.int32)
    return Evidence(
        mated_distance=np.array(mated, np.float64),
        mated_subject=np.zeros(len(mated), np.int32),
        nonmated_distance=np.array(nonmated, np.float64),
        nonmated_subjects=pairs[np.arange(len(nonmated)) % len(pairs)],
        nonmated_total=len(nonmated) if total is None else total,
        subjects=subjects,
    )


TEN = evidence([0.9, 0.1, 0.4, 0.4, 0.4, 0.7, 0.8, 0.2, 1.0, 1.1], mated=[0.4, 0.1, 0.5, 0.3])


def test_distance_equal_to_threshold_counts_as_a_match_on_both_sides() -> None:
    assert TEN.false_matches(0.4) == 5
    assert TEN.fmr(0.4) == 0.5
    assert TEN.fnmr(0.4) == 0.25


@pytest.mark.parametrize(
    ("threshold", "fmr", "fnmr"),
    [(-1.0, 0.0, 1.0), (0.1, 0.1, 0.75), (0.3, 0.2, 0.5), (0.5, 0.5, 0.0), (1.1, 1.0, 0.0), (9.0, 1.0, 0.0)],
)
def test_rates_by_hand(threshold: float, fmr: float, fnmr: float) -> None:
    assert TEN.fmr(threshold) == pytest.approx(fmr)
    assert TEN.fnmr(threshold) == pytest.approx(fnmr)


def test_without_mated_trials_there_is_no_false_non_match_rate() -> None:
    assert evidence([0.1, 0.2]).fnmr(0.1) is None


def test_bound_counts_each_false_match_with_both_its_people() -> None:
    # At 0.4 the pairs of trials 1, 2, 3, 4 and 7 match: (0, 2), (0, 3), (0, 4), (1, 2) and (2, 3).
    assert TEN.fmr_upper95(0.4) == upper_bound(np.array([3, 1, 3, 2, 1]), 10)


# Sorted: 0.1 0.2 0.4 0.4 0.4 0.7 0.8 0.9 1.0 1.1, and 5 subjects, so 3 of 10 pairs is the least.
@pytest.mark.parametrize(
    ("max_fmr", "below", "fmr"),
    [
        pytest.param(0.5, 0.7, 0.5, id="five allowed: just below the sixth"),
        pytest.param(0.599, 0.7, 0.5, id="5.99 allowed"),
        pytest.param(0.6, 0.8, 0.6, id="six allowed"),
        pytest.param(0.4, 0.4, 0.2, id="four allowed, but three tie: just below the tie"),
        pytest.param(0.3, 0.4, 0.2, id="the least"),
        pytest.param(0.999, 1.1, 0.9, id="nearly all"),
    ],
)
def test_threshold_is_just_below_the_first_distance_too_many(
    max_fmr: float, below: float, fmr: float
) -> None:
    assert TEN.threshold_for(max_fmr) == math.nextafter(below, -math.inf)
    assert TEN.fmr(TEN.threshold_for(max_fmr)) == fmr


@given(st.lists(st.integers(0, 12), min_size=10, max_size=60), st.floats(0.3, 0.999), st.integers(0, 59))
def test_threshold_is_the_highest_that_keeps_the_rate(
    distances: list[int], rate: float, matches: int
) -> None:
    trials = evidence(distances)
    for asked in (rate, max(0.3, min(matches, len(distances) - 1) / len(distances))):
        threshold = trials.threshold_for(asked)
        at = sum(distance <= threshold for distance in distances) / len(distances)
        higher = math.nextafter(threshold, math.inf)
        beyond = sum(distance <= higher for distance in distances) / len(distances)
        assert at <= asked < beyond


def test_rate_of_whole_trials_is_not_lost_to_rounding() -> None:
    # 100 * 0.29 is 28.999999999999996 in floating point, and 29 matches in 100 are within 0.29.
    hundred = evidence(range(100), subjects=10)
    assert hundred.fmr(hundred.threshold_for(0.29)) == 0.29


def test_rate_just_below_whole_trials_does_not_reach_them() -> None:
    # 10 * 0.8999999999999999 is rounded to 9, and 9 matches in 10 are more than that.
    assert TEN.fmr(TEN.threshold_for(math.nextafter(0.9, 0.0))) == 0.8


@pytest.mark.parametrize("subjects", [5, 25, 60, 101])
def test_smallest_rate_is_three_of_the_subject_pairs_and_is_itself_supported(subjects: int) -> None:
    pairs = subjects * (subjects - 1) // 2
    trials = evidence(range(pairs), subjects=subjects)
    assert trials.smallest_fmr == 3 / pairs
    assert trials.false_matches(trials.threshold_for(3 / pairs)) == 3


def test_more_trials_of_the_same_people_do_not_support_a_smaller_rate() -> None:
    assert evidence(range(1000), subjects=5).smallest_fmr == 0.3


def test_fewer_trials_than_pairs_support_one_match_at_least() -> None:
    assert evidence([1.0, 2.0], subjects=100).smallest_fmr == 0.5


def test_rate_below_the_smallest_is_refused_with_one_that_is_accepted() -> None:
    trials = evidence(range(66), subjects=12)  # 3 / 66 = 0.04545...
    with pytest.raises(InsufficientEvidenceError) as caught:
        trials.threshold_for(0.01)
    assert caught.value.details() == {"field": "max_fmr", "smallest_supported": 0.0455}
    named = re.search(r"the smallest supported is ([0-9.e-]+)$", str(caught.value))
    assert named is not None
    assert trials.fmr(trials.threshold_for(float(named[1]))) == 3 / 66


@pytest.mark.parametrize("subjects", [5, 12, 25, 100, 299, 600])
def test_rate_named_by_a_refusal_of_a_search_is_accepted(subjects: int) -> None:
    trials = evidence(range(subjects * (subjects - 1) // 2), subjects=subjects)
    sizes = [size for size in range(1, 6000, 7) if size * trials.smallest_fmr < 0.9]
    for size in [*sizes, 29, 58, 1797]:
        with pytest.raises(InsufficientEvidenceError) as caught:
            trials.point_for_fpir(1e-9, size)
        smallest = caught.value.smallest
        if smallest < 1.0:
            assert trials.point_for_fpir(smallest, size).max_fpir == smallest


def test_false_positive_rate_of_a_search_is_divided_by_the_gallery_size() -> None:
    hundred = evidence(range(4950), subjects=100)
    point = hundred.point_for_fpir(0.1, 50)
    assert point.threshold == hundred.threshold_for(0.002)
    assert (point.max_fpir, point.max_fmr, point.name) == (0.1, None, None)
    assert point.fmr == 9 / 4950


def test_threshold_tightens_as_the_gallery_grows() -> None:
    hundred = evidence(range(4950), subjects=100)
    thresholds = [hundred.point_for_fpir(0.2, size).threshold for size in (1, 2, 10, 100, 300)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert len(set(thresholds)) == 5


def test_empty_gallery_counts_as_one_reference() -> None:
    assert TEN.point_for_fpir(0.5, 0) == TEN.point_for_fpir(0.5, 1)


def test_search_beyond_the_evidence_names_the_gallery_and_the_subjects() -> None:
    with pytest.raises(InsufficientEvidenceError, match="with 100 enrolled it needs") as caught:
        TEN.point_for_fpir(0.1, 100)
    assert caught.value.details() == {"field": "max_fpir", "smallest_supported": 1.0}
    assert "trials of 5 subjects can show" in str(caught.value)


def test_point_for_a_rate_says_what_was_asked_and_what_was_measured() -> None:
    point = TEN.point_for_fmr(0.5, name="half")
    assert (point.name, point.max_fmr, point.max_fpir) == ("half", 0.5, None)
    assert (point.fmr, point.fnmr) == (0.5, 0.0)
    assert point.fmr_upper95 == TEN.fmr_upper95(point.threshold)


def test_points_are_remembered_by_rate_name_and_size() -> None:
    hundred = evidence(range(4950), subjects=100)
    rates = [0.1 + step / 10_000 for step in range(1500)]  # more than are remembered
    for _ in range(2):
        assert [hundred.point_for_fmr(rate).max_fmr for rate in rates] == rates
    assert hundred.point_for_fmr(0.1) is hundred.point_for_fmr(0.1)
    assert hundred.point_for_fmr(0.1, name="a").name == "a"
    assert hundred.point_for_fpir(0.1, 1).max_fmr is None


# The closest 4 of 1,000 trials are kept: rates are exact below the fourth distance and unknown from it on.
TAIL = evidence([0.1, 0.2, 0.3, 0.4], mated=[0.2, 0.9], subjects=100, total=1000)


@pytest.mark.parametrize(
    ("threshold", "fmr"), [(0.0, 0.0), (0.1, 0.001), (0.399, 0.003), (0.4, None), (0.5, None)]
)
def test_rate_beyond_the_kept_tail_is_unknown(threshold: float, fmr: float | None) -> None:
    assert TAIL.fmr(threshold) == fmr
    assert (TAIL.fmr_upper95(threshold) is None) == (fmr is None)
    assert TAIL.fnmr(threshold) == (1.0 if threshold < 0.2 else 0.5)
    assert TAIL.point_at(threshold).fmr == fmr


def test_lax_rate_is_met_at_the_end_of_the_tail() -> None:
    assert TAIL.largest_fmr == 0.004
    assert TAIL.threshold_for(0.5) == TAIL.threshold_for(0.004) == math.nextafter(0.4, 0.0)
    assert TAIL.point_for_fmr(0.5).fmr == 0.003


@given(st.lists(st.integers(0, 30), min_size=20, max_size=80), st.integers(1, 19), st.floats(-1, 31))
def test_tail_agrees_with_all_trials_or_knows_that_it_cannot_say(
    distances: list[int], kept: int, threshold: float
) -> None:
    whole = evidence(sorted(distances), subjects=9)
    tail = evidence(sorted(distances)[:kept], subjects=9, total=len(distances))
    found = tail.fmr(threshold)
    assert found == whole.fmr(threshold) or (found is None and threshold >= sorted(distances)[kept - 1])


def test_sorting_keeps_each_distance_with_its_subjects() -> None:
    trials = Evidence(
        mated_distance=np.array([3.0, 1.0]),
        mated_subject=np.array([2, 0], np.int32),
        nonmated_distance=np.array([0.9, 0.1, 0.5]),
        nonmated_subjects=np.array([[0, 1], [1, 2], [0, 2]], np.int32),
        nonmated_total=3,
        subjects=3,
    )
    assert trials.nonmated_distance.tolist() == [0.1, 0.5, 0.9]
    assert trials.nonmated_subjects.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert trials.mated_subject.tolist() == [0, 2]


def arrays_of(trials: Evidence) -> dict[str, Any]:
    return {
        "mated_distance": trials.mated_distance,
        "mated_subject": trials.mated_subject,
        "mated_total": trials.mated_total,
        "nonmated_distance": trials.nonmated_distance,
        "nonmated_subjects": trials.nonmated_subjects,
        "nonmated_total": trials.nonmated_total,
        "subjects": trials.subjects,
    }


def evidence_of(arrays: dict[str, Any]) -> Evidence:
    return Evidence(**{name: value for name, value in arrays.items() if name != "mated_total"})


def test_file_gives_back_the_trials(tmp_path: Path) -> None:
    trials = angle_evidence()
    np.savez(tmp_path / "evidence.npz", **arrays_of(trials))
    found = read_evidence(tmp_path / "evidence.npz")
    for name, expected in arrays_of(trials).items():
        assert np.array_equal(getattr(found, name), expected)


@pytest.mark.parametrize("name", list(arrays_of(TEN)))
def test_file_without_an_array_is_refused(tmp_path: Path, name: str) -> None:
    left = {key: value for key, value in arrays_of(TEN).items() if key != name}
    np.savez(tmp_path / "evidence.npz", **left)
    with pytest.raises(ValueError, match=f"lacks the array .*{name}"):
        read_evidence(tmp_path / "evidence.npz")


def test_file_whose_count_of_mated_trials_is_wrong_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evidence.npz", **{**arrays_of(TEN), "mated_total": 5})
    with pytest.raises(ValueError, match="mated_total differs"):
        read_evidence(tmp_path / "evidence.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subjects": 1}, "two subjects"),
        ({"nonmated_total": 9}, "covers the tail"),
        (
            {"nonmated_distance": np.empty(0), "nonmated_subjects": np.empty((0, 2))},
            "a non-mated trial",
        ),
        ({"nonmated_distance": np.zeros((10, 1))}, "one row"),
        ({"nonmated_subjects": np.zeros((9, 2), np.int32)}, r"\[K, 2\]"),
        ({"nonmated_subjects": np.zeros((10, 3), np.int32)}, r"\[K, 2\]"),
        ({"mated_subject": np.zeros(3, np.int32)}, r"\[M\]"),
        ({"nonmated_distance": np.full(10, np.nan)}, "finite"),
        ({"mated_distance": np.full(4, np.inf)}, "finite"),
        ({"nonmated_subjects": np.tile(np.array([[0, 5]], np.int32), (10, 1))}, r"within 0\.\.4"),
        ({"nonmated_subjects": np.tile(np.array([[-1, 2]], np.int32), (10, 1))}, r"within 0\.\.4"),
        ({"mated_subject": np.full(4, 7, np.int32)}, r"within 0\.\.4"),
        ({"nonmated_subjects": np.tile(np.array([[3, 3]], np.int32), (10, 1))}, "one subject twice"),
    ],
)
def test_trials_that_contradict_themselves_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evidence_of({**arrays_of(TEN), **change})
