"""SQL that galleries in memory are filled with and follow: many templates at once, as arrays.

Only templates by the collection's model count. During a change of model an identity may have none yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Numeric,
    String,
    Text,
    and_,
    case,
    cast,
    delete,
    false,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.storage.records import Collection
from app.storage.schema import CollectionRow, GallerySnapshotRow, IdentityRow, ReferenceRow, RemovalRow

BATCH = 20_000
"""Templates fetched at once."""

PRUNED_EACH: Final = 1_000
"""Revisions after which old removals are pruned again."""
REMOVALS_KEPT: Final = 100_000
"""Revisions back to which removals are kept; a gallery that is older is loaded anew."""

_ZERO: Final = r"(^|[^\\])(\\\\)*\\u0000"
"""A zero character in JSON text: its escape, after an even number of backslashes."""

Templates = tuple[NDArray[np.int64], NDArray[np.float32]]


def count(session: Session, collection: Collection, *, since: int = -1) -> int:
    """Return how many identities changed after a revision; all by default."""
    changed = select(func.count()).select_from(IdentityRow).where(*_changed(collection, since))
    return session.scalar(changed) or 0


def every(session: Session, collection: Collection, dimensions: int) -> Iterator[Templates]:
    """Yield all templates in batches: identity ids int64[n] and embeddings float32[n, D]."""
    rows = session.execute(
        select(IdentityRow.id, ReferenceRow.embedding)
        .join(ReferenceRow, ReferenceRow.identity_id == IdentityRow.id)
        .where(*_changed(collection, -1), ReferenceRow.model_digest == collection.model_digest)
        # One statement in a cursor of the server: pages by id would make it sort all ids for each.
        .execution_options(yield_per=BATCH)
    )
    for batch in rows.partitions():
        ids = np.fromiter((row[0] for row in batch), np.int64, len(batch))
        joined = b"".join([row[1] for row in batch])
        yield ids, np.frombuffer(joined, "<f4").reshape(len(batch), dimensions)


def changed_since(
    session: Session, collection: Collection, revision: int, dimensions: int
) -> dict[int, NDArray[np.float32]]:
    """Return all templates float32[R, D] of each identity that changed after a revision; R may be 0."""
    rows = session.execute(
        select(IdentityRow.id, ReferenceRow.embedding)
        .outerjoin(
            ReferenceRow,
            and_(
                ReferenceRow.identity_id == IdentityRow.id,
                ReferenceRow.model_digest == collection.model_digest,
            ),
        )
        .where(*_changed(collection, revision))
    )
    found: dict[int, list[bytes]] = {}
    for identity_id, embedding in rows:
        held = found.setdefault(identity_id, [])
        if embedding is not None:
            held.append(embedding)
    return {
        identity_id: np.frombuffer(b"".join(held), "<f4").reshape(len(held), dimensions)
        for identity_id, held in found.items()
    }


def _changed(collection: Collection, since: int) -> tuple[ColumnElement[bool], ...]:
    of_collection = IdentityRow.collection_id == collection.id
    return (of_collection,) if since < 0 else (of_collection, IdentityRow.revision > since)


def described(session: Session, ids: Sequence[int]) -> dict[int, tuple[str, dict[str, Any]]]:
    """Return name and metadata of identities by id; those that are gone are left out."""
    rows = session.execute(
        select(IdentityRow.id, IdentityRow.name, IdentityRow.details).where(IdentityRow.id.in_(ids))
    )
    return {identity_id: (name, dict(details)) for identity_id, name, details in rows}


def matching(session: Session, collection: Collection, metadata: dict[str, Any]) -> list[int]:
    """Return the ids of identities whose metadata has these values, each a string, number or boolean.

    PostgreSQL's functions refuse JSON with a zero character anywhere: such metadata matches nothing there.
    """
    conditions = [_equals(session, key, value) for key, value in metadata.items()]
    return list(
        session.scalars(select(IdentityRow.id).where(IdentityRow.collection_id == collection.id, *conditions))
    )


def _equals(session: Session, key: str, value: str | float | bool) -> ColumnElement[bool]:
    sqlite = session.get_bind().dialect.name == "sqlite"
    name = f"$.{json.dumps(key, ensure_ascii=False)}" if sqlite else key
    held = IdentityRow.details.op("->")(literal(name, String))
    if isinstance(value, str | bool):
        equal = cast(held, Text) == json.dumps(value)  # both stores keep the text as it was written
    elif sqlite:
        number = func.json_extract(IdentityRow.details, name)
        equal = and_(func.json_type(IdentityRow.details, name).in_(("integer", "real")), number == value)
    else:
        equal = case((func.json_typeof(held) == "number", cast(cast(held, Text), Numeric))) == value
    if sqlite:
        return equal
    readable = ~cast(IdentityRow.details, Text).op("~", is_comparison=True)(_ZERO)
    return case((readable, equal), else_=false())


def prune_removals(session: Session, collection: Collection, revision: int) -> None:
    """Forget removals so long ago that galleries had better be loaded anew; now and then.

    Args:
        session: Of the write that made the revision.
        collection: Where.
        revision: What the write has just made.
    """
    last = revision - REMOVALS_KEPT
    if revision % PRUNED_EACH or last <= 0:
        return
    session.execute(
        delete(RemovalRow).where(RemovalRow.collection_id == collection.id, RemovalRow.revision <= last)
    )
    session.execute(update(CollectionRow).where(CollectionRow.id == collection.id).values(removals_from=last))


# --- what proves that a snapshot file is of this store


def add_snapshot(session: Session, collection: Collection, revision: int, nonce: str) -> None:
    """Note that a snapshot of a revision is about to be used; those before it stay valid."""
    session.add(
        GallerySnapshotRow(
            nonce=nonce,
            collection_id=collection.id,
            model_digest=collection.model_digest,
            revision=revision,
        )
    )


def snapshot_revision(session: Session, collection: Collection, nonce: str) -> int | None:
    """Return the revision that a snapshot of the collection and its model was taken at, or None."""
    return session.scalar(
        select(GallerySnapshotRow.revision).where(
            GallerySnapshotRow.nonce == nonce,
            GallerySnapshotRow.collection_id == collection.id,
            GallerySnapshotRow.model_digest == collection.model_digest,
        )
    )


def known_snapshots(session: Session) -> set[str]:
    """Return the nonces of all snapshots of collections that are still there."""
    return set(session.scalars(select(GallerySnapshotRow.nonce)))


def forget_snapshot(session: Session, nonce: str) -> None:
    """Make a snapshot file invalid."""
    session.execute(delete(GallerySnapshotRow).where(GallerySnapshotRow.nonce == nonce))
