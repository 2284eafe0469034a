"""Decide whether two images, or an image and an enrolled identity, show the same subject (1:1)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model
from app.errors import InvalidRequestError, ModelMismatchError, ModelNotServedError
from app.matching.decision import is_match
from app.matching.distances import distance
from app.services.confirmation import Confirmation
from app.services.decisions import Criterion, Decision
from app.services.images import Images, Template
from app.services.models import Models
from app.services.own_evidence import OwnEvidence, OwnEvidences
from app.services.preconditions import ANY_STATE, AtLeast
from app.storage import collections, identities
from app.storage.database import Database, Session
from app.storage.records import Collection


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
    learnt: bool = False
    """Whether the photo became the identity's reference by the second model, during a change of model."""


@dataclass(frozen=True)
class _Claim:
    """What is stored of an identity, in one state of the store.

    Attributes:
        collection: Where it is enrolled.
        own: The collection's own evidence.
        embeddings: Of its references, by the digest of the model that made them.
        revision: The identity's, during a change of model.
    """

    collection: Collection
    own: OwnEvidence | None
    embeddings: Mapping[str, Sequence[NDArray[np.float32]]]
    revision: int | None


class VerificationService:
    """The use case behind ``POST /verify``."""

    def __init__(
        self,
        database: Database,
        models: Models,
        images: Images,
        own: OwnEvidences,
        confirmation: Confirmation,
    ) -> None:
        self._database = database
        self._models = models
        self._images = images
        self._own = own
        self._confirmation = confirmation

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
        During a change of model, an identity that only the second model knows is compared by that one.

        Raises:
            CollectionNotFoundError, IdentityNotFoundError: There is none of that name.
            RevisionNotReachedError: The store is behind.
            ModelMismatchError, ModelNotServedError: The identity has no template by the model asked for, or
                its model is not served here.
            InvalidRequestError: The threshold is meant for a model that does not know the identity.
            ImageError: The image cannot be used.
            InsufficientEvidenceError: The error rate asked for is not supported.
            BusyError: Too much is waiting.
        """
        started = time.perf_counter()
        claim = await at_least.wait(
            lambda: self._database.read(_claim, self._own, collection, identity, at_least)
        )
        search_ms = (time.perf_counter() - started) * 1e3
        chosen = self._model_for(claim, model, criterion)
        found = claim.collection
        decision = criterion.decide(chosen, claim.own if chosen.digest == found.model_digest else None)
        timings = Timings()
        (probe,) = await self._images.encode(chosen, [image], face, timings)
        metric = chosen.manifest.metric
        value = min(distance(probe.embedding, e, metric) for e in claim.embeddings[chosen.digest])
        match = is_match(value, decision.point.threshold)
        learnt = match and await self._confirmation.confirm(
            image,
            face,
            identity,
            collection=found,
            revision=claim.revision,
            known_by=claim.embeddings.keys(),
            model=chosen,
            distance=value,
        )
        return Verification(
            match, value, decision, chosen, [probe], timings, search_ms, found.revision, learnt
        )

    def _model_for(self, claim: _Claim, asked: str | None, criterion: Criterion) -> Model:
        """Return the model to compare with: the collection's, or the second where only that knows them."""
        found = claim.collection
        for digest in found.digests[1:]:
            unknown_to_first = asked is None and found.model_digest not in claim.embeddings
            if digest in claim.embeddings and (unknown_to_first or asked == found.other_model_id):
                return self._second(found, digest, asked, criterion)
        chosen = self._models.of_collection(found, asked)
        if chosen.digest not in claim.embeddings:
            raise ModelMismatchError(
                collection=found.name,
                bound=chosen.model_id,
                other=f"a template of another model ({', '.join(d[:12] for d in claim.embeddings)})",
            )
        return chosen

    def _second(self, found: Collection, digest: str, asked: str | None, criterion: Criterion) -> Model:
        second = self._models.of_digest(digest)
        if second is None:
            raise ModelNotServedError(collection=found.name, model=str(found.other_model_id))
        if criterion.threshold is not None and asked is None:
            raise InvalidRequestError(
                [
                    {
                        "field": "threshold",
                        "problem": f"the identity has no template by {found.model_id} yet, and a distance by "
                        f"{second.model_id} is another; ask for a rate with max_fmr, or say with model="
                        f"{second.model_id} that the threshold is meant for it",
                    }
                ]
            )
        return second


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


def _claim(session: Session, kept: OwnEvidences, name: str, identity: str, at_least: AtLeast) -> _Claim:
    collection = collections.get(session, name)
    at_least.check(name, collection.revision)
    embeddings: dict[str, list[NDArray[np.float32]]] = {}
    for reference in identities.embeddings_of(session, collection, identity):
        embeddings.setdefault(reference.model_digest, []).append(reference.embedding)
    changing = len(collection.digests) > 1
    revision = identities.revision_of(session, collection, identity) if changing else None
    return _Claim(collection, kept.of(session, collection), embeddings, revision)
