"""All pairs, against a plain loop over them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.matching import trials
from app.matching.distances import Metric, distance
from app.matching.trials import all_trials


def _sample(count: int, seed: int, subjects: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = np.sort(np.r_[np.arange(subjects), rng.integers(subjects, size=count - subjects)])
    return rows, labels.astype(np.int32)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "l1"])
@pytest.mark.parametrize("at_once", [40, 10**6])
def test_trials_are_those_of_a_plain_loop(
    metric: Metric, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_VALUES_AT_ONCE", at_once)
    rows, labels = _sample(40, 1, 9)
    evidence = all_trials(rows, labels, metric, tail_share=0.2)
    mated: list[float] = []
    nonmated: list[float] = []
    for i, j in itertools.combinations(range(40), 2):
        (mated if labels[i] == labels[j] else nonmated).append(distance(rows[i], rows[j], metric))
    keep = int(len(nonmated) * 0.2)
    assert evidence.mated_distance.tolist() == sorted(mated)
    assert evidence.nonmated_distance.tolist() == sorted(nonmated)[:keep]
    assert evidence.nonmated_total == len(nonmated)
    assert evidence.histogram is not None
    counted, _ = np.histogram(nonmated, evidence.histogram.edges)
    # Single precision may put a distance into the neighbouring cell.
    assert np.abs(np.cumsum(counted) - np.cumsum(evidence.histogram.counts)).max() <= 2
    assert evidence.histogram.counts.sum() == len(nonmated)


def test_two_equal_images_of_two_subjects_are_at_distance_zero() -> None:
    rows, labels = _sample(30, 2, 5)
    rows[labels == 4] = rows[0]
    evidence = all_trials(rows, labels, "euclidean", tail_share=0.05)
    assert evidence.nonmated_distance[0] == 0.0


def test_subjects_of_each_trial_stand_beside_it() -> None:
    rows, labels = _sample(12, 3, 4)
    evidence = all_trials(rows, labels, "euclidean", tail_share=1.0)
    for value, (a, b) in zip(evidence.nonmated_distance, evidence.nonmated_subjects, strict=True):
        between = [
            distance(rows[i], rows[j], "euclidean")
            for i in np.flatnonzero(labels == a)
            for j in np.flatnonzero(labels == b)
        ]
        assert value in between


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.integers(1, 2000), st.integers(0, 5))
def test_too_many_trials_leave_fewer_images_of_each_subject_but_every_subject(
    subjects: int, limit: int, seed: int
) -> None:
    _, labels = _sample(90, seed, subjects)
    taken = trials._thinned(labels, limit, seed)
    kept = np.bincount(labels[taken], minlength=subjects)
    most = kept.max()
    assert (kept == np.minimum(np.bincount(labels), most)).all()
    assert most == 1 or trials._between_subjects(kept) <= limit
    assert (np.diff(taken) > 0).all()


def test_mated_trials_keep_all_images_when_nonmated_ones_do_not() -> None:
    rows, labels = _sample(60, 4, 10)
    thinned = all_trials(rows, labels, "euclidean", tail_share=1.0, largest_total=45)
    assert thinned.nonmated_total == 45
    assert thinned.mated_total == all_trials(rows, labels, "euclidean").mated_total
    assert thinned.subjects == 10


def test_one_image_of_each_subject_stays_however_many_subjects_there_are() -> None:
    assert trials._thinned(np.arange(50, dtype=np.int32), 10, 0).tolist() == list(range(50))


def test_one_subject_alone_is_no_evidence() -> None:
    rows, _ = _sample(5, 5, 1)
    with pytest.raises(ValueError, match="two subjects"):
        all_trials(rows, np.zeros(5, np.int32), "euclidean")


def test_closed_set_counts_images_and_has_no_strangers() -> None:
    rows, labels = _sample(20, 6, 4)
    evidence = all_trials(rows, labels, "euclidean", closed=True, tail_share=1.0)
    assert evidence.subjects == 20
    assert evidence.open_set is None
