"""Revisions, names, pages, replacement and deletion, on both stores."""

from __future__ import annotations

import multiprocessing
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from app.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    IdentityExistsError,
    IdentityNotFoundError,
)
from app.storage import collections, identities, migrate
from app.storage.database import Database, Session
from app.storage.records import Collection, NewReference

NAMES = [
    "Ada",
    "ada",
    "Ада Лавлейс",
    "艾达·洛夫莱斯",
    "عائشة",
    "אדה",
    "எடா",
    "👩🏽‍🚀",
    "\U0001f600" * 256,
    "a b",
    "%",
    "_",
    "'; DROP TABLE identities; --",
    "\\",
    "a/b",
    "null",
    "ß",
    "ss",
    "\u0131",  # i without its dot, whose capital is I
    "i",
]


def reference(angle: float = 0.0) -> NewReference:
    embedding = np.array([np.cos(angle), np.sin(angle)], np.float32)
    return NewReference(str(uuid.uuid4()), "d" * 64, embedding, None, {"sharpness": 1.0})


def enrol(session: Session, collection: Collection, name: str, angle: float = 0.0) -> int:
    revision = collections.next_revision(session, collection)
    identities.add(session, collection, revision, name, {"of": name}, reference(angle))
    return revision


def replace(session: Session, collection: Collection, name: str, metadata: Any = None) -> int:
    revision = collections.next_revision(session, collection)
    identities.replace(session, collection, revision, name, metadata, reference(1.0))
    return revision


def rename(session: Session, collection: Collection, name: str, new_name: str) -> int:
    revision = collections.next_revision(session, collection)
    identities.change(session, collection, revision, name, new_name=new_name, metadata=None)
    return revision


def remove(session: Session, collection: Collection, name: str) -> int:
    revision = collections.next_revision(session, collection)
    identities.remove(session, collection, revision, name)
    return revision


def count(database: Database, table: str) -> int:
    return int(database.read_now(lambda s: s.scalar(text(f"SELECT count(*) FROM {table}"))))


@pytest.fixture
def gallery(database: Database) -> Collection:
    return database.write_now(collections.add, "gallery", "angles", "d" * 64, {"max_yaw": 0.5})


def revision_of(database: Database) -> int:
    return database.read_now(collections.get, "gallery").revision


def test_every_kind_of_change_raises_the_revision_by_one(database: Database, gallery: Collection) -> None:
    assert gallery.revision == 0
    assert database.write_now(enrol, gallery, "ada") == 1
    assert database.write_now(replace, gallery, "ada") == 2
    assert database.write_now(rename, gallery, "ada", "grace") == 3
    assert database.write_now(remove, gallery, "grace") == 4
    assert revision_of(database) == 4


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s, c: enrol(s, c, "ada"), IdentityExistsError),
        (lambda s, c: replace(s, c, "nobody"), IdentityNotFoundError),
        (lambda s, c: rename(s, c, "nobody", "x"), IdentityNotFoundError),
        (lambda s, c: rename(s, c, "ada", "grace"), IdentityExistsError),
        (lambda s, c: remove(s, c, "nobody"), IdentityNotFoundError),
    ],
    ids=["enrol", "replace", "rename", "rename to a taken name", "remove"],
)
def test_refused_change_leaves_the_revision_and_the_rows(
    database: Database, gallery: Collection, change: Callable[..., Any], error: type[Exception]
) -> None:
    for name in ("ada", "grace"):
        database.write_now(enrol, gallery, name)
    with pytest.raises(error):
        database.write_now(change, gallery)
    assert revision_of(database) == 2
    assert [i.name for i in database.read_now(identities.page, gallery, after=0, limit=9)] == ["ada", "grace"]
    assert count(database, "reference_templates") == 2


def test_revisions_have_no_gap_under_writers_on_threads(database: Database, gallery: Collection) -> None:
    def write(writer: int) -> list[int]:
        return [database.write_now(enrol, gallery, f"{writer}-{i}") for i in range(10)]

    with ThreadPoolExecutor(6) as pool:
        revisions = [revision for made in pool.map(write, range(6)) for revision in made]
    assert sorted(revisions) == list(range(1, 61))
    assert revision_of(database) == 60


def _write_in_a_process(url: str, writer: int) -> list[int]:
    with closing(Database(url, timeout_s=20, pool_size=1)) as database:
        gallery = database.read_now(collections.get, "gallery")
        return [database.write_now(enrol, gallery, f"{writer}-{i}") for i in range(10)]


def test_revisions_have_no_gap_under_writers_in_processes(
    url: str, database: Database, gallery: Collection
) -> None:
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        made = pool.map(_write_in_a_process, [url] * 3, range(3))
        assert sorted(revision for revisions in made for revision in revisions) == list(range(1, 31))
    assert len({i.revision for i in database.read_now(identities.page, gallery, after=0, limit=99)}) == 30


def test_only_one_of_many_that_enrol_a_name_at_once_succeeds(database: Database, gallery: Collection) -> None:
    def attempt(_: int) -> bool:
        try:
            database.write_now(enrol, gallery, "ada")
        except IdentityExistsError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(12))) == 1
    assert (revision_of(database), count(database, "reference_templates")) == (1, 1)


def test_only_one_of_many_that_create_a_collection_at_once_succeeds(database: Database) -> None:
    def attempt(_: int) -> bool:
        try:
            database.write_now(collections.add, "new", "angles", "d" * 64, {})
        except CollectionExistsError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(12))) == 1


def test_names_of_any_script_are_kept_apart_and_found(database: Database, gallery: Collection) -> None:
    for name in NAMES:
        database.write_now(enrol, gallery, name)
    for name in NAMES:
        assert database.read_now(identities.get, gallery, name).metadata == {"of": name}


def test_same_name_in_two_collections_is_two_identities(database: Database, gallery: Collection) -> None:
    other = database.write_now(collections.add, "other", "angles", "d" * 64, {})
    for collection in (gallery, other):
        database.write_now(enrol, collection, "ada")
        where = {"in": collection.name}
        database.write_now(identities.change, collection, 2, "ada", new_name=None, metadata=where)
    assert database.read_now(identities.get, gallery, "ada").metadata == {"in": "gallery"}
    assert database.read_now(identities.get, other, "ada").metadata == {"in": "other"}


def test_rename_keeps_identity_metadata_and_template(database: Database, gallery: Collection) -> None:
    database.write_now(enrol, gallery, "ada", 0.3)
    before = database.read_now(identities.get, gallery, "ada")
    database.write_now(rename, gallery, "ada", "grace")
    after = database.read_now(identities.get, gallery, "grace")
    assert (after.id, after.metadata, after.created_at) == (before.id, before.metadata, before.created_at)
    assert after.updated_at > before.updated_at
    (entry,) = database.read_now(identities.embeddings_of, gallery, "grace")
    np.testing.assert_array_equal(entry.embedding, reference(0.3).embedding)
    with pytest.raises(IdentityNotFoundError):
        database.read_now(identities.get, gallery, "ada")


def test_rename_to_its_own_name_is_no_conflict(database: Database, gallery: Collection) -> None:
    database.write_now(enrol, gallery, "ada")
    assert database.write_now(rename, gallery, "ada", "ada") == 2


@pytest.mark.parametrize(("given", "kept"), [(None, {"of": "ada"}), ({}, {}), ({"new": 1}, {"new": 1})])
def test_replacing_swaps_the_template_and_only_given_metadata(
    database: Database, gallery: Collection, given: Any, kept: Any
) -> None:
    database.write_now(enrol, gallery, "ada")
    database.write_now(replace, gallery, "ada", given)
    found = database.read_now(identities.get, gallery, "ada")
    assert (found.metadata, found.references) == (kept, 1)
    (entry,) = database.read_now(identities.embeddings_of, gallery, "ada")
    np.testing.assert_array_equal(entry.embedding, reference(1.0).embedding)


def test_deleted_identity_leaves_no_template_and_its_name_is_free(
    database: Database, gallery: Collection
) -> None:
    database.write_now(enrol, gallery, "ada")
    first = database.read_now(identities.get, gallery, "ada").id
    database.write_now(remove, gallery, "ada")
    assert (count(database, "identities"), count(database, "reference_templates")) == (0, 0)
    database.write_now(enrol, gallery, "ada")
    assert database.read_now(identities.get, gallery, "ada").id > first


def test_deleted_collection_leaves_no_row_of_its_own_and_every_row_of_others(
    database: Database, gallery: Collection
) -> None:
    other = database.write_now(collections.add, "other", "angles", "d" * 64, {})
    for collection in (gallery, other):
        for name in ("ada", "grace"):
            database.write_now(enrol, collection, name + collection.name)
        database.write_now(remove, collection, "ada" + collection.name)
    database.write_now(collections.remove, "gallery")
    tables = ("collections", "identities", "reference_templates", "removals")
    assert [count(database, table) for table in tables] == [1, 1, 1, 1]
    with pytest.raises(CollectionNotFoundError):
        database.write_now(enrol, gallery, "late")


def test_number_of_a_deleted_collection_is_never_given_again(database: Database, gallery: Collection) -> None:
    database.write_now(collections.remove, "gallery")
    again = database.write_now(collections.add, "gallery", "angles", "d" * 64, {})
    assert again.id > gallery.id


def test_pages_hold_each_identity_once_while_others_are_written(
    database: Database, gallery: Collection
) -> None:
    for i in range(10):
        database.write_now(enrol, gallery, f"first-{i}")
    seen, after = [], 0
    while page := database.read_now(identities.page, gallery, after=after, limit=3):
        seen += [identity.name for identity in page]
        after = page[-1].id
        if len(seen) == 3:
            database.write_now(remove, gallery, "first-0")  # already shown
            database.write_now(remove, gallery, "first-5")  # not shown yet
            database.write_now(rename, gallery, "first-1", "renamed")
            database.write_now(enrol, gallery, "late")
    assert seen == [f"first-{i}" for i in (0, 1, 2, 3, 4, 6, 7, 8, 9)] + ["late"]


def test_policy_and_embedding_come_back_to_the_last_bit(database: Database, gallery: Collection) -> None:
    embedding = np.array([1 / 3, -0.0, 1e-38, np.finfo(np.float32).max], np.float32)
    new = NewReference("r", "d" * 64, embedding, None, {})
    database.write_now(identities.add, gallery, 1, "ada", {}, new)
    (entry,) = database.read_now(identities.embeddings_of, gallery, "ada")
    assert entry.embedding.tobytes() == embedding.tobytes()
    assert database.read_now(collections.get, "gallery").policy == {"max_yaw": 0.5}


def test_read_sees_one_state_from_its_first_statement_to_its_last(
    database: Database, gallery: Collection
) -> None:
    database.write_now(enrol, gallery, "ada")

    def read(session: Session) -> tuple[int, int]:
        revision = collections.get(session, "gallery").revision
        database.write_now(enrol, gallery, "grace")
        return revision, len(identities.page(session, gallery, after=0, limit=9))

    assert database.read_now(read) == (1, 1)
    assert revision_of(database) == 2


def test_error_of_the_database_quotes_no_value(database: Database, gallery: Collection) -> None:
    def twice(session: Session) -> None:
        for _ in range(2):
            row = {"c": gallery.id, "r": 1, "i": 424242}
            session.execute(
                text("INSERT INTO removals (collection_id, revision, identity_id) VALUES (:c, :r, :i)"), row
            )

    with pytest.raises(Exception, match="removals") as caught:
        database.write_now(twice)
    assert "424242" not in str(caught.value)


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("secure_delete", 1), ("foreign_keys", 1)],
)
def test_sqlite_commits_survive_a_power_cut_and_deleted_bytes_are_overwritten(
    tmp_path: Path, pragma: str, value: object
) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'visavis.db'}", timeout_s=5, pool_size=2)) as database:
        assert database.read_now(lambda s: s.scalar(text(f"PRAGMA {pragma}"))) == value


def test_deleted_template_is_gone_from_the_bytes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "visavis.db"
    marked = np.array([0.123456789] * 64, np.float32)
    with closing(Database(f"sqlite:///{path}", timeout_s=5, pool_size=1)) as database:
        migrate.upgrade(database)
        gallery = database.write_now(collections.add, "gallery", "angles", "d" * 64, {})
        new = NewReference("r", "d" * 64, marked, None, {})
        database.write_now(identities.add, gallery, 1, "ada", {}, new)
        database.engine.dispose()  # the last connection writes the journal into the file
        assert marked.tobytes() in path.read_bytes()
        database.write_now(remove, gallery, "ada")
        database.engine.dispose()
        assert marked.tobytes() not in b"".join(p.read_bytes() for p in tmp_path.iterdir())
