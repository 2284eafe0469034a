"""Enrol one reference photo for an identity."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model
from app.encoding.quality import QualityFloor
from app.errors import (
    CollectionNotFoundError,
    IdentityExistsError,
    ModelsChangedError,
    QualityTooLowError,
    TooManyReferencesError,
)
from app.services.catalogue import CollectionPolicy, ensure_default_collection
from app.services.idempotency import Keep, keep_nothing, kept
from app.services.images import Images, Template
from app.services.models import Models
from app.services.names import DEFAULT_COLLECTION
from app.services.preconditions import Unchanged
from app.services.templates import kept_image, references_of_photo
from app.storage import collections, identities, kept_images
from app.storage.database import Database, Session
from app.storage.records import Collection, KeptImage, NewReference

MODEL_CHANGES: Final = 3
"""How often a photo is looked at anew because the collection changed its model meanwhile."""


@dataclass(frozen=True)
class Enrolled:
    """An acknowledged enrolment: it is committed."""

    identity: str
    collection: str
    reference_id: str
    replaced: bool
    added: bool
    references: int
    revision: int
    model: Model
    template: Template
    timings: Timings


@dataclass(frozen=True)
class _Wish:
    """What is to become of the photo's template."""

    identity: str
    metadata: dict[str, Any] | None
    replace: bool
    add: bool
    unchanged: Unchanged | None


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
        add: bool = False,
        face: FaceChoice = "only",
        unchanged: Unchanged | None = None,
        keep: Keep[Enrolled] = keep_nothing,
    ) -> Enrolled:
        """Store the template of one photo; the photo itself is not kept.

        The photo is encoded before the transaction opens. Whoever enrols a name first wins; the other gets
        IdentityExistsError, unless it asked to replace or to add. During a change of model the templates of
        both models are stored, or neither.

        Raises:
            CollectionNotFoundError: There is none of that name.
            IdentityExistsError: The identity is enrolled; neither ``replace`` nor ``add`` is true.
            TooManyReferencesError: It has as many references as the collection allows.
            PreconditionFailedError: It is no longer what the photo is meant for.
            ImageError: The photo cannot be used.
            QualityTooLowError: It is below the collection's floor.
            ModelMismatchError, ModelNotServedError: A model of the collection is not served here.
            BusyError: Too much is waiting; nothing was stored.
        """
        wish = _Wish(identity, metadata, replace, add, unchanged)
        templates: dict[str, Template] = {}
        timings = Timings()
        for _ in range(MODEL_CHANGES):
            found = await self._opened(collection, wish)
            models = self._models.of_enrolment(found)
            for model in models:
                if model.digest not in templates:
                    (templates[model.digest],) = await self._images.encode(model, [image], face, timings)
            first = templates[models[0].digest]
            floor = floor_of(found, self._floor, faces=first.face is not None)
            shortfalls = floor.shortfalls(first.quality)
            if shortfalls:
                raise QualityTooLowError(shortfalls, field=image.field)
            references = references_of_photo([templates[model.digest] for model in models])
            crop = None
            if CollectionPolicy.model_validate(found.policy).keep_images == "aligned":
                crop = await asyncio.to_thread(kept_image, first, models[0], references[0].id)
            store = partial(_store, found=found, wish=wish, references=references, crop=crop)

            def stored(session: Session, store: Callable[[Session], _Stored] = store) -> Enrolled:
                done = store(session)
                template = templates[done.collection.model_digest]
                return Enrolled(
                    identity,
                    done.collection.name,
                    done.reference_id,
                    done.was_enrolled and replace,
                    done.was_enrolled and add,
                    done.references,
                    done.collection.revision,
                    self._models.of_collection(done.collection),
                    template,
                    timings,
                )

            with suppress(ModelsChangedError):
                return await self._database.write(kept(stored, keep))
        raise ModelsChangedError(collection)

    async def _opened(self, name: str, wish: _Wish) -> Collection:
        try:
            return await self._database.read(_open, name, wish)
        except CollectionNotFoundError:
            if name != DEFAULT_COLLECTION:
                raise
            return await self._database.write(ensure_default_collection, self._models.default)


def floor_of(collection: Collection, general: QualityFloor, *, faces: bool) -> QualityFloor:
    """Return the floor for photos of a collection: its own, and where it has none the service's.

    Args:
        collection: Its policy counts first.
        general: The service's. It is one for photographs: a thin 1 is nearly black, a character nearly white.
        faces: Whether the photo shows a face, so that the service's floor counts.
    """
    return CollectionPolicy.model_validate(collection.policy).floor(general if faces else QualityFloor())


@dataclass(frozen=True)
class _Stored:
    """What a transaction has stored, and the collection as it then is."""

    collection: Collection
    reference_id: str
    references: int
    was_enrolled: bool


def _open(session: Session, name: str, wish: _Wish) -> Collection:
    collection = collections.get(session, name)
    _admit(session, collection, wish)
    return collection


def _store(
    session: Session,
    *,
    found: Collection,
    wish: _Wish,
    references: Sequence[NewReference],
    crop: KeptImage | None,
) -> _Stored:
    collection = collections.advance(session, found)
    by_digest = {reference.model_digest: reference for reference in references}
    if not by_digest.keys() >= set(collection.digests):
        raise ModelsChangedError(collection.name)
    was_enrolled = _admit(session, collection, wish)
    stored = [by_digest[digest] for digest in collection.digests]
    revision, name, metadata = collection.revision, wish.identity, wish.metadata
    if not was_enrolled:
        identities.add(session, collection, revision, name, metadata or {}, *stored)
    elif wish.add:
        identities.extend(session, collection, revision, name, metadata, *stored)
    else:
        identities.replace(session, collection, revision, name, metadata, *stored)
    if crop is not None:
        kept_images.add(session, collection, wish.identity, crop)
    count = identities.get(session, collection, wish.identity).references
    return _Stored(collection, by_digest[collection.model_digest].id, count, was_enrolled)


def _admit(session: Session, collection: Collection, wish: _Wish) -> bool:
    """Return whether the identity is enrolled already, where it may be as the request has it."""
    if wish.unchanged is not None:
        wish.unchanged.check(wish.identity, identities.revision_of(session, collection, wish.identity))
    if not identities.exists(session, collection, wish.identity):
        return False
    if not wish.replace and not wish.add:
        raise IdentityExistsError(wish.identity, collection.name)
    most = CollectionPolicy.model_validate(collection.policy).max_references
    if wish.add and identities.get(session, collection, wish.identity).references >= most:
        raise TooManyReferencesError(wish.identity, collection.name, most)
    return True
