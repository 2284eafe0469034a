"""Plain values that storage returns; no session, no laziness."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Collection:
    """A gallery and the model it is bound to."""

    id: int
    name: str
    model_id: str
    model_digest: str
    policy: dict[str, Any]
    revision: int
    created_at: datetime
    evidence_id: int | None = None
    """Number of the evidence measured on its own people; None where the model bundle's is in force."""
    removals_from: int = 0
    """Removals up to this revision have been pruned."""
    other_model_id: str | None = None
    other_model_digest: str | None = None
    """A second model whose templates are kept too."""
    migration: str | None = None
    """``filling`` before the switch to the other model, ``switched`` after it, ``finishing`` while what the
    other has made is removed."""
    migration_revision: int | None = None
    """Revision of the change of model's last step."""

    @property
    def digests(self) -> tuple[str, ...]:
        """Models whose templates an enrolment makes: the collection's, then a second during a change."""
        if self.other_model_digest is None or self.migration == "finishing":
            return (self.model_digest,)
        return (self.model_digest, self.other_model_digest)

    def model_of(self, digest: str) -> str | None:
        """Return the id of the model of a digest; None where it is neither of the two."""
        return {self.model_digest: self.model_id, self.other_model_digest: self.other_model_id}.get(digest)


@dataclass(frozen=True)
class Measurement:
    """What is known of a collection's own evidence, beside the trials.

    Attributes:
        model_digest: Of the model that made the embeddings.
        revision: The collection's, whose references were compared.
        description: One line: whose trials, and how they were formed.
        subjects: Identities compared.
        images: References and probes together.
        mated: Mated trials run.
        nonmated: Non-mated trials run.
    """

    model_digest: str
    revision: int
    description: str
    subjects: int
    images: int
    mated: int
    nonmated: int


@dataclass(frozen=True)
class StoredEvidence:
    """A collection's own evidence as stored.

    Attributes:
        id: Never given to another one.
        measurement: What is known of it.
        created_at: When it was stored.
        trials: An npz file; not checked yet.
    """

    id: int
    measurement: Measurement
    created_at: datetime
    trials: bytes


@dataclass(frozen=True)
class Identity:
    """An enrolled subject."""

    id: int
    name: str
    metadata: dict[str, Any]
    references: int
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class NewReference:
    """A template to store. ``face`` and ``quality`` are the fields shown in answers."""

    id: str
    model_digest: str
    embedding: NDArray[np.float32]
    face: dict[str, Any] | None
    quality: dict[str, Any]
    sample_id: str | None = None
    """Of the photo; None is ``id``."""


@dataclass(frozen=True)
class Reference:
    """A template as stored, without the embedding; ``sample`` is what templates of one photo share."""

    id: str
    model_digest: str
    sample: str
    face: dict[str, Any] | None
    quality: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class KeptImage:
    """The encoder's input, as PNG, that a template was made from, and the model whose input it is."""

    sample: str
    model_digest: str
    image: bytes


@dataclass(frozen=True)
class Answer:
    """What a write is answered with.

    Attributes:
        status: Of HTTP.
        body: JSON; empty where there is none.
        etag: Of the identity that was written, where it is one.
    """

    status: int
    body: bytes = b""
    etag: str | None = None


@dataclass(frozen=True)
class GalleryEntry:
    """One reference as the gallery in memory needs it."""

    identity_id: int
    name: str
    metadata: dict[str, Any]
    model_digest: str
    embedding: NDArray[np.float32]


def to_bytes(embedding: NDArray[np.float32]) -> bytes:
    """Return little-endian float32 bytes."""
    return np.ascontiguousarray(embedding, "<f4").tobytes()


def from_bytes(data: bytes) -> NDArray[np.float32]:
    """Return float32[D] from ``to_bytes``."""
    return np.frombuffer(data, "<f4").astype(np.float32)


def with_zone(moment: datetime) -> datetime:
    """Return the moment in UTC with its zone, which SQLite does not keep."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
