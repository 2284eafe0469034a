"""SQL of identities and their references. Callers raise the collection's revision first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import (
    IdentityExistsError,
    IdentityNotFoundError,
    LastReferenceError,
    ReferenceNotFoundError,
)
from app.storage import templates, vectors
from app.storage.records import (
    Collection,
    GalleryEntry,
    Identity,
    NewReference,
    Reference,
    from_bytes,
    to_bytes,
    with_zone,
)
from app.storage.schema import IdentityRow, KeptImageRow, ReferenceRow, RemovalRow, utc_now

SAMPLE: Final = func.coalesce(ReferenceRow.sample_id, ReferenceRow.id)
"""What templates that two models made of one photo have in common."""
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
    """Return the references of an identity, by whichever model: during a change of model there are two.

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
    *references: NewReference,
) -> None:
    """Enrol a new identity with its first reference: one template, or one by each of two models.

    Raises:
        IdentityExistsError: The name is taken.
    """
    row = IdentityRow(collection_id=collection.id, name=name, details=metadata, revision=revision)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise IdentityExistsError(name, collection.name) from error
    _add_references(session, row.id, references)
    vectors.follow(session, collection, revision)


def replace(
    session: Session,
    collection: Collection,
    revision: int,
    name: str,
    metadata: dict[str, Any] | None,
    *references: NewReference,
) -> None:
    """Replace all references of an identity by one photo's; metadata stays when None is given.

    Raises:
        IdentityNotFoundError: It is not enrolled in the collection.
    """
    identity = get(session, collection, name)
    session.execute(delete(KeptImageRow).where(KeptImageRow.identity_id == identity.id))
    session.execute(delete(ReferenceRow).where(ReferenceRow.identity_id == identity.id))
    _add_references(session, identity.id, references)
    change(session, collection, revision, name, new_name=None, metadata=metadata)


def extend(
    session: Session,
    collection: Collection,
    revision: int,
    name: str,
    metadata: dict[str, Any] | None,
    *references: NewReference,
) -> None:
    """Add one photo's references to those of an identity; metadata stays when None is given.

    Raises:
        IdentityNotFoundError: It is not enrolled in the collection.
    """
    identity = get(session, collection, name)
    _add_references(session, identity.id, references)
    change(session, collection, revision, name, new_name=None, metadata=metadata)


def references_of(session: Session, collection: Collection, name: str) -> list[Reference]:
    """Return what is known of an identity's references, oldest first.

    Raises:
        IdentityNotFoundError: It is not enrolled in the collection.
    """
    rows = session.execute(
        select(
            ReferenceRow.id,
            ReferenceRow.model_digest,
            SAMPLE,
            ReferenceRow.face,
            ReferenceRow.quality,
            ReferenceRow.created_at,
        )
        .join(IdentityRow, ReferenceRow.identity_id == IdentityRow.id)
        .where(IdentityRow.collection_id == collection.id, IdentityRow.name == name)
        .order_by(ReferenceRow.created_at, ReferenceRow.id)
    )
    found = [
        Reference(number, digest, sample, face, dict(quality), with_zone(created_at))
        for number, digest, sample, face, quality, created_at in rows
    ]
    if not found:
        raise IdentityNotFoundError(name, collection.name)
    return found


def remove_reference(
    session: Session, collection: Collection, revision: int, name: str, reference_id: str
) -> None:
    """Remove one photo of an identity: its templates by every model, and the photo's crop where it is kept.

    Raises:
        IdentityNotFoundError: It is not enrolled in the collection.
        ReferenceNotFoundError: It has no such reference.
        LastReferenceError: It has no other by the collection's model.
    """
    found = references_of(session, collection, name)
    sample = next((one.sample for one in found if one.id == reference_id), None)
    if sample is None:
        raise ReferenceNotFoundError(reference_id, name)
    # Where there is none by the collection's model, one by the model before it must stay.
    of_model = [one for one in found if one.model_digest == collection.model_digest] or found
    if all(one.sample == sample for one in of_model):
        raise LastReferenceError(name, collection.name)
    gone = [one.id for one in found if one.sample == sample]
    session.execute(delete(KeptImageRow).where(KeptImageRow.sample_id == sample))
    session.execute(delete(ReferenceRow).where(ReferenceRow.id.in_(gone)))
    change(session, collection, revision, name, new_name=None, metadata=None)


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
    vectors.follow(session, collection, revision)


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
    templates.prune_removals(session, collection, revision)
    vectors.follow(session, collection, revision)


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
    """Yield the references of identities added or changed after a revision: all that the collection's model
    made. An identity that has none, as during a change of model, is not among them.

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
        yield from _entries(
            session,
            collection,
            IdentityRow.id.between(ids[0], ids[-1]) & (ReferenceRow.model_digest == collection.model_digest),
        )
        after = ids[-1]


def without(model_digest: str) -> ColumnElement[bool]:
    """Return the condition that an identity has no reference by a model."""
    made = select(ReferenceRow.id).where(
        ReferenceRow.identity_id == IdentityRow.id, ReferenceRow.model_digest == model_digest
    )
    return ~made.exists()


def _select(session: Session, collection: Collection, condition: Any, *, limit: int) -> list[Identity]:  # noqa: ANN401
    every = select(func.count()).select_from(ReferenceRow).where(ReferenceRow.identity_id == IdentityRow.id)
    # A photo counts once where two models made its templates, and also before the collection's has made one.
    by_model = every.where(ReferenceRow.model_digest == collection.model_digest)
    references = func.coalesce(func.nullif(by_model.scalar_subquery(), 0), every.scalar_subquery())
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


def _add_references(session: Session, identity_id: int, references: Sequence[NewReference]) -> None:
    session.add_all(
        ReferenceRow(
            id=reference.id,
            identity_id=identity_id,
            model_digest=reference.model_digest,
            embedding=to_bytes(reference.embedding),
            face=reference.face,
            quality=reference.quality,
            sample_id=reference.sample_id,
        )
        for reference in references
    )
