"""SQL for thousands of identities at once: written by columns, read in pages.

Rows go in with ``executemany`` on SQLite and with COPY on PostgreSQL, and no object is made of a row. Callers
hold the collection's row and raise its revision first; one revision stands for the whole batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Table, bindparam, delete, func, select, text, update
from sqlalchemy.orm import Session

from app.storage.records import Collection, with_zone
from app.storage.schema import IdentityRow, KeptImageRow, ReferenceRow, utc_now

_IDENTITIES: Final = cast(Table, IdentityRow.__table__)
_REFERENCES: Final = cast(Table, ReferenceRow.__table__)
_CROPS: Final = cast(Table, KeptImageRow.__table__)
_NAMES_AT_ONCE: Final = 10_000
"""Parameters of one statement; SQLite takes some 32,000."""
_SQLITE_CACHE_KIB: Final = 256 * 1024
"""An index of a million names does not fit the usual 2 MiB, and every insert would then read the disk."""


class BulkReference(NamedTuple):
    """A template to store. ``embedding`` is what ``records.to_bytes`` makes."""

    id: str
    model_digest: str
    embedding: bytes
    face: dict[str, Any] | None
    quality: dict[str, Any]
    created_at: datetime
    sample_id: str | None = None


class BulkIdentity(NamedTuple):
    """An identity to store; without metadata, that of an identity that is replaced stays."""

    name: str
    metadata: dict[str, Any] | None
    references: Sequence[BulkReference]


class ExportedReference(NamedTuple):
    """A reference with its identity, as an export needs it."""

    identity: str
    metadata: dict[str, Any]
    reference_id: str
    embedding: bytes
    face: dict[str, Any] | None
    quality: dict[str, Any]
    created_at: datetime


def prepare(session: Session) -> None:
    """Give the connection room for large indexes."""
    if _is_sqlite(session):
        session.connection().exec_driver_sql(f"PRAGMA cache_size = -{_SQLITE_CACHE_KIB}")


def ids_of(session: Session, collection: Collection, names: Sequence[str]) -> dict[str, int]:
    """Return the ids of those names that are enrolled."""
    found: dict[str, int] = {}
    for start in range(0, len(names), _NAMES_AT_ONCE):
        some = names[start : start + _NAMES_AT_ONCE]
        rows = session.execute(
            select(IdentityRow.name, IdentityRow.id).where(
                IdentityRow.collection_id == collection.id, IdentityRow.name.in_(some)
            )
        )
        found.update((name, number) for name, number in rows)
    return found


def add_all(
    session: Session,
    collection: Collection,
    revision: int,
    identities: Sequence[BulkIdentity],
) -> None:
    """Enrol identities that are not there, whose names differ from one another."""
    now = utc_now()
    numbers = _new_numbers(session, len(identities))
    _insert(
        session,
        _IDENTITIES,
        ("id", "collection_id", "name", "details", "revision", "created_at", "updated_at"),
        (
            (
                number,
                collection.id,
                identity.name,
                _text_of(identity.metadata or {}),
                revision,
                identity.references[0].created_at,
                now,
            )
            for number, identity in zip(numbers, identities, strict=True)
        ),
    )
    _add_references(session, zip(numbers, identities, strict=True))


def replace_all(session: Session, revision: int, identities: Mapping[int, BulkIdentity]) -> None:
    """Replace all references of identities, by their ids, and their metadata where some is given."""
    if not identities:
        return
    numbers = list(identities)
    connection = session.connection()
    for start in range(0, len(numbers), _NAMES_AT_ONCE):
        some = numbers[start : start + _NAMES_AT_ONCE]
        connection.execute(delete(_CROPS).where(_CROPS.c.identity_id.in_(some)))
        connection.execute(delete(_REFERENCES).where(_REFERENCES.c.identity_id.in_(some)))
        connection.execute(
            update(_IDENTITIES)
            .where(_IDENTITIES.c.id.in_(some))
            .values(revision=revision, updated_at=utc_now())
        )
    described = [
        {"number": number, "metadata": identity.metadata}
        for number, identity in identities.items()
        if identity.metadata is not None
    ]
    if described:
        statement = (
            update(_IDENTITIES)
            .where(_IDENTITIES.c.id == bindparam("number"))
            .values(details=bindparam("metadata"))
        )
        connection.execute(statement, described)
    _add_references(session, identities.items())


def count_exported(session: Session, collection: Collection) -> tuple[int, int]:
    """Return how many references the collection's model has made, and of how many identities it has none."""
    mine = _REFERENCES.c.model_digest == collection.model_digest
    joined = _REFERENCES.join(_IDENTITIES, _IDENTITIES.c.id == _REFERENCES.c.identity_id)
    here = _IDENTITIES.c.collection_id == collection.id
    references, described = session.execute(
        select(func.count(), func.count(_IDENTITIES.c.id.distinct())).select_from(joined).where(here, mine)
    ).one()
    every = session.scalar(select(func.count()).select_from(_IDENTITIES).where(here)) or 0
    return references, every - described


def pages(session: Session, collection: Collection, size: int) -> Iterator[list[ExportedReference]]:
    """Yield the references that the collection's model has made, in order of enrolment.

    Args:
        session: What they are read in; all pages are of one state of the store.
        collection: Whose they are.
        size: Identities of a page.
    """
    after = 0
    while True:
        last = session.scalar(
            select(func.max(text("id"))).select_from(
                select(_IDENTITIES.c.id)
                .where(_IDENTITIES.c.collection_id == collection.id, _IDENTITIES.c.id > after)
                .order_by(_IDENTITIES.c.id)
                .limit(size)
                .subquery()
            )
        )
        if last is None:
            return
        rows = session.execute(
            select(
                _IDENTITIES.c.name,
                _IDENTITIES.c.details,
                _REFERENCES.c.id,
                _REFERENCES.c.embedding,
                _REFERENCES.c.face,
                _REFERENCES.c.quality,
                _REFERENCES.c.created_at,
            )
            .join(_REFERENCES, _REFERENCES.c.identity_id == _IDENTITIES.c.id)
            .where(
                _IDENTITIES.c.collection_id == collection.id,
                _IDENTITIES.c.id > after,
                _IDENTITIES.c.id <= last,
                _REFERENCES.c.model_digest == collection.model_digest,
            )
            .order_by(_IDENTITIES.c.id, _REFERENCES.c.created_at, _REFERENCES.c.id)
        )
        yield [
            ExportedReference(name, details, number, bytes(embedding), face, quality, with_zone(made))
            for name, details, number, embedding, face, quality, made in rows
        ]
        after = last


def _add_references(session: Session, identities: Iterable[tuple[int, BulkIdentity]]) -> None:
    _insert(
        session,
        _REFERENCES,
        ("identity_id", *BulkReference._fields),
        (
            (
                number,
                reference.id,
                reference.model_digest,
                reference.embedding,
                _text_of(reference.face),
                _text_of(reference.quality),
                reference.created_at,
                reference.sample_id,
            )
            for number, identity in identities
            for reference in identity.references
        ),
    )


def _new_numbers(session: Session, count: int) -> list[int]:
    """Return ids for new identities: never given before, and not to be given to others."""
    if not count:
        return []
    if _is_sqlite(session):
        # The only writer, and what it inserts raises the sequence.
        last = session.scalar(text("SELECT seq FROM sqlite_sequence WHERE name = 'identities'")) or 0
        return list(range(last + 1, last + 1 + count))
    numbers = session.scalars(
        text("SELECT nextval(pg_get_serial_sequence('identities', 'id')) FROM generate_series(1, :count)"),
        {"count": count},
    )
    return sorted(numbers)


def _insert(session: Session, table: Table, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows of strings, numbers, bytes and moments in UTC; objects come as ``_text_of`` has them."""
    names = ", ".join(columns)
    if _is_sqlite(session):
        # As the types of the columns would have it, which take longer than the insert itself.
        moments = [number for number, name in enumerate(columns) if name.endswith("_at")]
        values = []
        for row in rows:
            value = list(row)
            for number in moments:
                value[number] = _sqlite_moment(value[number])
            values.append(tuple(value))
        marks = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - names of ours
        if values:
            session.connection().exec_driver_sql(statement, values)
        return
    driver = session.connection().connection.driver_connection
    assert driver is not None  # noqa: S101 - the session is open
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


@lru_cache(maxsize=1024)
def _sqlite_moment(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(" ", "microseconds")


def _text_of(value: dict[str, Any] | None) -> str:
    """Return the JSON that a column keeps; most are empty."""
    if value is None:
        return "null"
    return json.dumps(value) if value else "{}"


def _is_sqlite(session: Session) -> bool:
    return session.connection().dialect.name == "sqlite"
