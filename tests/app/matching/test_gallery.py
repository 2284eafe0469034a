"""The search is exact: nearest first, as a full scan in double precision ranks them."""

from __future__ import annotations

import math
import unittest
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from app.matching.distances import Metric, distance
from app.matching.gallery import Gallery, Neighbour

METRICS: tuple[Metric, ...] = ("euclidean", "cosine", "l1")
Rows = dict[str, NDArray[np.float32]]


def full_scan(rows: Rows, probe: NDArray[np.float32], metric: Metric, k: int) -> list[Neighbour[str]]:
    measured = sorted((distance(probe, row, metric), key) for key, row in rows.items())
    return [Neighbour(key, value) for value, key in measured[:k]]


def filled(rows: Rows, metric: Metric) -> Gallery[str]:
    gallery: Gallery[str] = Gallery(len(next(iter(rows.values()))), metric)
    for key, row in rows.items():
        gallery.put(key, row)
    return gallery


# Coordinates from a few values, so that duplicates and ties are common.
POINTS = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=3, max_size=3).map(
    lambda values: np.array(values, np.float32)
)
KEYS = st.integers(0, 150).map(str)


class GalleryAgainstADict(RuleBasedStateMachine):
    """Any sequence of changes leaves the gallery searching what a dict of the same rows holds."""

    metric: Metric

    def __init__(self) -> None:
        super().__init__()
        self.gallery: Gallery[str] = Gallery(3, self.metric)
        self.rows: Rows = {}

    @rule(key=KEYS, row=POINTS)
    def put(self, key: str, row: NDArray[np.float32]) -> None:
        self.gallery.put(key, row)
        self.rows[key] = row

    @rule(keys=st.lists(KEYS, min_size=30, max_size=80), row=POINTS)
    def put_many(self, keys: list[str], row: NDArray[np.float32]) -> None:
        for place, key in enumerate(keys):
            self.put(key, np.roll(row, place))

    @rule(key=KEYS)
    def discard(self, key: str) -> None:
        self.gallery.discard(key)
        self.rows.pop(key, None)

    @rule(probe=POINTS, k=st.integers(1, 200))
    def search(self, probe: NDArray[np.float32], k: int) -> None:
        assert self.gallery.nearest(probe, k) == full_scan(self.rows, probe, self.metric, k)

    @invariant()
    def holds_the_same_keys(self) -> None:
        assert len(self.gallery) == len(self.rows)
        assert all(key in self.gallery for key in self.rows)


def case(metric: Metric) -> type[unittest.TestCase]:
    machine: Any = type(f"Gallery_{metric}", (GalleryAgainstADict,), {"metric": metric})
    machine.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
    test: type[unittest.TestCase] = machine.TestCase
    return test


TestEuclidean = case("euclidean")
TestCosine = case("cosine")
TestL1 = case("l1")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 2, 10, 999, 1000, 1001])
def test_search_of_many_rows_is_that_of_a_full_scan(metric: Metric, k: int) -> None:
    rng = np.random.default_rng(k)
    rows = rng.standard_normal((1000, 128)).astype(np.float32)
    # The other rows keep any length, as some models make them.
    rows[:800] /= np.linalg.norm(rows[:800], axis=1, keepdims=True)
    rows[500:600] = rows[:100]  # duplicates
    probe = rows[42]
    named = {f"{place:04}": row for place, row in enumerate(rows)}
    assert filled(named, metric).nearest(probe, k) == full_scan(named, probe, metric, k)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_nearly_equally_far_are_ranked_as_in_double_precision(metric: Metric) -> None:
    # 300 rows whose distances to the probe differ in the seventh digit: below the float32 scan's error.
    rng = np.random.default_rng(9)
    probe = rng.standard_normal(128)
    probe /= np.linalg.norm(probe)
    base = rng.standard_normal(128)
    base /= np.linalg.norm(base)
    rows = {
        f"{place:03}": (base + 1e-7 * rng.standard_normal(128)).astype(np.float32) for place in range(300)
    }
    probe32 = probe.astype(np.float32)
    found = filled(rows, metric).nearest(probe32, 20)
    assert found == full_scan(rows, probe32, metric, 20)
    assert found[-1].distance - found[0].distance < 1e-5


def test_ties_come_in_order_of_their_keys() -> None:
    rows = {key: np.array([1.0, 0.0], np.float32) for key in ("b", "a", "10", "9")}
    found = filled(rows, "euclidean").nearest(np.array([0.0, 1.0], np.float32), 4)
    assert [neighbour.key for neighbour in found] == ["10", "9", "a", "b"]


@pytest.mark.parametrize("metric", METRICS)
def test_duplicates_of_the_nearest_do_not_hide_one_another(metric: Metric) -> None:
    rows = {f"{place:03}": np.array([1.0, 0.0], np.float32) for place in range(100)}
    found = filled(rows, metric).nearest(np.array([1.0, 0.0], np.float32), 3)
    assert found == [Neighbour("000", 0.0), Neighbour("001", 0.0), Neighbour("002", 0.0)]


def test_empty_gallery_finds_nothing() -> None:
    assert Gallery(4, "euclidean").nearest(np.zeros(4, np.float32), 5) == []


def test_removed_key_is_never_found() -> None:
    rows = {str(place): np.array([math.cos(place), math.sin(place)], np.float32) for place in range(100)}
    gallery = filled(rows, "euclidean")
    gallery.discard("0")
    gallery.discard("99")
    gallery.discard("never there")
    assert {found.key for found in gallery.nearest(rows["0"], 100)} == {str(n) for n in range(1, 99)}


def test_replaced_row_is_found_at_its_new_place_only() -> None:
    gallery = filled({"a": np.array([1, 0], np.float32), "b": np.array([0, 1], np.float32)}, "l1")
    gallery.put("a", np.array([0, 0.5], np.float32))
    assert gallery.nearest(np.array([0, 1], np.float32), 5) == [Neighbour("b", 0.0), Neighbour("a", 0.5)]


def test_changing_the_array_that_was_put_changes_nothing() -> None:
    row = np.array([1.0, 0.0], np.float32)
    gallery = filled({"a": row}, "euclidean")
    row[:] = 9.0
    assert gallery.nearest(np.array([1.0, 0.0], np.float32), 1) == [Neighbour("a", 0.0)]


def test_memory_is_doubled_not_copied_for_every_row() -> None:
    gallery: Gallery[int] = Gallery(128, "euclidean")
    sizes = set()
    for key in range(1000):
        gallery.put(key, np.zeros(128, np.float32))
        sizes.add(gallery.nbytes)
    assert sizes == {rows * (128 + 1) * 4 for rows in (64, 128, 256, 512, 1024)}
