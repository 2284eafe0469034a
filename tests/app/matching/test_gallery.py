"""The search is exact: nearest first, as a full scan in double precision ranks them."""

from __future__ import annotations

import dataclasses
import math
import unittest
from concurrent.futures import ThreadPoolExecutor
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
Rows = dict[int, NDArray[np.float32]]


def full_scan(rows: Rows, probe: NDArray[np.float32], metric: Metric, k: int) -> list[Neighbour]:
    measured = sorted(
        (min(distance(probe, row, metric) for row in np.atleast_2d(held)), key) for key, held in rows.items()
    )
    return [Neighbour(key, value) for value, key in measured[:k]]


def filled(rows: Rows, metric: Metric, **options: Any) -> Gallery:
    gallery = Gallery(next(iter(rows.values())).shape[-1], metric, **options)
    for key, row in rows.items():
        gallery.put(key, row)
    return gallery


def directions(rng: np.random.Generator, count: int, dimensions: int) -> NDArray[np.float32]:
    drawn = rng.standard_normal((count, dimensions))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


# Coordinates from a few values, so that duplicates and ties are common.
POINTS = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=3, max_size=3).map(
    lambda values: np.array(values, np.float32)
)
KEYS = st.integers(0, 150)


class GalleryAgainstADict(RuleBasedStateMachine):
    """Any sequence of changes leaves the gallery searching what a dict of the same rows holds."""

    metric: Metric
    part = 64
    unit = False

    def __init__(self) -> None:
        super().__init__()
        self.gallery = Gallery(3, self.metric, part=self.part, least_parts=1)
        self.rows: Rows = {}

    def held(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the row, or a unit vector where the copies in four bits are to be used."""
        if not self.unit:
            return row
        turned = row.astype(np.float64) + np.array([0.01, 0.02, 0.03])
        return np.asarray(turned / np.linalg.norm(turned, axis=-1, keepdims=True), np.float32)

    @rule(key=KEYS, row=POINTS)
    def put(self, key: int, row: NDArray[np.float32]) -> None:
        row = self.held(row)
        self.gallery.put(key, row)
        self.rows[key] = row

    @rule(keys=st.lists(KEYS, min_size=30, max_size=80), row=POINTS)
    def put_many(self, keys: list[int], row: NDArray[np.float32]) -> None:
        for place, key in enumerate(keys):
            self.put(key, np.roll(row, place))

    @rule(key=KEYS, first=POINTS, second=POINTS)
    def put_several(self, key: int, first: NDArray[np.float32], second: NDArray[np.float32]) -> None:
        self.put(key, np.stack([first, second, first]))

    @rule(removed=st.sets(KEYS, max_size=30), keys=st.sets(KEYS, max_size=30), row=POINTS)
    def change(self, removed: set[int], keys: set[int], row: NDArray[np.float32]) -> None:
        put = {key: self.held(np.roll(row, key)) for key in keys}
        self.gallery.change(put, gone=removed)
        self.rows = {key: held for key, held in self.rows.items() if key not in removed} | put

    @rule(count=st.integers(1, 140), row=POINTS, size=st.integers(1, 50))
    def load(self, count: int, row: NDArray[np.float32], size: int) -> None:
        """Fill a new one, every third identity with two references."""
        keys = np.array([n for key in range(count) for n in [key] * (1 + (key % 3 == 0))], np.int64)
        rows = self.held(np.stack([np.roll(row, n) * (1 + n % 3) for n in range(len(keys))])).astype(
            np.float32
        )
        self.gallery = Gallery(3, self.metric, part=self.part, least_parts=1)
        starts = range(0, len(keys), size)
        self.gallery.load([(keys[i : i + size], rows[i : i + size]) for i in starts], expected=count)
        self.rows = {int(key): rows[keys == key] for key in np.unique(keys)}

    @rule(key=KEYS)
    def discard(self, key: int) -> None:
        self.gallery.discard(key)
        self.rows.pop(key, None)

    @rule(low=st.integers(0, 300))
    def discard_many(self, low: int) -> None:
        for key in range(low, 300):
            self.discard(key)

    @rule()
    def stored_and_read(self) -> None:
        state = self.gallery.state()
        copied = dataclasses.replace(state, keys=state.keys.copy(), rows=state.rows.copy())
        self.gallery = Gallery.from_state(copied, self.metric, part=self.part, least_parts=1)

    @rule(probe=POINTS, k=st.integers(1, 200))
    def search(self, probe: NDArray[np.float32], k: int) -> None:
        probe = self.held(probe)
        assert self.gallery.nearest(probe, k) == full_scan(self.rows, probe, self.metric, k)

    @rule(probe=POINTS, k=st.integers(1, 5), among=st.sets(KEYS, max_size=60))
    def search_among(self, probe: NDArray[np.float32], k: int, among: set[int]) -> None:
        some = {key: row for key, row in self.rows.items() if key in among}
        found = self.gallery.nearest(self.held(probe), k, among=among)
        assert found == full_scan(some, self.held(probe), self.metric, k)

    @invariant()
    def holds_the_same_keys(self) -> None:
        assert len(self.gallery) == len(self.rows)
        assert self.gallery.references == sum(len(np.atleast_2d(rows)) for rows in self.rows.values())
        assert all(key in self.gallery for key in self.rows)


def case(metric: Metric, *, unit: bool = False) -> type[unittest.TestCase]:
    machine: Any = type(f"Gallery_{metric}_{unit}", (GalleryAgainstADict,), {"metric": metric, "unit": unit})
    machine.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
    test: type[unittest.TestCase] = machine.TestCase
    return test


TestEuclidean = case("euclidean")
TestCosine = case("cosine")
TestL1 = case("l1")
TestEuclideanOfUnitVectors = case("euclidean", unit=True)
TestCosineOfUnitVectors = case("cosine", unit=True)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 2, 10, 999, 1000, 1001])
def test_search_of_many_rows_is_that_of_a_full_scan(metric: Metric, k: int) -> None:
    rng = np.random.default_rng(k)
    rows = rng.standard_normal((1000, 128)).astype(np.float32)
    # The other rows keep any length, as some models make them.
    rows[:800] /= np.linalg.norm(rows[:800], axis=1, keepdims=True)
    rows[500:600] = rows[:100]  # duplicates
    probe = rows[42]
    keyed = dict(enumerate(rows))
    assert filled(keyed, metric).nearest(probe, k) == full_scan(keyed, probe, metric, k)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dimensions", [33, 128])
def test_copies_in_four_bits_leave_the_search_exact(metric: Metric, dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    # Clusters, as embeddings of related subjects form, and probes near and far from all of them.
    centres = directions(rng, 20, dimensions)
    spread = centres[rng.integers(20, size=10_000)] + 0.5 * directions(rng, 10_000, dimensions)
    rows = (spread / np.linalg.norm(spread, axis=1, keepdims=True)).astype(np.float32)
    rows[7000:7100] = rows[:100]
    probes = np.concatenate([rows[:5] * 1.0005, directions(rng, 5, dimensions), 3 * centres[:3]])
    with ThreadPoolExecutor(2) as pool:
        gallery = Gallery(dimensions, metric, pool=pool, part=2048, least_parts=1)
        gallery.load([(np.arange(10_000), rows)])
        for key in range(0, 10_000, 97):
            gallery.discard(key)
        for key in range(50, 10_000, 97):
            gallery.put(key, rows[key - 1])
        held = {key: rows[key] for key in range(10_000) if key % 97}
        held |= {key: rows[key - 1] for key in range(50, 10_000, 97)}
        for k in (1, 5, 100):
            found = gallery.nearest_each(probes, k)
            assert found == [full_scan(held, probe.astype(np.float32), metric, k) for probe in probes]


def test_copies_are_used_where_they_suit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    gallery = Gallery(64, "euclidean", part=4096, least_parts=1)
    gallery.load([(np.arange(9000), directions(rng, 9000, 64))])
    scanned = []
    scan = gallery._scan
    monkeypatch.setattr(gallery, "_scan", lambda rows, *rest: scanned.append(len(rows)) or scan(rows, *rest))  # type: ignore[func-returns-value]
    gallery.nearest(directions(rng, 1, 64)[0], 1)
    assert scanned
    assert max(scanned) < 4096


def test_deleted_template_is_nowhere_in_memory() -> None:
    rng = np.random.default_rng(4)
    rows = directions(rng, 200, 16)
    gallery = Gallery(16, "euclidean", part=64, least_parts=1)
    gallery.load([(np.arange(200), rows)])
    before = gallery._parts[0]._index.reconstruct(5)
    gallery.discard(5)
    assert not gallery._rows[5].any()
    blank = gallery._parts[0]._index.reconstruct(5)
    assert blank.tolist() == gallery._parts[0].levels[:, 0].tolist() != before.tolist()
    assert gallery._parts[0]._index.reconstruct(6).tolist() != blank.tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_rows_nearly_equally_far_are_ranked_as_in_double_precision(metric: Metric) -> None:
    # 300 rows whose distances to the probe differ in the seventh digit: below the float32 scan's error.
    rng = np.random.default_rng(9)
    probe = rng.standard_normal(128)
    probe /= np.linalg.norm(probe)
    base = rng.standard_normal(128)
    base /= np.linalg.norm(base)
    rows = {place: (base + 1e-7 * rng.standard_normal(128)).astype(np.float32) for place in range(300)}
    probe32 = probe.astype(np.float32)
    expected = full_scan(rows, probe32, metric, 20)
    assert filled(rows, metric).nearest(probe32, 20) == expected
    assert filled(rows, metric, part=128, least_parts=1).nearest(probe32, 10) == expected[:10]
    assert expected[-1].distance - expected[0].distance < 1e-5


def test_ties_come_in_order_of_their_keys() -> None:
    rows = {key: np.array([1.0, 0.0], np.float32) for key in (9, 3, 10, 1)}
    found = filled(rows, "euclidean").nearest(np.array([0.0, 1.0], np.float32), 4)
    assert [neighbour.key for neighbour in found] == [1, 3, 9, 10]


@pytest.mark.parametrize("metric", METRICS)
def test_duplicates_of_the_nearest_do_not_hide_one_another(metric: Metric) -> None:
    rows = {place: np.array([1.0, 0.0], np.float32) for place in range(100)}
    found = filled(rows, metric).nearest(np.array([1.0, 0.0], np.float32), 3)
    assert found == [Neighbour(0, 0.0), Neighbour(1, 0.0), Neighbour(2, 0.0)]


def test_many_references_of_one_identity_do_not_hide_the_others() -> None:
    near = np.tile(np.array([1.0, 0.0], np.float32), (60, 1))
    rows = {1: near, 2: np.array([0.8, 0.6], np.float32), 3: np.array([0.0, 1.0], np.float32)}
    found = filled(rows, "euclidean").nearest(np.array([1.0, 0.0], np.float32), 2)
    assert [neighbour.key for neighbour in found] == [1, 2]


def test_empty_gallery_finds_nothing() -> None:
    assert Gallery(4, "euclidean").nearest(np.zeros(4, np.float32), 5) == []


def test_search_among_nobody_finds_nothing() -> None:
    assert filled({1: np.ones(4, np.float32)}, "euclidean").nearest(np.zeros(4), 5, among=[]) == []


def test_removed_key_is_never_found() -> None:
    rows = {place: np.array([math.cos(place), math.sin(place)], np.float32) for place in range(100)}
    gallery = filled(rows, "euclidean")
    gallery.discard(0)
    gallery.discard(99)
    gallery.discard(100)
    assert {found.key for found in gallery.nearest(rows[0], 100)} == set(range(1, 99))


def test_replaced_row_is_found_at_its_new_place_only() -> None:
    gallery = filled({1: np.array([1, 0], np.float32), 2: np.array([0, 1], np.float32)}, "l1")
    gallery.put(1, np.array([0, 0.5], np.float32))
    assert gallery.nearest(np.array([0, 1], np.float32), 5) == [Neighbour(2, 0.0), Neighbour(1, 0.5)]


def test_changing_the_array_that_was_put_changes_nothing() -> None:
    row = np.array([1.0, 0.0], np.float32)
    gallery = filled({1: row}, "euclidean")
    row[:] = 9.0
    assert gallery.nearest(np.array([1.0, 0.0], np.float32), 1) == [Neighbour(1, 0.0)]


def test_memory_grows_in_steps_and_freed_rows_are_used_again() -> None:
    gallery = Gallery(128, "euclidean")
    sizes = set()
    for key in range(1000):
        gallery.put(key, np.zeros(128, np.float32))
        sizes.add(gallery.nbytes)
    assert len(sizes) == 5
    largest = max(sizes)
    for key in range(1000, 9000):
        gallery.discard(key - 1000)
        gallery.put(key, np.zeros(128, np.float32))
    assert gallery.nbytes == largest
    assert len(gallery) == 1000
