"""Rows on their way from a source into the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.storage.bulk import BulkReference
from app.storage.records import KeptImage


@dataclass(frozen=True)
class Reject:
    """A row that was not imported, and why."""

    row: int
    """Its number in the source, from 0."""
    identity: str | None
    code: str
    detail: str
    image: str | None = None
    """Of a folder: the file, as it is named there."""


@dataclass(slots=True)
class Sample:
    """What is stored of one usable row: a template, or one by each of two models."""

    row: int
    references: tuple[BulkReference, ...]
    crop: KeptImage | None = None


@dataclass(slots=True)
class Item:
    """An identity with its usable rows that follow one another."""

    name: str
    metadata: dict[str, Any] | None = None
    samples: list[Sample] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    """Photos that were not looked at, because the identity was enrolled already."""


@dataclass
class Batch:
    """Rows from ``start`` to before ``stop``; what is in neither list was passed over."""

    start: int
    stop: int
    items: list[Item] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    skipped: int = 0


class Batches(Protocol):
    """A source, checked and encoded for one collection."""

    models: tuple[str, ...]
    """Digests of the models that make the references."""

    def read(self, start: int) -> Iterator[Batch]:
        """Yield what is left from a position on."""

    def image_of(self, row: int) -> str | None:
        """Return the name of the photo that a row is, or None for a row of a file."""

    def close(self) -> None:
        """Close what was opened."""
