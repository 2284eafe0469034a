"""SQL of a collection's change of model: its steps, and the templates that the second model still lacks.

During the change a collection names two models. Templates carry the digest of theirs, and those of one photo
share its sample, so that nothing is overwritten: the switch is a change of the collection's own row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from app.storage import evidence, vectors
from app.storage.identities import SAMPLE, without
from app.storage.records import Collection, NewReference, from_bytes, to_bytes
from app.storage.schema import CollectionRow, IdentityRow, KeptImageRow, ReferenceRow, utc_now

PAGE: Final = 2_000
"""Identities whose templates one statement deletes."""


@dataclass(frozen=True)
class Unpaired:
    """A template whose photo has none by the wanted model yet.

    Attributes:
        reference_id: The template.
        identity_id: Whose.
        identity: The same, by name.
        sample: The photo.
        embedding: float32[D], by the model that has made it.
        face: As stored.
        quality: As stored.
        image: PNG of the crop, where it is kept.
    """

    reference_id: str
    identity_id: int
    identity: str
    sample: str
    embedding: NDArray[np.float32]
    face: dict[str, Any] | None
    quality: dict[str, Any]
    image: bytes | None


@dataclass(frozen=True)
class Second:
    """A template by the wanted model, to be added beside the one that it was made for."""

    beside: Unpaired
    reference: NewReference


def begin(session: Session, collection: Collection, model_id: str, model_digest: str) -> Collection:
    """Name a second model. The caller holds the collection, as ``collections.advance`` returned it."""
    return _set(
        session,
        collection,
        other_model_id=model_id,
        other_model_digest=model_digest,
        migration="filling",
    )


def swap(session: Session, collection: Collection, state: str) -> Collection:
    """Let the two models change places, each with its own evidence. The caller holds the collection."""
    assert collection.other_model_digest is not None  # noqa: S101 - the caller looked
    return _set(
        session,
        collection,
        model_id=collection.other_model_id,
        model_digest=collection.other_model_digest,
        other_model_id=collection.model_id,
        other_model_digest=collection.model_digest,
        migration=state,
        evidence_id=evidence.number_of(session, collection, collection.other_model_digest),
    )


def finishing(session: Session, collection: Collection) -> Collection:
    """Let the second model's templates count no longer. The caller holds the collection."""
    return _set(session, collection, migration="finishing")


def end(session: Session, collection: Collection) -> Collection:
    """Forget the second model and the evidence on its templates. The caller holds the collection."""
    if collection.other_model_digest is not None:
        evidence.remove_of(session, collection, collection.other_model_digest)
    return _set(session, collection, other_model_id=None, other_model_digest=None, migration=None)


def count_pending(session: Session, collection: Collection, model_digest: str) -> int:
    """Return how many identities have no template by a model."""
    query = (
        select(func.count())
        .select_from(IdentityRow)
        .where(IdentityRow.collection_id == collection.id, without(model_digest))
    )
    return session.scalar(query) or 0


def pending(
    session: Session, collection: Collection, model_digest: str, *, after: int, limit: int
) -> list[tuple[int, str]]:
    """Return id and name of identities that have no template by a model, in order of id."""
    rows = session.execute(
        select(IdentityRow.id, IdentityRow.name)
        .where(IdentityRow.collection_id == collection.id, IdentityRow.id > after, without(model_digest))
        .order_by(IdentityRow.id)
        .limit(limit)
    )
    return [(number, name) for number, name in rows]


def unpaired(
    session: Session, collection: Collection, *, made: str, wanted: str, after: int, limit: int
) -> tuple[list[Unpaired], list[int]]:
    """Return templates of some identities whose photos have none by the wanted model.

    An identity that has as many templates by the wanted model as by the other, though of other photos, is
    complete.

    Args:
        session: What they are read in.
        collection: Whose.
        made: Digest of the model that has made them.
        wanted: Digest of the model that lacks them.
        after: Identities with an id above it are looked at.
        limit: So many identities.

    Returns:
        The templates, and the identities that were looked at, in order of id; none at the end.
    """
    ids = list(
        session.scalars(
            select(IdentityRow.id)
            .where(IdentityRow.collection_id == collection.id, IdentityRow.id > after)
            .order_by(IdentityRow.id)
            .limit(limit)
        )
    )
    if not ids:
        return [], []
    second = aliased(ReferenceRow)
    of_photo = select(second.id).where(
        second.identity_id == ReferenceRow.identity_id,
        second.model_digest == wanted,
        func.coalesce(second.sample_id, second.id) == SAMPLE,
    )
    rows = session.execute(
        select(
            ReferenceRow.id,
            IdentityRow.id,
            IdentityRow.name,
            SAMPLE,
            ReferenceRow.embedding,
            ReferenceRow.face,
            ReferenceRow.quality,
            KeptImageRow.image,
        )
        .join(IdentityRow, ReferenceRow.identity_id == IdentityRow.id)
        .outerjoin(KeptImageRow, KeptImageRow.sample_id == SAMPLE)
        .where(
            IdentityRow.collection_id == collection.id,
            IdentityRow.id.between(ids[0], ids[-1]),
            ReferenceRow.model_digest == made,
            ~of_photo.exists(),
        )
        .order_by(IdentityRow.id, ReferenceRow.created_at, ReferenceRow.id)
    )
    room = _room(session, ids[0], ids[-1], made=made, wanted=wanted)
    found = []
    for number, identity_id, name, sample, embedding, face, quality, image in rows:
        if room.get(identity_id, 0) > 0:
            room[identity_id] -= 1
            found.append(
                Unpaired(number, identity_id, name, sample, from_bytes(embedding), face, dict(quality), image)
            )
    return found, ids


def add_seconds(
    session: Session, collection: Collection, *, made: str, wanted: str, seconds: Sequence[Second]
) -> int:
    """Store templates beside those that they were made for, and return how many.

    One is passed over when the other was removed meanwhile, or somebody else has made it. The caller holds
    the collection, whose revision becomes that of each identity: galleries in memory follow it.
    """
    if not seconds:
        return 0
    ids = [second.beside.identity_id for second in seconds]
    there = set(
        session.scalars(
            select(ReferenceRow.id).where(ReferenceRow.id.in_([one.beside.reference_id for one in seconds]))
        )
    )
    done = set(
        session.scalars(
            select(SAMPLE).where(ReferenceRow.identity_id.in_(ids), ReferenceRow.model_digest == wanted)
        )
    )
    room = _room(session, min(ids), max(ids), made=made, wanted=wanted)
    rows: list[dict[str, Any]] = []
    touched: set[int] = set()
    for second in seconds:
        beside, new = second.beside, second.reference
        if beside.reference_id not in there or beside.sample in done or room[beside.identity_id] < 1:
            continue
        room[beside.identity_id] -= 1
        done.add(beside.sample)
        touched.add(beside.identity_id)
        rows.append(
            {
                "id": new.id,
                "identity_id": beside.identity_id,
                "model_digest": new.model_digest,
                "embedding": to_bytes(new.embedding),
                "face": new.face,
                "quality": new.quality,
                "created_at": utc_now(),
                "sample_id": new.sample_id,
            }
        )
    if rows:
        session.execute(insert(ReferenceRow), rows)
        session.execute(
            update(IdentityRow)
            .where(IdentityRow.id.in_(touched))
            .values(revision=collection.revision)
            .execution_options(synchronize_session=False)
        )
    vectors.follow(session, collection, collection.revision)
    return len(rows)


def drop_templates(session: Session, collection: Collection, *, but: str, after: int) -> int | None:
    """Delete the templates of some identities by every model but one. The caller holds the collection.

    Its revision becomes that of the identities: a gallery in memory of the model that is left would otherwise
    have them still, should the collection come back to that model.

    Returns:
        The last identity that was looked at; None at the end.
    """
    ids = list(
        session.scalars(
            select(IdentityRow.id)
            .where(IdentityRow.collection_id == collection.id, IdentityRow.id > after)
            .order_by(IdentityRow.id)
            .limit(PAGE)
        )
    )
    if not ids:
        return None
    gone = session.scalars(
        delete(ReferenceRow)
        .where(ReferenceRow.identity_id.in_(ids), ReferenceRow.model_digest != but)
        .returning(ReferenceRow.identity_id)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(IdentityRow)
        .where(IdentityRow.id.in_(set(gone)))
        .values(revision=collection.revision)
        .execution_options(synchronize_session=False)
    )
    vectors.follow(session, collection, collection.revision)
    return ids[-1]


def _room(session: Session, first: int, last: int, *, made: str, wanted: str) -> dict[int, int]:
    """Return how many templates each identity has by the one model more than by the other."""
    room: dict[int, int] = {}
    rows = session.execute(
        select(ReferenceRow.identity_id, ReferenceRow.model_digest, func.count())
        .where(ReferenceRow.identity_id.between(first, last), ReferenceRow.model_digest.in_([made, wanted]))
        .group_by(ReferenceRow.identity_id, ReferenceRow.model_digest)
    )
    for identity_id, digest, count in rows:
        room[identity_id] = room.get(identity_id, 0) + (count if digest == made else -count)
    return room


def _set(session: Session, collection: Collection, **values: Any) -> Collection:  # noqa: ANN401 - of columns
    values["migration_revision"] = collection.revision
    session.execute(
        update(CollectionRow)
        .where(CollectionRow.id == collection.id)
        .values(values)
        .execution_options(synchronize_session=False)
    )
    vectors.follow(session, collection, collection.revision)
    return replace(collection, **values)
