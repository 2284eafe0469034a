"""SQL of the evidence that was measured on a collection's own people.

A collection has one at most of each model that it has had templates of; the one of its model is named by its
own row, which every request reads anyway. Storing or removing it is no change of the collection's references,
so the revision stays.
"""

from __future__ import annotations

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.errors import CollectionNotFoundError, ModelMismatchError
from app.storage.identities import without
from app.storage.records import Collection, Measurement, StoredEvidence, with_zone
from app.storage.schema import CollectionRow, EvidenceRow, IdentityRow


def get(session: Session, collection: Collection) -> StoredEvidence | None:
    """Return the evidence in force of a collection; None where there is none, or the row is missing."""
    if collection.evidence_id is None:
        return None
    row = session.scalar(
        select(EvidenceRow).where(
            EvidenceRow.id == collection.evidence_id, EvidenceRow.collection_id == collection.id
        )
    )
    if row is None:
        return None
    measurement = Measurement(
        model_digest=row.model_digest,
        revision=row.revision,
        description=row.description,
        subjects=row.subjects,
        images=row.images,
        mated=row.mated,
        nonmated=row.nonmated,
    )
    return StoredEvidence(row.id, measurement, with_zone(row.created_at), row.trials)


def put(session: Session, collection: Collection, measurement: Measurement, trials: bytes) -> StoredEvidence:
    """Store evidence, put it in force in place of what was, and return it.

    Raises:
        CollectionNotFoundError: The collection was deleted meanwhile.
        ModelMismatchError: Its model was changed meanwhile.
    """
    digest, _ = _lock(session, collection)
    if digest != measurement.model_digest:
        raise ModelMismatchError(
            collection=collection.name, bound=f"({digest[:12]})", other="what was measured before it changed"
        )
    row = EvidenceRow(collection_id=collection.id, trials=trials, **vars(measurement))
    session.add(row)
    session.flush()
    session.execute(
        delete(EvidenceRow).where(
            EvidenceRow.collection_id == collection.id,
            EvidenceRow.model_digest == digest,
            EvidenceRow.id != row.id,
        )
    )
    _name(session, collection, row.id)
    return StoredEvidence(row.id, measurement, with_zone(row.created_at), trials)


def remove(session: Session, collection: Collection) -> bool:
    """Put the model bundle's evidence in force again; returns False where it is already.

    Raises:
        CollectionNotFoundError: The collection was deleted meanwhile.
    """
    digest, was = _lock(session, collection)
    remove_of(session, collection, digest)
    _name(session, collection, None)
    return was is not None


def remove_of(session: Session, collection: Collection, model_digest: str) -> None:
    """Delete the evidence on a collection's templates by one model."""
    session.execute(
        delete(EvidenceRow).where(
            EvidenceRow.collection_id == collection.id, EvidenceRow.model_digest == model_digest
        )
    )


def number_of(session: Session, collection: Collection, model_digest: str) -> int | None:
    """Return the number of the evidence on a collection's templates by one model, or None."""
    number: int | None = session.scalar(
        select(func.max(EvidenceRow.id)).where(
            EvidenceRow.collection_id == collection.id, EvidenceRow.model_digest == model_digest
        )
    )
    return number


def names(session: Session, collection: Collection) -> dict[str, int]:
    """Return the number of every identity that has a reference by the collection's model, in order."""
    rows = session.execute(
        select(IdentityRow.name, IdentityRow.id)
        .where(IdentityRow.collection_id == collection.id, ~without(collection.model_digest))
        .order_by(IdentityRow.id)
    )
    return dict(rows.all())


def _lock(session: Session, collection: Collection) -> tuple[str, int | None]:
    """Hold the collection's row until the transaction ends; returns its model and the evidence it names."""
    row = session.execute(
        select(CollectionRow.model_digest, CollectionRow.evidence_id)
        .where(CollectionRow.id == collection.id)
        .with_for_update()
    ).first()
    if row is None:
        raise CollectionNotFoundError(collection.name)
    digest, number = row
    return digest, number


def _name(session: Session, collection: Collection, number: int | None) -> None:
    session.execute(update(CollectionRow).where(CollectionRow.id == collection.id).values(evidence_id=number))
