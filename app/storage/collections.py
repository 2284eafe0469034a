"""SQL of collections and their revisions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import CollectionExistsError, CollectionNotFoundError
from app.storage.records import Collection, with_zone
from app.storage.schema import CollectionRow, IdentityRow


def find(session: Session, name: str) -> Collection | None:
    """Return a collection by name, or None."""
    row = session.scalar(select(CollectionRow).where(CollectionRow.name == name))
    return None if row is None else _plain(row)


def get(session: Session, name: str) -> Collection:
    """Return a collection by name.

    Raises:
        CollectionNotFoundError: There is none of that name.
    """
    found = find(session, name)
    if found is None:
        raise CollectionNotFoundError(name)
    return found


def add(session: Session, name: str, model_id: str, model_digest: str, policy: dict[str, Any]) -> Collection:
    """Create a collection at revision 0.

    Raises:
        CollectionExistsError: The name is taken.
    """
    row = CollectionRow(name=name, model_id=model_id, model_digest=model_digest, policy=policy, revision=0)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise CollectionExistsError(name) from error
    return _plain(row)


def page(session: Session, *, after: int, limit: int) -> list[tuple[Collection, int]]:
    """Return collections with id above ``after`` in order of id, each with its number of identities."""
    size = (
        select(func.count())
        .select_from(IdentityRow)
        .where(IdentityRow.collection_id == CollectionRow.id)
        .scalar_subquery()
    )
    rows = session.execute(
        select(CollectionRow, size).where(CollectionRow.id > after).order_by(CollectionRow.id).limit(limit)
    )
    return [(_plain(row), count) for row, count in rows]


def count_identities(session: Session, collection_id: int) -> int:
    """Return how many identities a collection holds."""
    return (
        session.scalar(
            select(func.count()).select_from(IdentityRow).where(IdentityRow.collection_id == collection_id)
        )
        or 0
    )


def remove(session: Session, name: str) -> None:
    """Delete a collection with everything in it.

    Raises:
        CollectionNotFoundError: There is none of that name.
    """
    gone = session.execute(
        delete(CollectionRow).where(CollectionRow.name == name).returning(CollectionRow.id)
    )
    if gone.first() is None:
        raise CollectionNotFoundError(name)


def set_policy(session: Session, collection: Collection, policy: dict[str, Any]) -> None:
    """Replace a collection's policy; its revision stays, because what is enrolled stays."""
    session.execute(
        update(CollectionRow)
        .where(CollectionRow.id == collection.id)
        .values(policy=policy)
        .execution_options(synchronize_session=False)
    )


def hold(session: Session, name: str) -> Collection:
    """Return a collection that nobody else changes until the transaction ends.

    Raises:
        CollectionNotFoundError: There is none of that name.
    """
    # SQLite has one writer at a time anyway, and no such clause.
    row = session.scalar(select(CollectionRow).where(CollectionRow.name == name).with_for_update())
    if row is None:
        raise CollectionNotFoundError(name)
    return _plain(row)


def next_revision(session: Session, collection: Collection) -> int:
    """Raise the collection's revision by one and return it.

    The row stays locked until the transaction ends, so revisions become visible in their order.

    Raises:
        CollectionNotFoundError: It was deleted meanwhile.
    """
    revision: int | None = session.scalar(
        update(CollectionRow)
        .where(CollectionRow.id == collection.id)
        .values(revision=CollectionRow.revision + 1)
        .returning(CollectionRow.revision)
    )
    if revision is None:
        raise CollectionNotFoundError(collection.name)
    return revision


def advance(session: Session, collection: Collection) -> Collection:
    """Raise the collection's revision by one and return the collection as it then is; see ``next_revision``.

    What an earlier read said of its models and policy may have changed; from here on it does not.

    Raises:
        CollectionNotFoundError: It was deleted meanwhile.
    """
    next_revision(session, collection)
    row = session.scalar(
        select(CollectionRow)
        .where(CollectionRow.id == collection.id)
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise CollectionNotFoundError(collection.name)
    return _plain(row)


def _plain(row: CollectionRow) -> Collection:
    return Collection(
        id=row.id,
        name=row.name,
        model_id=row.model_id,
        model_digest=row.model_digest,
        policy=dict(row.policy),
        revision=row.revision,
        created_at=with_zone(row.created_at),
        evidence_id=row.evidence_id,
        removals_from=row.removals_from,
        other_model_id=row.other_model_id,
        other_model_digest=row.other_model_digest,
        migration=row.migration,
        migration_revision=row.migration_revision,
    )
