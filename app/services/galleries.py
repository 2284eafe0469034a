"""Galleries in memory that follow the database.

A search brings the gallery to the collection's revision as committed at that moment: one cheap query tells
the revision, and only when it moved are the changes read. Names and metadata stay in the store and are read
with the revision, in one transaction. So a search reflects every change committed before it began, whichever
process made it, and nothing that was deleted.

Whoever finds a gallery in use waits; the next in turn searches for all who wait, in one pass and one
transaction.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.model import Model
from app.errors import CollectionNotFoundError, ModelMismatchError
from app.matching.distances import Metric
from app.matching.gallery import Gallery, Neighbour
from app.services.gallery_snapshots import Snapshots
from app.storage import collections, identities, templates
from app.storage.database import Database, DatabaseUnavailableError, Session
from app.storage.records import Collection

logger = logging.getLogger("visavis.galleries")

MAX_GALLERIES = 256
"""Collections kept in memory; the one searched longest ago is dropped and read again when needed."""

ATTEMPTS: Final = 5
"""Times that a search begins anew because the collection was deleted and made anew."""

TOGETHER: Final = 64
"""Searches answered in one pass."""

ASKING: Final = 32
"""Threads on which searches wait for their turn."""

SNAPSHOT_FROM = 20_000
"""References from which a gallery is worth a snapshot; a smaller one is read from the store in no time."""

SNAPSHOT_EACH_S: Final = 60.0
"""Least seconds from one snapshot of a gallery to the next."""


@dataclass(frozen=True)
class Candidate:
    """One of the nearest identities."""

    identity: str
    metadata: dict[str, Any]
    distance: float


@dataclass(frozen=True)
class SearchResult:
    """The nearest identities of a collection at a revision.

    Attributes:
        candidates: Nearest first.
        gallery_size: Identities that could have been among them.
        revision: Of the collection, whose state this reflects.
        exact: Whether nobody nearer can have been missed.
        recall: Where not, the measured share of the nearest that such searches find; None if not measured.
    """

    candidates: list[Candidate]
    gallery_size: int
    revision: int
    exact: bool = True
    recall: float | None = None


@dataclass(frozen=True)
class _Search:
    """A search that waits for its turn."""

    probe: NDArray[np.float32]
    k: int
    where: dict[str, Any] | None
    answer: Future[SearchResult]


class _MadeAnewError(Exception):
    """The collection was deleted, and another one has its name."""


class _Synchronised:
    """The gallery of one collection and model, at a known revision."""

    def __init__(self, collection: Collection, dimensions: int, metric: Metric, pool: Executor) -> None:
        self.lock = threading.Lock()
        self.collection = collection
        self.revision = -1
        self.snapshot_revision = -1
        """Of the snapshot that lies on disk; below 0 where there is none."""
        self.snapshot_at = -SNAPSHOT_EACH_S
        self.removed_since_snapshot = False
        self._waiting: list[_Search] = []
        self._arrivals = threading.Lock()
        self._dimensions, self._metric, self._pool = dimensions, metric, pool
        self.gallery = self._empty()

    def _empty(self) -> Gallery:
        return Gallery(self._dimensions, self._metric, pool=self._pool)

    def wait(self, search: _Search) -> None:
        """Join those who wait for their turn."""
        with self._arrivals:
            self._waiting.append(search)

    def turn(self) -> list[_Search]:
        """Return those who are to be answered now, and let others wait for the next turn."""
        with self._arrivals:
            now, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
        return now

    def answer(
        self, session: Session, searches: list[_Search], snapshots: Snapshots | None
    ) -> list[SearchResult]:
        """Return the answers to searches, in their order, of the one state that a session sees."""
        collection = collections.get(session, self.collection.name)
        if collection.id != self.collection.id:
            raise _MadeAnewError
        if collection.model_digest != self.collection.model_digest:
            raise ModelMismatchError(
                collection=collection.name, bound=collection.model_id, other="a probe made before it changed"
            )
        if self.revision != collection.revision:
            self._follow(session, collection, snapshots)
        found: dict[int, tuple[list[Neighbour], int]] = {}
        plain = [place for place, search in enumerate(searches) if search.where is None]
        if plain:
            probes = np.stack([searches[place].probe for place in plain])
            nearest = self.gallery.nearest_each(probes, max(searches[place].k for place in plain))
            size = len(self.gallery)
            for place, neighbours in zip(plain, nearest, strict=True):
                found[place] = neighbours[: searches[place].k], size
        for place, search in enumerate(searches):
            if search.where is not None:
                among = templates.matching(session, collection, search.where)
                neighbours = self.gallery.nearest(search.probe, search.k, among=among)
                found[place] = neighbours, self.gallery.count(among)
        keys = {neighbour.key for neighbours, _ in found.values() for neighbour in neighbours}
        about = templates.described(session, sorted(keys))
        return [
            SearchResult([Candidate(*about[n.key], n.distance) for n in neighbours], size, self.revision)
            for neighbours, size in (found[place] for place in range(len(searches)))
        ]

    def _follow(self, session: Session, collection: Collection, snapshots: Snapshots | None) -> None:
        """Apply every change between the gallery's revision and the collection's, as a session sees it."""
        if self.revision > collection.revision:
            logger.warning(
                "collection %s is back at revision %d: an older state of the store is read now",
                collection.name,
                collection.revision,
            )
            self.revision = -1
        if self.revision < 0 and snapshots is not None:
            kept = snapshots.load(session, collection, self._dimensions, self._metric, self._pool)
            if kept is not None:
                self.gallery, self.revision = kept
                self.snapshot_revision = self.revision
        whole = templates.count(session, collection) if self.revision < 0 else len(self.gallery)
        changes = templates.count(session, collection, since=self.revision)
        if self.revision < max(0, collection.removals_from) or changes > max(SNAPSHOT_FROM, whole // 2):
            self._load(session, collection, expected=max(whole, changes))
        else:
            gone = identities.removed_since(session, collection, self.revision)
            put = templates.changed_since(session, collection, self.revision, self._dimensions)
            pending = [key for key, rows in put.items() if not len(rows)]
            self.gallery.change({key: rows for key, rows in put.items() if len(rows)}, gone=[*gone, *pending])
            self.removed_since_snapshot |= bool(gone)
        self.revision = collection.revision

    def _load(self, session: Session, collection: Collection, *, expected: int) -> None:
        started = time.perf_counter()
        self.revision = -1  # what breaks off half-way is begun anew
        fresh = self._empty()
        fresh.load(templates.every(session, collection, self._dimensions), expected=expected)
        self.gallery = fresh
        if len(fresh) >= SNAPSHOT_FROM:
            logger.info(
                "collection %s: %d identities read in %.1f s",
                collection.name,
                len(fresh),
                time.perf_counter() - started,
            )

    def wants_snapshot(self, now: float) -> bool:
        """Return whether a snapshot is due: there is none, it is old, or it holds somebody removed since."""
        if self.gallery.references < SNAPSHOT_FROM or now - self.snapshot_at < SNAPSHOT_EACH_S:
            return False
        behind = self.revision - self.snapshot_revision
        return self.snapshot_revision < 0 or self.removed_since_snapshot or behind > SNAPSHOT_FROM


class Galleries:
    """Every gallery of this process, searched on threads of its own: loading one holds up nothing else.

    Args:
        database: What searches are read from.
        threads: Of the processor that one search may use.
        snapshots: Where large galleries are kept between starts; None keeps none.
    """

    def __init__(self, database: Database, threads: int, *, snapshots: Snapshots | None = None) -> None:
        self._database = database
        self._snapshots = snapshots
        self._lock = threading.Lock()
        self._by_collection: OrderedDict[tuple[str, str], _Synchronised] = OrderedDict()
        self._asking = ThreadPoolExecutor(ASKING, thread_name_prefix="galleries")
        self._searching = ThreadPoolExecutor(threads, thread_name_prefix="searching")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="snapshots")

    async def search(
        self,
        name: str,
        probe: NDArray[np.float32],
        model: Model,
        k: int,
        *,
        where: dict[str, Any] | None = None,
    ) -> SearchResult:
        """Return the nearest identities of a collection as it is committed now.

        Args:
            name: The collection.
            probe: float32[D].
            model: What made the probe.
            k: How many.
            where: Only identities whose metadata has these values; all where it is None.

        Raises:
            CollectionNotFoundError: There is none of that name.
            ModelMismatchError: The collection is bound to another model than the probe's.
        """
        return await asyncio.wrap_future(
            self._asking.submit(self.search_now, name, probe, model, k, where=where)
        )

    def search_now(
        self,
        name: str,
        probe: NDArray[np.float32],
        model: Model,
        k: int,
        *,
        where: dict[str, Any] | None = None,
    ) -> SearchResult:
        """Search on this thread; see ``search``."""
        for _ in range(ATTEMPTS):
            held = self._find(name, model)
            search = _Search(np.asarray(probe, np.float32), k, where, Future())
            held.wait(search)
            # Whoever waits for the lock holds no connection of the database meanwhile.
            with held.lock:
                if not search.answer.done():
                    self._take_turn(held)
            if self._snapshots is not None and held.wants_snapshot(time.monotonic()):
                held.snapshot_at = time.monotonic()
                self._writing.submit(self._snapshot, held, self._snapshots)
            try:
                return search.answer.result()
            except _MadeAnewError:
                self.forget(name)
        raise CollectionNotFoundError(name)

    def _take_turn(self, held: _Synchronised) -> None:
        """Answer all who wait, the caller among them."""
        searches = held.turn()
        try:
            answers = self._database.read_now(held.answer, searches, self._snapshots)
        except Exception as error:  # each who asked is to raise it
            if isinstance(error, CollectionNotFoundError):
                self.forget(held.collection.name)
            for search in searches:
                search.answer.set_exception(error)
        else:
            for search, answer in zip(searches, answers, strict=True):
                search.answer.set_result(answer)

    def _find(self, name: str, model: Model) -> _Synchronised:
        """Return the gallery of a collection for probes of a model; asks the store only for a new one."""
        key = (name, model.digest)
        with self._lock:
            held = self._by_collection.get(key)
        if held is None:
            collection = self._database.read_now(collections.get, name)
            if collection.model_digest != model.digest:
                raise ModelMismatchError(
                    collection=name, bound=collection.model_id, other=f"a probe made by {model.model_id}"
                )
            held = _Synchronised(
                collection, model.manifest.dimensions, model.manifest.metric, self._searching
            )
        with self._lock:
            held = self._by_collection.setdefault(key, held)
            self._by_collection.move_to_end(key)
            while len(self._by_collection) > MAX_GALLERIES:
                self._by_collection.popitem(last=False)
        return held

    def forget(self, name: str) -> None:
        """Drop the galleries of collections that had this name."""
        with self._lock:
            for key in [key for key in self._by_collection if key[0] == name]:
                del self._by_collection[key]

    def close(self) -> None:
        """Finish running searches and stop."""
        self._asking.shutdown(wait=True)
        if self._snapshots is not None:
            for held in self._by_collection.values():
                if held.removed_since_snapshot and held.snapshot_revision >= 0:
                    self._writing.submit(self._snapshot, held, self._snapshots)
        self._searching.shutdown(wait=True)
        self._writing.shutdown(wait=True)

    @staticmethod
    def _snapshot(held: _Synchronised, snapshots: Snapshots) -> None:
        held.removed_since_snapshot = False
        try:
            revision = snapshots.save(held.collection, held)
        except (OSError, DatabaseUnavailableError) as error:
            logger.warning("no snapshot of collection %s: %s", held.collection.name, error)
            return
        if revision is not None:
            held.snapshot_revision = revision
