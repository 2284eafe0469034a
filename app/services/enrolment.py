"""Enrol one reference photo for an identity."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import Any

from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model
from app.encoding.quality import QualityFloor
from app.errors import CollectionNotFoundError, IdentityExistsError, QualityTooLowError
from app.services.catalogue import CollectionPolicy, ensure_default_collection
from app.services.idempotency import Keep, keep_nothing, kept
from app.services.images import Images, Template
from app.services.models import Models
from app.services.names import DEFAULT_COLLECTION
from app.services.preconditions import Unchanged
from app.services.views import face_fields
from app.storage import collections, identities
from app.storage.database import Database, Session
from app.storage.records import Collection, NewReference


@dataclass(frozen=True)
class Enrolled:
    """An acknowledged enrolment: it is committed."""

    identity: str
    collection: str
    reference_id: str
    replaced: bool
    revision: int
    model: Model
    template: Template
    timings: Timings


class Enrolment:
    """The use case behind ``POST /enroll``."""

    def __init__(self, database: Database, models: Models, images: Images, floor: QualityFloor) -> None:
        self._database = database
        self._models = models
        self._images = images
        self._floor = floor

    async def enrol(
        self,
        identity: str,
        image: ImageInput,
        *,
        collection: str = DEFAULT_COLLECTION,
        metadata: dict[str, Any] | None = None,
        replace: bool = False,
        face: FaceChoice = "only",
        unchanged: Unchanged | None = None,
        keep: Keep[Enrolled] = keep_nothing,
    ) -> Enrolled:
        """Store the template of one photo; the photo itself is not kept.

        The photo is encoded before the transaction opens. Whoever enrols a name first wins; the other gets
        IdentityExistsError, unless it asked to replace.

        Raises:
            CollectionNotFoundError: There is none of that name.
            IdentityExistsError: The identity is enrolled and ``replace`` is false.
            PreconditionFailedError: It is no longer what the photo is meant for.
            ImageError: The photo cannot be used.
            QualityTooLowError: It is below the collection's floor.
            BusyError: Too much is waiting; nothing was stored.
        """
        try:
            found = await self._database.read(_open, collection, identity, replace, unchanged)
        except CollectionNotFoundError:
            if collection != DEFAULT_COLLECTION:
                raise
            found = await self._database.write(ensure_default_collection, self._models.default)
        model = self._models.of_collection(found)
        timings = Timings()
        (template,) = await self._images.encode(model, [image], face, timings)
        floor = floor_of(found, self._floor, faces=template.face is not None)
        shortfalls = floor.shortfalls(template.quality)
        if shortfalls:
            raise QualityTooLowError(shortfalls, field=image.field)
        reference = NewReference(
            id=str(uuid.uuid4()),
            model_digest=template.model_digest,
            embedding=template.embedding,
            face=face_fields(template.face) if template.face else None,
            quality={k: v for k, v in asdict(template.quality).items() if v is not None},
        )

        def store(session: Session) -> Enrolled:
            revision, replaced = _store(session, found, identity, metadata, reference, replace, unchanged)
            return Enrolled(identity, found.name, reference.id, replaced, revision, model, template, timings)

        return await self._database.write(kept(store, keep))


def floor_of(collection: Collection, general: QualityFloor, *, faces: bool) -> QualityFloor:
    """Return the floor for photos of a collection: its own, and where it has none the service's.

    Args:
        collection: Its policy counts first.
        general: The service's. It is one for photographs: a thin 1 is nearly black, a character nearly white.
        faces: Whether the photo shows a face, so that the service's floor counts.
    """
    return CollectionPolicy.model_validate(collection.policy).floor(general if faces else QualityFloor())


def _open(
    session: Session, name: str, identity: str, replace: bool, unchanged: Unchanged | None
) -> Collection:
    collection = collections.get(session, name)
    if unchanged is not None:
        unchanged.check(identity, identities.revision_of(session, collection, identity))
    if not replace and identities.exists(session, collection, identity):
        raise IdentityExistsError(identity, collection.name)
    return collection


def _store(
    session: Session,
    collection: Collection,
    identity: str,
    metadata: dict[str, Any] | None,
    reference: NewReference,
    replace: bool,
    unchanged: Unchanged | None,
) -> tuple[int, bool]:
    revision = collections.next_revision(session, collection)
    if unchanged is not None:
        unchanged.check(identity, identities.revision_of(session, collection, identity))
    if replace and identities.exists(session, collection, identity):
        identities.replace(session, collection, revision, identity, metadata, reference)
        return revision, True
    identities.add(session, collection, revision, identity, metadata or {}, reference)
    return revision, False
