"""The blockwise comparison finds what a full float64 comparison finds, unbroken or resumed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from app.matching.distances import Metric, distances
from app.matching.pair_scan import ROWS, PairScan, StaleStateError

SIZE = 2 * ROWS + 77


def sample(metric: Metric) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float64]]:
    """Return points of 12 dimensions, of several lengths, with labels that repeat, and thresholds."""
    draw = np.random.default_rng(3)
    points = draw.standard_normal((SIZE, 12)).astype(np.float32)
    points[100] = points[900]
    labels = np.concatenate([np.arange(SIZE - 300), draw.integers(0, SIZE - 300, 300)]).astype(np.int32)
    low = {"euclidean": 1.7, "cosine": 0.2, "l1": 4.6}[metric]
    return points, labels, np.array([low, 1.3 * low, 1.6 * low])


def scan_of(metric: Metric, **changes: object) -> PairScan:
    points, labels, thresholds = sample(metric)
    options = {"thresholds": thresholds, "load_threshold": thresholds[1], "keep": thresholds[1], **changes}
    return PairScan(points, labels, metric, **options)


def finished(scan: PairScan) -> PairScan:
    while not scan.done:
        scan.step()
    return scan


def pairs(scan: PairScan) -> list[tuple[float, int, int]]:
    rows = zip(scan.distance.tolist(), scan.first.tolist(), scan.second.tolist(), strict=True)
    return sorted(rows)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "l1"])
def test_scan_agrees_with_every_pair_measured_in_float64(metric: Metric) -> None:
    points, labels, thresholds = sample(metric)
    scan = finished(scan_of(metric))
    seen, kept, load = np.zeros(3, np.int64), [], np.zeros(labels.max() + 1)
    counts = np.bincount(labels)
    for row in range(SIZE - 1):
        others = np.arange(row + 1, SIZE)
        others = others[labels[others] != labels[row]]
        apart = distances(points[row], points[others], metric)
        seen += (apart[:, None] <= thresholds).sum(axis=0)
        near = others[apart <= thresholds[1]]
        kept += [(d, row, int(o)) for d, o in zip(apart[apart <= thresholds[1]].tolist(), near, strict=True)]
        for other in labels[near]:
            load[[labels[row], other]] += 1.0 / (counts[labels[row]] * counts[other])
    assert scan.seen.tolist() == seen.tolist()
    assert seen[0] > 50
    assert pairs(scan) == sorted(kept)
    assert scan.load == pytest.approx(load)


def test_resumed_scan_equals_the_unbroken_one_to_the_last_bit() -> None:
    whole = finished(scan_of("euclidean"))
    broken = scan_of("euclidean")
    while not broken.done:
        broken.step()
        state = broken.state()
        broken = scan_of("euclidean")
        broken.resume(state)
    assert pairs(broken) == pairs(whole)
    assert broken.seen.tolist() == whole.seen.tolist()
    assert broken.load.tobytes() == whole.load.tobytes()


def test_of_too_many_pairs_the_closest_are_kept() -> None:
    whole = finished(scan_of("euclidean"))
    few = finished(scan_of("euclidean", most_kept=40))
    assert len(whole.distance) > 200
    assert pairs(few) == pairs(whole)[:40]
    assert few.seen.tolist() == whole.seen.tolist()


def test_steps_add_up() -> None:
    scan = scan_of("euclidean")
    assert scan.steps_done == 0
    total = 0
    while not scan.done:
        total += scan.step()
        assert scan.steps_done == total
    assert total == scan.steps


def test_state_of_other_embeddings_is_refused() -> None:
    state = scan_of("euclidean").state()
    with pytest.raises(StaleStateError):
        scan_of("cosine").resume(state)


@pytest.mark.parametrize("size", [0, 1])
def test_nothing_to_compare_is_no_error(size: int) -> None:
    labels = np.zeros(size, np.int32)
    scan = PairScan(
        np.ones((size, 4), np.float32), labels, "euclidean",
        thresholds=np.array([1.0]), load_threshold=1.0, keep=1.0,
    )  # fmt: skip
    assert finished(scan).seen.tolist() == [0]
    assert scan.compared == 0


@pytest.mark.parametrize(
    ("embeddings", "labels", "problem"),
    [
        (np.ones((2, 3)), [0, 1, 2], r"labels \[N\]"),
        (np.full((2, 3), np.nan), [0, 1], "not finite"),
        (np.ones((2, 3)), [0, 2], "without gaps"),
    ],
)
def test_bad_input_is_named(embeddings: NDArray[np.float64], labels: list[int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        PairScan(
            embeddings.astype(np.float32), np.array(labels, np.int32), "euclidean",
            thresholds=np.array([1.0]), load_threshold=1.0, keep=1.0,
        )  # fmt: skip
