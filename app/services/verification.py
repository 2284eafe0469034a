"""Decide whether two images, or an image and an enrolled identity, show the same subject (1:1)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model
from app.errors import ModelMismatchError
from app.matching.decision import is_match
from app.matching.distances import distance
from app.services.decisions import Criterion, Decision
from app.services.images import Images, Template
from app.services.models import Models
from app.services.own_evidence import OwnEvidence, OwnEvidences
from app.services.preconditions import ANY_STATE, AtLeast
from app.storage import collections, identities
from app.storage.database import Database, Session
from app.storage.records import Collection, GalleryEntry


@dataclass(frozen=True)
class Verification:
    """A decision with all that it rests on."""

    match: bool
    distance: float
    decision: Decision
    model: Model
    templates: list[Template]
    timings: Timings
    search_ms: float
    revision: int | None = None
    """Of the collection whose references were read; None where none was."""


class VerificationService:
    """The use case behind ``POST /verify``."""

    def __init__(self, database: Database, models: Models, images: Images, own: OwnEvidences) -> None:
        self._database = database
        self._models = models
        self._images = images
        self._own = own

    async def compare_images(
        self,
        pair: Sequence[ImageInput],
        *,
        model: str | None = None,
        criterion: Criterion,
        face: FaceChoice = "largest",
    ) -> Verification:
        """Compare two images.

        Raises:
            ModelNotFoundError: The model is not served here.
            ImageError: An image cannot be used; its field is named.
            InsufficientEvidenceError: The error rate asked for is not supported.
            BusyError: Too much is waiting.
        """
        return await compare_images(self._images, self._models.get(model), pair, criterion, face)

    async def compare_with_identity(
        self,
        image: ImageInput,
        identity: str,
        *,
        collection: str,
        model: str | None = None,
        criterion: Criterion,
        face: FaceChoice = "largest",
        at_least: AtLeast = ANY_STATE,
    ) -> Verification:
        """Compare an image with the nearest reference of an enrolled identity.

        A rate or a threshold is read from the collection's own evidence, where it has any that supports it.

        Raises:
            CollectionNotFoundError, IdentityNotFoundError: There is none of that name.
            RevisionNotReachedError: The store is behind.
            ModelMismatchError: The collection was made by another model than asked for.
            ImageError: The image cannot be used.
            InsufficientEvidenceError: The error rate asked for is not supported.
            BusyError: Too much is waiting.
        """
        started = time.perf_counter()
        found, own, references = await at_least.wait(
            lambda: self._database.read(_references, self._own, collection, identity, at_least)
        )
        search_ms = (time.perf_counter() - started) * 1e3
        chosen = self._models.of_collection(found, model)
        for reference in references:
            if reference.model_digest != chosen.digest:
                raise ModelMismatchError(
                    collection=collection,
                    bound=chosen.model_id,
                    other=f"a template of another model ({reference.model_digest[:12]})",
                )
        decision = criterion.decide(chosen, own)
        timings = Timings()
        (probe,) = await self._images.encode(chosen, [image], face, timings)
        metric = chosen.manifest.metric
        value = min(distance(probe.embedding, r.embedding, metric) for r in references)
        match = is_match(value, decision.point.threshold)
        return Verification(match, value, decision, chosen, [probe], timings, search_ms, found.revision)


async def compare_images(
    images: Images, model: Model, pair: Sequence[ImageInput], criterion: Criterion, face: FaceChoice
) -> Verification:
    """Compare two images with one model; needs no store. Raises as ``VerificationService.compare_images``."""
    decision = criterion.decide(model)
    timings = Timings()
    first, second = await images.encode(model, pair, face, timings)
    value = distance(first.embedding, second.embedding, model.manifest.metric)
    match = is_match(value, decision.point.threshold)
    return Verification(match, value, decision, model, [first, second], timings, 0.0)


def _references(
    session: Session, kept: OwnEvidences, name: str, identity: str, at_least: AtLeast
) -> tuple[Collection, OwnEvidence | None, list[GalleryEntry]]:
    collection = collections.get(session, name)
    at_least.check(name, collection.revision)
    references = identities.embeddings_of(session, collection, identity)
    return collection, kept.of(session, collection), references
