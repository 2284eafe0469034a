"""Galleries in memory that follow the database.

Before a search the gallery is brought to the collection's revision as committed at that moment: one cheap
query tells the revision, and only when it moved are the changes read. So a search reflects every change
committed before it began, whichever process made it, and nothing that was deleted.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.encoding.model import Model
from app.errors import CollectionNotFoundError, ModelMismatchError
from app.matching.distances import Metric
from app.matching.gallery import Gallery
from app.storage import collections, identities
from app.storage.database import Database, Session
from app.storage.records import Collection

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

    def __init__(self, name: str, dimensions: int, metric: Metric) -> None:
        self.lock = threading.Lock()
        self.name = name
        self.revision = -1
        self._shape = (dimensions, metric)
        self._empty()

    def _empty(self) -> None:
        self._gallery: Gallery[int] = Gallery(*self._shape)
        self._described: dict[int, tuple[str, dict[str, Any]]] = {}

    def follow(self, session: Session, collection: Collection) -> None:
        """Apply every change between the gallery's revision and the collection's, as a session sees it."""
        if self.revision < 0:
            self._empty()  # of what an attempt that failed half-way has left
        else:
            for identity_id in identities.removed_since(session, collection, self.revision):
                self._gallery.discard(identity_id)
                self._described.pop(identity_id, None)
        for entry in identities.changed_since(session, collection, self.revision):
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
    """Every gallery of this process, searched on threads of its own: loading one holds up nothing else."""

    def __init__(self, database: Database, threads: int) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._by_collection: OrderedDict[int, _Synchronised] = OrderedDict()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="galleries")

    async def search(self, name: str, probe: NDArray[np.float32], model: Model, k: int) -> SearchResult:
        """Return the nearest identities of a collection as it is committed now.

        Args:
            name: The collection.
            probe: float32[D].
            model: What made the probe.
            k: How many.

        Raises:
            CollectionNotFoundError: There is none of that name.
            ModelMismatchError: The collection is bound to another model than the probe's.
        """
        return await asyncio.wrap_future(self._pool.submit(self.search_now, name, probe, model, k))

    def search_now(self, name: str, probe: NDArray[np.float32], model: Model, k: int) -> SearchResult:
        """Search on this thread; see ``search``."""
        try:
            collection = self._database.read_now(collections.get, name)
        except CollectionNotFoundError:
            self.forget(name)
            raise
        if collection.model_digest != model.digest:
            raise ModelMismatchError(
                collection=name, bound=collection.model_id, other=f"a probe made by {model.model_id}"
            )
        gallery = self._of(collection, probe.shape[0], model.manifest.metric)
        # Whoever waits for the lock holds no connection of the database meanwhile.
        with gallery.lock:
            if gallery.revision < collection.revision:
                self._database.read_now(_follow, gallery, collection)
            return gallery.search(probe, k)

    def forget(self, name: str, *, but: int | None = None) -> None:
        """Drop the galleries of deleted collections that had this name."""
        with self._lock:
            for number, gallery in list(self._by_collection.items()):
                if gallery.name == name and number != but:
                    del self._by_collection[number]

    def close(self) -> None:
        """Finish running searches and stop."""
        self._pool.shutdown(wait=True)

    def _of(self, collection: Collection, dimensions: int, metric: Metric) -> _Synchronised:
        self.forget(collection.name, but=collection.id)
        with self._lock:
            gallery = self._by_collection.get(collection.id)
            if gallery is None:
                gallery = _Synchronised(collection.name, dimensions, metric)
                self._by_collection[collection.id] = gallery
            self._by_collection.move_to_end(collection.id)
            while len(self._by_collection) > MAX_GALLERIES:
                self._by_collection.popitem(last=False)
            return gallery


def _follow(session: Session, gallery: _Synchronised, seen: Collection) -> None:
    # Read again: the session may see a later revision than the one that was asked about before.
    collection = collections.get(session, seen.name)
    if collection.id != seen.id:
        raise CollectionNotFoundError(seen.name)  # deleted and made anew in between
    gallery.follow(session, collection)
