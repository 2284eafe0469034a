"""Snapshots of large galleries: used when they are of this store and whole, and never otherwise."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.matching.gallery import PART, Gallery
from app.services import gallery_snapshots
from app.services.gallery_snapshots import Snapshots
from app.storage import collections, migrate, templates
from app.storage.database import Database
from app.storage.records import Collection

DIMENSIONS = 8


def unit_rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSIONS))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


class Holder:
    """A gallery with the lock and revision that searches keep beside it."""

    def __init__(self, gallery: Gallery, revision: int) -> None:
        self.lock = threading.Lock()
        self.gallery = gallery
        self.revision = revision


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    return unit_rows(PART + 3000)


@pytest.fixture
def holder(rows: NDArray[np.float32]) -> Holder:
    gallery = Gallery(DIMENSIONS, "euclidean")
    gallery.load([(np.arange(len(rows)), rows)])
    return Holder(gallery, 7)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{tmp_path / 'a.db'}", timeout_s=5, pool_size=4)) as database:
        migrate.upgrade(database)
        yield database


@pytest.fixture
def collection(store: Database) -> Collection:
    def made(session: Any) -> Collection:
        fresh = collections.add(session, "people", "faces", "d" * 64, {})
        for _ in range(7):
            collections.next_revision(session, fresh)
        return collections.get(session, "people")

    return store.write_now(made)


@pytest.fixture
def snapshots(store: Database, tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "galleries", store)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def loaded(
    snapshots: Snapshots, store: Database, collection: Collection, pool: ThreadPoolExecutor
) -> tuple[Gallery, int] | None:
    return store.read_now(
        lambda session: snapshots.load(
            session, collections.get(session, collection.name), DIMENSIONS, "euclidean", pool
        )
    )


def test_gallery_read_from_a_snapshot_answers_as_the_one_that_was_written(
    snapshots: Snapshots, store: Database, collection: Collection, holder: Holder, pool: ThreadPoolExecutor
) -> None:
    holder.gallery.discard(5)
    holder.gallery.put(6, unit_rows(3, seed=6))
    assert snapshots.save(collection, holder) == 7
    found = loaded(snapshots, store, collection, pool)
    assert found is not None
    gallery, revision = found
    assert (revision, len(gallery), gallery.references) == (7, len(holder.gallery), holder.gallery.references)
    probes = unit_rows(20, seed=1)
    assert gallery.nearest_each(probes, 5) == holder.gallery.nearest_each(probes, 5)
    # Growing and changing it leaves the file as it is.
    for key in range(10_000):
        gallery.put(key, probes[key % 20])
    again = loaded(snapshots, store, collection, pool)
    assert again is not None
    assert again[0].nearest_each(probes, 5) == holder.gallery.nearest_each(probes, 5)


def test_changes_while_a_snapshot_is_written_are_in_it(
    snapshots: Snapshots,
    store: Database,
    collection: Collection,
    holder: Holder,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy, probe = holder.gallery.copy, unit_rows(1, seed=9)[0]

    def copy_then_change(places: NDArray[np.intp]) -> NDArray[np.float32]:
        copied = copy(places)
        if len(places) == gallery_snapshots.ROWS_AT_ONCE and holder.revision == 7:
            holder.gallery.put(2, probe)
            holder.gallery.discard(3)
            holder.gallery.put(1_000_000, -probe)
            holder.revision = 8
        return copied

    monkeypatch.setattr(holder.gallery, "copy", copy_then_change)
    store.write_now(collections.next_revision, collection)
    assert snapshots.save(collection, holder) == 8
    found = loaded(snapshots, store, collection, pool)
    assert found is not None
    gallery, revision = found
    assert revision == 8
    assert gallery.nearest(probe, 1)[0].key == 2
    assert gallery.nearest(-probe, 1)[0].key == 1_000_000
    assert 3 not in gallery


def test_snapshot_is_given_up_when_rows_are_rearranged_meanwhile(
    snapshots: Snapshots,
    collection: Collection,
    holder: Holder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = holder.gallery.copy

    def copy_then_rearrange(places: NDArray[np.intp]) -> NDArray[np.float32]:
        holder.gallery.generation += 1
        return copy(places)

    monkeypatch.setattr(holder.gallery, "copy", copy_then_rearrange)
    assert snapshots.save(collection, holder) is None
    assert [path.suffix for path in (tmp_path / "galleries").iterdir()] == [".lock"]
    assert holder.gallery.written is None


@pytest.mark.parametrize("suffix", [".rows", ".npz", ".json"])
def test_damaged_snapshot_is_not_used(
    suffix: str,
    snapshots: Snapshots,
    store: Database,
    collection: Collection,
    holder: Holder,
    pool: ThreadPoolExecutor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    snapshots.save(collection, holder)
    (path,) = (tmp_path / "galleries").glob(f"*{suffix}")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with caplog.at_level("WARNING", "visavis.galleries"):
        assert loaded(snapshots, store, collection, pool) is None
    assert "is not used" in caplog.text
    assert not list((tmp_path / "galleries").glob("*.json"))


@pytest.mark.parametrize("suffix", [".rows", ".npz"])
def test_snapshot_cut_off_is_not_used(
    suffix: str,
    snapshots: Snapshots,
    store: Database,
    collection: Collection,
    holder: Holder,
    pool: ThreadPoolExecutor,
    tmp_path: Path,
) -> None:
    snapshots.save(collection, holder)
    (path,) = (tmp_path / "galleries").glob(f"*{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert loaded(snapshots, store, collection, pool) is None


def test_snapshot_is_not_used_by_a_store_put_back_from_an_older_backup(
    snapshots: Snapshots,
    store: Database,
    collection: Collection,
    holder: Holder,
    pool: ThreadPoolExecutor,
    tmp_path: Path,
) -> None:
    (path,) = tmp_path.glob("a.db")
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = path.read_bytes()
    snapshots.save(collection, holder)
    assert loaded(snapshots, store, collection, pool) is not None
    (tmp_path / "b.db").write_bytes(backup)
    with closing(Database(f"sqlite:///{tmp_path / 'b.db'}", timeout_s=5, pool_size=2)) as restored:
        for _ in range(5):
            restored.write_now(collections.next_revision, collection)
        assert loaded(Snapshots(tmp_path / "galleries", restored), restored, collection, pool) is None


def test_snapshot_older_than_the_removals_that_are_kept_is_not_used(
    snapshots: Snapshots,
    store: Database,
    collection: Collection,
    holder: Holder,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshots.save(collection, holder)
    monkeypatch.setattr(templates, "PRUNED_EACH", 1)
    monkeypatch.setattr(templates, "REMOVALS_KEPT", 2)
    store.write_now(templates.prune_removals, collection, 9)
    assert loaded(snapshots, store, collection, pool) is not None  # all since revision 7 are kept
    store.write_now(templates.prune_removals, collection, 10)
    assert loaded(snapshots, store, collection, pool) is None


def test_new_snapshot_takes_the_place_of_the_old_one(
    snapshots: Snapshots, store: Database, collection: Collection, holder: Holder, tmp_path: Path
) -> None:
    snapshots.save(collection, holder)
    before = set((tmp_path / "galleries").glob("*.rows"))
    snapshots.save(collection, holder)
    after = set((tmp_path / "galleries").glob("*.rows"))
    assert len(after) == 1
    assert not before & after
    assert len(store.read_now(templates.known_snapshots)) == 1


def test_files_of_a_deleted_collection_are_removed(
    snapshots: Snapshots,
    store: Database,
    collection: Collection,
    holder: Holder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshots.save(collection, holder)
    store.write_now(collections.remove, "people")
    monkeypatch.setattr(gallery_snapshots, "UNDER_WAY_S", -1.0)
    snapshots.tidy()
    assert {path.suffix for path in (tmp_path / "galleries").iterdir()} == {".lock"}


def test_templates_on_disk_are_for_the_owner_alone(
    snapshots: Snapshots, collection: Collection, holder: Holder, tmp_path: Path
) -> None:
    snapshots.save(collection, holder)
    folder = tmp_path / "galleries"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    (described,) = folder.glob("*.json")
    assert json.loads(described.read_text())["revision"] == 7
