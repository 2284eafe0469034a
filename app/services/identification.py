"""Find who of those enrolled an image shows (1:N)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model
from app.errors import CollectionNotFoundError
from app.matching.decision import is_match
from app.services.decisions import Criterion, Decision
from app.services.galleries import Candidate, Galleries, SearchResult
from app.services.images import Images, Template
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
    ) -> Identification:
        """Search a collection for the identities nearest to an image.

        The threshold is taken for the gallery's size at the revision that was searched, from the collection's
        own evidence where it has any that supports what is asked.

        Raises:
            CollectionNotFoundError: There is none of that name.
            RevisionNotReachedError: The store is behind.
            ModelMismatchError: The collection's model is not served here.
            ImageError: The image cannot be used.
            InsufficientEvidenceError: The error rate asked for is not supported at this size.
            BusyError: Too much is waiting.
        """
        try:
            found, own = await at_least.wait(
                lambda: self._database.read(_opened, self._own, collection, at_least)
            )
        except CollectionNotFoundError:
            self._galleries.forget(collection)
            raise
        model = self._models.of_collection(found)
        criterion.decide(model, own)
        timings = Timings()
        (probe,) = await self._images.encode(model, [image], face, timings)
        started = time.perf_counter()

        async def search() -> SearchResult:
            # Behind one address may be several replicas, and this one not the one that was asked above.
            result = await self._galleries.search(collection, probe.embedding, model, top_k)
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
            getattr(result, "exact", True),
            getattr(result, "recall", None),
        )


def _opened(
    session: Session, kept: OwnEvidences, name: str, at_least: AtLeast
) -> tuple[Collection, OwnEvidence | None]:
    collection = collections.get(session, name)
    at_least.check(name, collection.revision)
    return collection, kept.of(session, collection)
