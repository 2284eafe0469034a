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
