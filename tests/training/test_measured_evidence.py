"""All trials of all images: exact against a double loop, and written as the manifest wants it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.matching.distances import Metric, distance
from app.matching.evidence import Evidence, read_evidence, smallest_fmr, subjects_for
from app.matching.trials import TAIL_SHARE, all_trials
from tests.support.bundles import angle_evidence
from tests.support.images import angle_png
from training.measured_evidence import (
    MeasuredEvidence,
    default_point,
    evidence_results,
    evidence_summary,
    operating_points,
    subject_images,
    summary_of,
    tail_share_for,
    write_evidence,
)

Trials = list[tuple[float, int, int]]


def double_loop(
    embeddings: NDArray[np.float32], labels: NDArray[np.int32], metric: Metric
) -> tuple[list[tuple[float, int]], Trials]:
    """Return the mated trials (distance, subject) and the non-mated ones (distance, subjects), sorted."""
    mated, nonmated = [], []
    for row in range(len(labels)):
        for other in range(row + 1, len(labels)):
            measured = distance(embeddings[row], embeddings[other], metric)
            if labels[row] == labels[other]:
                mated.append((measured, int(labels[row])))
            else:
                nonmated.append((measured, int(labels[row]), int(labels[other])))
    return sorted(mated), sorted(nonmated)


def kept_trials(evidence: Evidence) -> Trials:
    subjects = evidence.nonmated_subjects.tolist()
    return [(d, i, j) for d, (i, j) in zip(evidence.nonmated_distance.tolist(), subjects, strict=True)]


def check_against_the_double_loop(
    embeddings: NDArray[np.float32], labels: NDArray[np.int32], metric: Metric, share: float
) -> None:
    mated, nonmated = double_loop(embeddings, labels, metric)
    evidence = all_trials(embeddings, labels, metric, tail_share=share)
    assert (
        sorted(zip(evidence.mated_distance.tolist(), evidence.mated_subject.tolist(), strict=True)) == mated
    )
    assert evidence.nonmated_total == len(nonmated)
    assert evidence.subjects == len(set(labels.tolist()))
    keep = max(1, int(len(nonmated) * share))
    found = kept_trials(evidence)
    assert [d for d, *_ in found] == [d for d, *_ in nonmated[:keep]]
    # Where distances tie at the end any of them may be kept, but only trials that were run, each once.
    left = list(nonmated)
    for trial in found:
        left.remove(trial)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "l1"])
def test_trials_are_those_of_a_double_loop(metric: Metric) -> None:
    rng = np.random.default_rng(6)
    labels = np.sort(rng.integers(0, 12, 150)).astype(np.int32)
    embeddings = rng.standard_normal((150, 8)).astype(np.float32)
    check_against_the_double_loop(embeddings, labels, metric, TAIL_SHARE)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_tail_is_exact_whatever_share_is_kept(share: float) -> None:
    rng = np.random.default_rng(7)
    labels = rng.permutation(np.repeat(np.arange(6, dtype=np.int32), 10))
    check_against_the_double_loop(rng.standard_normal((60, 4)).astype(np.float32), labels, "euclidean", share)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=8, max_size=40))
def test_ties_are_kept_as_trials_that_were_run(points: list[tuple[int, int]]) -> None:
    # Six places on a line, so that many distances are equal; the first four images are of all subjects.
    labels = np.array([0, 1, 2, 3] + [subject for subject, _ in points], np.int32)
    places = np.array([0, 1, 2, 3] + [place for _, place in points], np.float32)[:, None]
    check_against_the_double_loop(places, labels, "l1", TAIL_SHARE)


def test_every_pair_of_subjects_is_told_apart() -> None:
    embeddings = np.array([[0.0], [1.0], [10.0], [12.0]], np.float32)
    evidence = all_trials(embeddings, np.array([0, 0, 1, 2], np.int32), "l1")
    assert evidence.mated_distance.tolist() == [1.0]
    assert evidence.mated_subject.tolist() == [0]
    assert evidence.nonmated_total == 5
    assert evidence.subjects == 3
    assert kept_trials(evidence) == [(2.0, 1, 2)]  # 1.2 % of five is one: the closest


def photos(folder: Path, degrees: dict[str, list[float | None]]) -> Path:
    """Write ``<subject>/<number>.png``; None makes a file that is no image."""
    for subject, angles_of_subject in degrees.items():
        (folder / subject).mkdir(parents=True)
        for number, angle in enumerate(angles_of_subject):
            data = b"not an image" if angle is None else angle_png(angle)
            (folder / subject / f"{number}.png").write_bytes(data)
    return folder


def test_images_are_listed_by_subject_in_order(tmp_path: Path) -> None:
    folder = photos(tmp_path, {"bob": [0, 1], "ada": [2]})
    (folder / "ada" / "b.JPG").write_bytes(b"")
    (folder / "ada" / "notes.txt").write_bytes(b"")
    (folder / "loose.png").write_bytes(b"")
    assert [(subject, path.name) for subject, path in subject_images(folder)] == [
        ("ada", "0.png"),
        ("ada", "b.JPG"),
        ("bob", "0.png"),
        ("bob", "1.png"),
    ]


@pytest.mark.parametrize("people", [{}, {"ada": [0, 1]}])
def test_folder_with_fewer_than_two_subjects_is_refused(
    tmp_path: Path, people: dict[str, list[float | None]]
) -> None:
    with pytest.raises(ValueError, match="two subjects"):
        subject_images(photos(tmp_path, people))


def test_written_evidence_is_read_back_and_summed_up(tmp_path: Path) -> None:
    evidence = angle_evidence()
    write_evidence(tmp_path / "evidence.npz", MeasuredEvidence(evidence, "made up", 230, 30))
    found = read_evidence(tmp_path / "evidence.npz")
    assert np.array_equal(found.nonmated_distance, evidence.nonmated_distance)
    assert np.array_equal(found.nonmated_subjects, evidence.nonmated_subjects)
    assert np.array_equal(found.mated_distance, evidence.mated_distance)
    assert np.array_equal(found.mated_subject, evidence.mated_subject)
    assert (found.nonmated_total, found.subjects) == (4950, 100)
    summary = evidence_summary(tmp_path / "evidence.npz")
    assert (summary.file, summary.source) == ("evidence.npz", "made up")
    assert (summary.subjects, summary.images, summary.failures_to_acquire) == (100, 230, 30)
    assert (summary.mated, summary.nonmated) == (200, 4950)


def test_results_travel_in_the_same_file_and_leave_the_trials_readable(tmp_path: Path) -> None:
    results = {"operating_points": [{"name": "fmr-1e-2", "fmr": 0.01}], "failures_to_acquire": {}}
    measured = MeasuredEvidence(angle_evidence(), "made up", 230, 30, results)  # type: ignore[arg-type]
    write_evidence(tmp_path / "evidence.npz", measured)
    assert evidence_results(tmp_path / "evidence.npz") == results
    assert read_evidence(tmp_path / "evidence.npz").subjects == 100
    assert summary_of(measured) == evidence_summary(tmp_path / "evidence.npz")
    again = tmp_path / "again.npz"
    write_evidence(again, measured)
    assert again.read_bytes() == (tmp_path / "evidence.npz").read_bytes()


def test_evidence_written_without_results_has_none(tmp_path: Path) -> None:
    write_evidence(tmp_path / "evidence.npz", MeasuredEvidence(angle_evidence(), "made up", 230, 30))
    assert evidence_results(tmp_path / "evidence.npz") == {}


@pytest.mark.parametrize(("subjects", "name"), [(100, "fmr-1e-3"), (30, "fmr-1e-2"), (10, "fmr-1e-1")])
def test_default_point_is_1e_3_or_the_strictest_laxer_one(subjects: int, name: str) -> None:
    assert default_point(angle_evidence(subjects)).name == name


def test_points_are_those_the_evidence_supports_laxest_first() -> None:
    evidence = angle_evidence(100)  # 3 / 4,950 supports 1e-3, not 1e-4
    points = operating_points(evidence)
    assert [(point.name, point.max_fmr) for point in points] == [("fmr-1e-2", 1e-2), ("fmr-1e-3", 1e-3)]
    assert [point.threshold for point in points] == [evidence.threshold_for(rate) for rate in (1e-2, 1e-3)]
    assert all(point.fmr is not None and point.fmr <= (point.max_fmr or 0.0) for point in points)


def test_few_subjects_get_the_laxer_point_alone() -> None:
    evidence = angle_evidence(10)  # 3 / 45 supports 1e-1, not 1e-2
    assert [(point.name, point.max_fmr) for point in operating_points(evidence)] == [("fmr-1e-1", 1e-1)]


def test_points_of_too_few_subjects_are_refused() -> None:
    with pytest.raises(ValueError, match=r"supports no rate below 0\.107: measure more subjects"):
        operating_points(angle_evidence(8))


def test_tail_of_few_subjects_reaches_to_their_only_point() -> None:
    rng = np.random.default_rng(8)
    labels = np.repeat(np.arange(10, dtype=np.int32), 20)
    embeddings = rng.standard_normal((200, 4)).astype(np.float32)
    evidence = all_trials(embeddings, labels, "euclidean", tail_share=tail_share_for(10))
    (point,) = operating_points(evidence)
    whole = all_trials(embeddings, labels, "euclidean", tail_share=1.0)
    assert point.threshold == whole.threshold_for(1e-1)
    assert tail_share_for(25) == TAIL_SHARE


@pytest.mark.parametrize(("fmr", "subjects"), [(1e-1, 9), (1e-2, 25), (1e-3, 78), (1e-4, 246)])
def test_subjects_for_a_rate_are_the_fewest_whose_evidence_supports_it(fmr: float, subjects: int) -> None:
    assert subjects_for(fmr) == subjects
    assert smallest_fmr(subjects) <= fmr < smallest_fmr(subjects - 1)
