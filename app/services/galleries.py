"""Galleries in memory that follow the database.

Before a search the gallery is brought to the collection's revision as committed at that moment: one cheap
query tells the revision, and only when it moved are the changes read. So a search reflects every change
committed before it began, whichever process made it, and nothing that was deleted.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.encoding.model import Model
from app.errors import ModelMismatchError
from app.matching.distances import Metric
from app.matching.gallery import Gallery
from app.storage import collections, identities
from app.storage.database import Database, Session
from app.storage.records import Changes, Collection

MAX_GALLERIES = 256
"""Collections kept in memory; the one searched longest ago is dropped and read again when needed."""


@dataclass(frozen=True)
class Candidate:
    """One of the nearest identities."""

    identity: str
    metadata: dict[str, Any]
    distance: float


@dataclass(frozen=True)
class SearchResult:
    """The nearest identities of a collection at a revision."""

    candidates: list[Candidate]
    gallery_size: int
    revision: int


class _Synchronised:
    """The gallery of one collection, with names and metadata, at a known revision."""

    def __init__(self, dimensions: int, metric: Metric) -> None:
        self.lock = threading.Lock()
        self.revision = -1
        self._gallery: Gallery[int] = Gallery(dimensions, metric)
        self._described: dict[int, tuple[str, dict[str, Any]]] = {}

    def apply(self, collection: Collection, changes: Changes) -> None:
        for identity_id in changes.dropped:
            self._gallery.discard(identity_id)
            self._described.pop(identity_id, None)
        for entry in changes.put:
            if entry.model_digest != collection.model_digest:
                raise ModelMismatchError(
                    collection=collection.name,
                    bound=collection.model_id,
                    other=f"a template of another model ({entry.model_digest[:12]})",
                )
            self._gallery.put(entry.identity_id, entry.embedding)
            self._described[entry.identity_id] = (entry.name, entry.metadata)
        self.revision = collection.revision

    def search(self, probe: NDArray[np.float32], k: int) -> SearchResult:
        candidates = [
            Candidate(*self._described[neighbour.key], neighbour.distance)
            for neighbour in self._gallery.nearest(probe, k)
        ]
        return SearchResult(candidates, len(self._gallery), self.revision)


class Galleries:
    """Every gallery of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._by_collection: OrderedDict[int, _Synchronised] = OrderedDict()

    def search(self, name: str, probe: NDArray[np.float32], model: Model, k: int) -> SearchResult:
        """Return the nearest identities of a collection as it is committed now. Blocks; run on a thread.

        Args:
            name: The collection.
            probe: float32[D].
            model: What made the probe.
            k: How many.

        Raises:
            CollectionNotFoundError: There is none of that name.
            ModelMismatchError: The collection is bound to another model than the probe's.
        """
        return self._database.read_now(self._search, name, probe, model, k)

    def _search(
        self, session: Session, name: str, probe: NDArray[np.float32], model: Model, k: int
    ) -> SearchResult:
        collection = collections.get(session, name)
        if collection.model_digest != model.digest:
            raise ModelMismatchError(
                collection=name, bound=collection.model_id, other=f"a probe made by {model.model_id}"
            )
        gallery = self._of(collection, probe.shape[0], model.manifest.metric)
        with gallery.lock:
            if gallery.revision < collection.revision:
                gallery.apply(collection, identities.changes_since(session, collection, gallery.revision))
            return gallery.search(probe, k)

    def _of(self, collection: Collection, dimensions: int, metric: Metric) -> _Synchronised:
        with self._lock:
            gallery = self._by_collection.get(collection.id)
            if gallery is None:
                gallery = self._by_collection[collection.id] = _Synchronised(dimensions, metric)
            self._by_collection.move_to_end(collection.id)
            while len(self._by_collection) > MAX_GALLERIES:
                self._by_collection.popitem(last=False)
            return gallery
