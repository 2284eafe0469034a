"""SQL of identities and their references. Callers raise the collection's revision first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import IdentityExistsError, IdentityNotFoundError
from app.storage.records import (
    Collection,
    GalleryEntry,
    Identity,
    NewReference,
    from_bytes,
    to_bytes,
    with_zone,
)
from app.storage.schema import IdentityRow, ReferenceRow, RemovalRow, utc_now

PAGE: Final = 20_000
"""Identities read by one statement when a gallery is loaded."""


def get(session: Session, collection: Collection, name: str) -> Identity:
    """Return an identity by name.

    Raises:
        IdentityNotFoundError: It is not enrolled in the collection.
    """
    found = _select(session, collection, IdentityRow.name == name, limit=1)
    if not found:
        raise IdentityNotFoundError(name, collection.name)
    return found[0]


def exists(session: Session, collection: Collection, name: str) -> bool:
    """Return whether an identity is enrolled."""
    query = select(IdentityRow.id).where(IdentityRow.collection_id == collection.id, IdentityRow.name == name)
    return session.scalar(query) is not None


def revision_of(session: Session, collection: Collection, name: str) -> int | None:
    """Return the revision at which an identity last changed; None where it is not enrolled."""
    query = select(IdentityRow.revision).where(
        IdentityRow.collection_id == collection.id, IdentityRow.name == name
    )
    return session.scalar(query)


def page(session: Session, collection: Collection, *, after: int, limit: int) -> list[Identity]:
    """Return identities with id above ``after``, in order of id: stable while others are written."""
    return _select(session, collection, IdentityRow.id > after, limit=limit)


def embeddings_of(session: Session, collection: Collection, name: str) -> list[GalleryEntry]:
    """Return the references of an identity.

    Raises:
        IdentityNotFoundError: It is not enrolled in the collection.
    """
    entries = _entries(session, collection, IdentityRow.name == name)
    if not entries:
        raise IdentityNotFoundError(name, collection.name)
    return entries


def add(
    session: Session,
    collection: Collection,
    revision: int,
    name: str,
    metadata: dict[str, Any],
    reference: NewReference,
) -> None:
    """Enrol a new identity with its first reference.

    Raises:
        IdentityExistsError: The name is taken.
    """
    row = IdentityRow(collection_id=collection.id, name=name, details=metadata, revision=revision)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise IdentityExistsError(name, collection.name) from error
    _add_reference(session, row.id, reference)


def replace(
    session: Session,
    collection: Collection,
    revision: int,
    name: str,
    metadata: dict[str, Any] | None,
    reference: NewReference,
) -> None:
    """Replace all references of an identity by one; metadata stays when None is given.

    Raises:
        IdentityNotFoundError: It is not enrolled in the collection.
    """
    identity = get(session, collection, name)
    session.execute(delete(ReferenceRow).where(ReferenceRow.identity_id == identity.id))
    _add_reference(session, identity.id, reference)
    change(session, collection, revision, name, new_name=None, metadata=metadata)


def change(
    session: Session,
    collection: Collection,
    revision: int,
    name: str,
    *,
    new_name: str | None,
    metadata: dict[str, Any] | None,
) -> None:
    """Rename an identity or replace its metadata; None leaves either as it is.

    Raises:
        IdentityNotFoundError: It is not enrolled in the collection.
        IdentityExistsError: The new name is taken.
    """
    values: dict[str, Any] = {"revision": revision, "updated_at": utc_now()}
    if new_name is not None:
        values["name"] = new_name
    if metadata is not None:
        values["details"] = metadata
    statement = (
        update(IdentityRow)
        .where(IdentityRow.collection_id == collection.id, IdentityRow.name == name)
        .values(values)
        .returning(IdentityRow.id)
        .execution_options(synchronize_session=False)
    )
    try:
        with session.begin_nested():
            touched = session.execute(statement).first()
    except IntegrityError as error:
        raise IdentityExistsError(new_name or name, collection.name) from error
    if touched is None:
        raise IdentityNotFoundError(name, collection.name)
    session.expire_all()


def remove(session: Session, collection: Collection, revision: int, name: str) -> None:
    """Delete an identity and its references, and note the removal for galleries in memory.

    Raises:
        IdentityNotFoundError: It is not enrolled in the collection.
    """
    gone = session.execute(
        delete(IdentityRow)
        .where(IdentityRow.collection_id == collection.id, IdentityRow.name == name)
        .returning(IdentityRow.id)
    ).first()
    if gone is None:
        raise IdentityNotFoundError(name, collection.name)
    session.add(RemovalRow(collection_id=collection.id, revision=revision, identity_id=gone[0]))


def removed_since(session: Session, collection: Collection, revision: int) -> list[int]:
    """Return the ids of identities removed after a revision."""
    return list(
        session.scalars(
            select(RemovalRow.identity_id).where(
                RemovalRow.collection_id == collection.id, RemovalRow.revision > revision
            )
        )
    )


def changed_since(session: Session, collection: Collection, revision: int) -> Iterator[GalleryEntry]:
    """Yield the references of identities added or changed after a revision.

    They are read in pages, so that no statement takes long and no more than a page is in memory twice.
    """
    after = 0
    while True:
        ids = list(
            session.scalars(
                select(IdentityRow.id)
                .where(
                    IdentityRow.collection_id == collection.id,
                    IdentityRow.revision > revision,
                    IdentityRow.id > after,
                )
                .order_by(IdentityRow.id)
                .limit(PAGE)
            )
        )
        if not ids:
            return
        yield from _entries(session, collection, IdentityRow.id.between(ids[0], ids[-1]))
        after = ids[-1]


def _select(session: Session, collection: Collection, condition: Any, *, limit: int) -> list[Identity]:  # noqa: ANN401
    references = (
        select(func.count())
        .select_from(ReferenceRow)
        .where(ReferenceRow.identity_id == IdentityRow.id)
        .scalar_subquery()
    )
    rows = session.execute(
        select(IdentityRow, references)
        .where(IdentityRow.collection_id == collection.id, condition)
        .order_by(IdentityRow.id)
        .limit(limit)
    )
    return [
        Identity(
            id=row.id,
            name=row.name,
            metadata=dict(row.details),
            references=count,
            revision=row.revision,
            created_at=with_zone(row.created_at),
            updated_at=with_zone(row.updated_at),
        )
        for row, count in rows
    ]


def _entries(session: Session, collection: Collection, condition: Any) -> list[GalleryEntry]:  # noqa: ANN401
    rows = session.execute(
        select(
            IdentityRow.id,
            IdentityRow.name,
            IdentityRow.details,
            ReferenceRow.model_digest,
            ReferenceRow.embedding,
        )
        .join(ReferenceRow, ReferenceRow.identity_id == IdentityRow.id)
        .where(IdentityRow.collection_id == collection.id, condition)
    )
    return [
        GalleryEntry(identity_id, name, dict(details), digest, from_bytes(embedding))
        for identity_id, name, details, digest, embedding in rows
    ]


def _add_reference(session: Session, identity_id: int, reference: NewReference) -> None:
    session.add(
        ReferenceRow(
            id=reference.id,
            identity_id=identity_id,
            model_digest=reference.model_digest,
            embedding=to_bytes(reference.embedding),
            face=reference.face,
            quality=reference.quality,
            sample_id=reference.sample_id,
        )
    )
