"""The three distances, against their definitions and to the last bit among themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from app.matching.decision import OperatingPoint, is_match
from app.matching.distances import MAX_DISTANCE, Metric, distance, distances

METRICS: tuple[Metric, ...] = ("euclidean", "cosine", "l1")


def naive(a: NDArray[np.float32], b: NDArray[np.float32], metric: Metric) -> float:
    pairs = [(float(x), float(y)) for x, y in zip(a, b, strict=True)]
    if metric == "euclidean":
        return math.sqrt(math.fsum((x - y) ** 2 for x, y in pairs))
    if metric == "l1":
        return math.fsum(abs(x - y) for x, y in pairs)
    norms = math.sqrt(math.fsum(x * x for x, _ in pairs)) * math.sqrt(math.fsum(y * y for _, y in pairs))
    return 1.0 - math.fsum(x * y for x, y in pairs) / norms


@pytest.mark.parametrize(
    ("metric", "a", "b", "expected"),
    [
        ("euclidean", (1, 0), (0, 1), math.sqrt(2)),
        ("euclidean", (1, 0), (-1, 0), 2.0),
        ("euclidean", (0.6, 0.8), (0.6, 0.8), 0.0),
        ("cosine", (1, 0), (0, 1), 1.0),
        ("cosine", (1, 0), (-1, 0), 2.0),
        ("cosine", (3, 0), (7, 0), 0.0),
        ("cosine", (0, 0), (1, 0), 1.0),
        ("l1", (1, 0), (0, 1), 2.0),
        ("l1", (0.5, -0.5), (0.25, 0.5), 1.25),
    ],
)
def test_distance_by_hand(
    metric: Metric, a: tuple[float, ...], b: tuple[float, ...], expected: float
) -> None:
    assert distance(np.array(a), np.array(b), metric) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("metric", METRICS)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 7, 8, 9, 128, 300]))
def test_distance_is_the_naive_one_in_double_precision(metric: Metric, seed: int, dimensions: int) -> None:
    rng = np.random.default_rng(seed)
    probe = rng.standard_normal(dimensions).astype(np.float32)
    rows = rng.standard_normal((5, dimensions)).astype(np.float32)
    found = distances(probe, rows, metric)
    assert found.dtype == np.float64
    assert found == pytest.approx([naive(probe, row, metric) for row in rows], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimensions", [2, 8, 9, 128, 129, 512])
def test_row_has_the_same_bits_alone_in_a_batch_and_in_any_layout(metric: Metric, dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    probe = rng.standard_normal(dimensions).astype(np.float32)
    rows = rng.standard_normal((300, dimensions)).astype(np.float32)
    alone = [distance(probe, row, metric) for row in rows]
    wider = np.concatenate([rows, rows], axis=1)[:, :dimensions]
    assert distances(probe, rows, metric).tolist() == alone
    assert distances(probe, rows[::3], metric).tolist() == alone[::3]
    assert distances(probe, np.asfortranarray(rows), metric).tolist() == alone
    assert distances(probe, wider, metric).tolist() == alone
    assert distances(np.repeat(probe[None], 300, axis=0), rows, metric).tolist() == alone
    assert distances(np.asfortranarray(np.repeat(probe[None], 300, axis=0)), rows, metric).tolist() == alone


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_of_rows_are_compared_row_by_row(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    left, right = rng.standard_normal((2, 20, 16)).astype(np.float32)
    assert distances(left, right, metric).tolist() == [
        distance(a, b, metric) for a, b in zip(left, right, strict=True)
    ]


VECTORS = arrays(np.float32, 16, elements=st.floats(-1, 1, width=32)).filter(lambda v: np.abs(v).max() > 1e-3)


@pytest.mark.parametrize("metric", METRICS)
@given(VECTORS, VECTORS)
def test_distance_is_symmetric_and_within_its_range(
    metric: Metric, a: NDArray[np.float32], b: NDArray[np.float32]
) -> None:
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    found = distance(a, b, metric)
    assert found == distance(b, a, metric)
    assert 0.0 <= found <= (MAX_DISTANCE[metric] or math.inf) + 1e-6


@pytest.mark.parametrize("metric", METRICS)
@given(VECTORS)
def test_embedding_is_at_no_distance_from_itself(metric: Metric, vector: NDArray[np.float32]) -> None:
    assert distance(vector, vector, metric) == 0.0


def test_distance_equal_to_threshold_is_a_match() -> None:
    assert is_match(0.75, 0.75)


def test_distance_above_threshold_is_no_match() -> None:
    assert not is_match(math.nextafter(0.75, 1.0), 0.75)
    assert not is_match(math.nan, 0.75)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_operating_point_wants_a_rate_between_0_and_1(rate: float) -> None:
    with pytest.raises(ValueError, match="max_fmr"):
        OperatingPoint(name="point", threshold=1.0, max_fmr=rate)
