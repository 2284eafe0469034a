"""Find who of those enrolled an image shows (1:N)."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model
from app.errors import CollectionNotFoundError, ModelMismatchError, ModelsChangedError
from app.matching.decision import is_match
from app.services.decisions import Criterion, Decision
from app.services.enrolment import MODEL_CHANGES
from app.services.galleries import Candidate, Galleries, SearchResult
from app.services.images import Images, Template
from app.services.model_migration import PendingCounts
from app.services.models import Models
from app.services.own_evidence import OwnEvidence, OwnEvidences
from app.services.pgvector_search import PgvectorSearch
from app.services.preconditions import ANY_STATE, AtLeast
from app.storage import collections
from app.storage.database import Database, Session
from app.storage.records import Collection


@dataclass(frozen=True)
class Identification:
    """The nearest identities and whether the first is a match."""

    match: bool
    candidates: list[tuple[Candidate, bool]]
    gallery_size: int
    revision: int
    decision: Decision
    model: Model
    template: Template
    timings: Timings
    search_ms: float
    exact: bool = True
    recall: float | None = None
    pending: int = 0
    """Identities that no search finds yet, because the collection's model has no template of them."""


class IdentificationService:
    """The use case behind ``POST /identify``."""

    def __init__(
        self,
        database: Database,
        models: Models,
        images: Images,
        galleries: Galleries | PgvectorSearch,
        own: OwnEvidences,
    ) -> None:
        self._pending = PendingCounts()
        self._database = database
        self._models = models
        self._images = images
        self._galleries = galleries
        self._own = own

    async def identify(
        self,
        image: ImageInput,
        *,
        collection: str,
        top_k: int = 5,
        criterion: Criterion,
        face: FaceChoice = "largest",
        at_least: AtLeast = ANY_STATE,
        where: dict[str, Any] | None = None,
    ) -> Identification:
        """Search a collection for the identities nearest to an image.

        When the collection changes its model meanwhile, the image is encoded by the new one and searched for
        again. The threshold is taken for the gallery's size at the revision that was searched, from the
        collection's own evidence where it has any that supports what is asked. With ``where``, only
        identities whose metadata has these values are searched, and theirs is the gallery's size.

        Raises:
            CollectionNotFoundError: There is none of that name.
            RevisionNotReachedError: The store is behind.
            ModelMismatchError: The collection's model is not served here.
            ImageError: The image cannot be used.
            InsufficientEvidenceError: The error rate asked for is not supported at this size.
            BusyError: Too much is waiting.
        """
        timings = Timings()
        for _ in range(MODEL_CHANGES):
            with suppress(ModelsChangedError):
                return await self._identify(
                    image, collection, top_k, criterion, face, at_least, where, timings
                )
        raise ModelsChangedError(collection)

    async def _identify(
        self,
        image: ImageInput,
        collection: str,
        top_k: int,
        criterion: Criterion,
        face: FaceChoice,
        at_least: AtLeast,
        where: dict[str, Any] | None,
        timings: Timings,
    ) -> Identification:
        try:
            found, own, pending = await at_least.wait(
                lambda: self._database.read(_opened, self._own, self._pending, collection, at_least)
            )
        except CollectionNotFoundError:
            self._galleries.forget(collection)
            raise
        model = self._models.of_collection(found)
        criterion.decide(model, own)
        (probe,) = await self._images.encode(model, [image], face, timings)
        started = time.perf_counter()

        async def search() -> SearchResult:
            # Behind one address may be several replicas, and this one not the one that was asked above.
            try:
                result = await self._galleries.search(collection, probe.embedding, model, top_k, where=where)
            except ModelMismatchError as error:
                raise ModelsChangedError(collection) from error
            at_least.check(collection, result.revision)
            return result

        result = await at_least.wait(search)
        search_ms = (time.perf_counter() - started) * 1e3
        decision = criterion.decide(model, own, gallery_size=result.gallery_size)
        threshold = decision.point.threshold
        candidates = [(c, is_match(c.distance, threshold)) for c in result.candidates]
        return Identification(
            any(matched for _, matched in candidates),
            candidates,
            result.gallery_size,
            result.revision,
            decision,
            model,
            probe,
            timings,
            search_ms,
            result.exact,
            result.recall,
            pending,
        )


def _opened(
    session: Session, kept: OwnEvidences, counts: PendingCounts, name: str, at_least: AtLeast
) -> tuple[Collection, OwnEvidence | None, int]:
    collection = collections.get(session, name)
    at_least.check(name, collection.revision)
    return collection, kept.of(session, collection), counts.of(session, collection)
