"""Enrol one reference photo for an identity, or one each for many."""

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
    ImageError,
    ModelsChangedError,
    QualityTooLowError,
    TooManyReferencesError,
    VisavisError,
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
class Enrolee:
    """One of many that are to be enrolled at once."""

    identity: str
    image: ImageInput
    metadata: dict[str, Any] | None = None
    replace: bool = False
    add: bool = False


@dataclass(frozen=True)
class EnrolledOne:
    """One of many, which is committed."""

    identity: str
    reference_id: str
    replaced: bool
    added: bool
    revision: int


@dataclass(frozen=True)
class Refused:
    """One of many, of which nothing was stored."""

    identity: str
    error: VisavisError


@dataclass(frozen=True)
class EnrolledAll:
    """What became of many, in their order.

    Attributes:
        collection: Its name.
        revision: The collection's after all of them.
        model: The collection's.
        results: One for each.
        timings: Of all photos together.
    """

    collection: str
    revision: int
    model: Model
    results: list[EnrolledOne | Refused]
    timings: Timings


@dataclass(frozen=True)
class _Photo:
    """What is stored of a photo: a template by each model, and the crop where it is kept."""

    references: list[NewReference]
    crop: KeptImage | None


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
            photo = await self._encoded(found, models, image, face, templates, timings)
            store = partial(_store, found=found, wish=wish, photo=photo)

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

    async def enrol_all(
        self,
        items: Sequence[Enrolee],
        *,
        collection: str = DEFAULT_COLLECTION,
        face: FaceChoice = "only",
        keep: Keep[EnrolledAll] = keep_nothing,
    ) -> EnrolledAll:
        """Store the templates of many photos, one an identity; a photo that is refused spoils no other.

        All that are accepted are committed in one transaction, each with a revision of its own, in their
        order: the answer to the whole is kept with them, or none of them is there.

        Raises:
            CollectionNotFoundError: There is none of that name.
            ModelMismatchError, ModelNotServedError: A model of the collection is not served here.
            BusyError: Too much is waiting; nothing was stored.
        """
        wishes = [_Wish(item.identity, item.metadata, item.replace, item.add, None) for item in items]
        templates: list[dict[str, Template]] = [{} for _ in items]
        timings = Timings()
        for _ in range(MODEL_CHANGES):
            found = await self._opened(collection)
            models = self._models.of_enrolment(found)
            refused = await self._database.read(_refusals, found, wishes)
            places = asyncio.Semaphore(self._images.threads)

            async def encoded(
                number: int,
                found: Collection = found,
                models: Sequence[Model] = models,
                places: asyncio.Semaphore = places,
            ) -> _Photo | VisavisError:
                async with places:  # no more than one request of its own would take
                    try:
                        image = items[number].image
                        return await self._encoded(found, models, image, face, templates[number], timings)
                    except ImageError as error:
                        return error

            outcomes: dict[int, _Photo | VisavisError] = dict(refused)
            left = [number for number in range(len(items)) if number not in refused]
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = {number: group.create_task(encoded(number)) for number in left}
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
            outcomes |= {number: task.result() for number, task in tasks.items()}

            def stored(
                session: Session,
                found: Collection = found,
                outcomes: dict[int, _Photo | VisavisError] = outcomes,
            ) -> EnrolledAll:
                results = [
                    _stored_or_refused(session, found, wish, outcomes[number])
                    for number, wish in enumerate(wishes)
                ]
                after = collections.get(session, found.name)
                model = self._models.of_collection(after)
                return EnrolledAll(after.name, after.revision, model, results, timings)

            with suppress(ModelsChangedError):
                return await self._database.write(kept(stored, keep))
        raise ModelsChangedError(collection)

    async def _encoded(
        self,
        found: Collection,
        models: Sequence[Model],
        image: ImageInput,
        face: FaceChoice,
        templates: dict[str, Template],
        timings: Timings,
    ) -> _Photo:
        """Make what is missing of a photo's templates, and return what is stored of it.

        Raises:
            ImageError: The photo cannot be used.
            QualityTooLowError: It is below the collection's floor.
        """
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
        return _Photo(references, crop)

    async def _opened(self, name: str, wish: _Wish | None = None) -> Collection:
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


def _open(session: Session, name: str, wish: _Wish | None) -> Collection:
    collection = collections.get(session, name)
    if wish is not None:
        _admit(session, collection, wish)
    return collection


def _refusals(session: Session, collection: Collection, wishes: Sequence[_Wish]) -> dict[int, VisavisError]:
    """Return what is refused by what is enrolled, so that its photos need not be looked at."""
    refused: dict[int, VisavisError] = {}
    for number, wish in enumerate(wishes):
        try:
            _admit(session, collection, wish)
        except (IdentityExistsError, TooManyReferencesError) as error:
            refused[number] = error
    return refused


def _stored_or_refused(
    session: Session, found: Collection, wish: _Wish, photo: _Photo | VisavisError
) -> EnrolledOne | Refused:
    if isinstance(photo, VisavisError):
        return Refused(wish.identity, photo)
    try:
        with session.begin_nested():  # what is refused raises no revision either
            done = _store(session, found=found, wish=wish, photo=photo)
    except (IdentityExistsError, TooManyReferencesError) as error:
        return Refused(wish.identity, error)
    replaced, added = done.was_enrolled and wish.replace, done.was_enrolled and wish.add
    return EnrolledOne(wish.identity, done.reference_id, replaced, added, done.collection.revision)


def _store(
    session: Session,
    *,
    found: Collection,
    wish: _Wish,
    photo: _Photo,
) -> _Stored:
    collection = collections.advance(session, found)
    by_digest = {reference.model_digest: reference for reference in photo.references}
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
    if photo.crop is not None:
        kept_images.add(session, collection, wish.identity, photo.crop)
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
