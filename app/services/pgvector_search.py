"""Searches inside PostgreSQL, for galleries larger than a worker's memory.

An HNSW index names candidates, and these are measured again here as ``app.matching.distances`` does it
everywhere, so a distance is the same to the last bit as in an exact search. Which identities are candidates
is not certain: an answer says so, and quotes the recall once ``measure_recall_now`` has measured it.

A search reflects every change committed before it began, as in ``galleries``: the vectors it uses are
complete up to the collection's revision in one state of the database. Where they are behind, what is missing
is added first.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.model import Model
from app.errors import BusyError, InvalidRequestError, ModelMismatchError, StartupError
from app.matching.distances import Metric, distances
from app.services.galleries import Candidate, SearchResult
from app.storage import collections, templates, vectors
from app.storage.database import Database, Session
from app.storage.records import Collection
from app.storage.vectors import Recall, VectorIndex

logger = logging.getLogger("visavis.search")

BUILD_WAIT_S: Final = 2.0
"""Longest that a search waits for another one's filling in of many vectors."""

REPLICA_WAIT_S: Final = 2.0
"""Longest that a search waits for vectors that were added to the store to arrive at its replica."""

SCANNED: Final = 20_000
"""Identities up to which a search among those of some metadata measures them all; it is exact then."""

Progress = Callable[[int], None]
"""Called with how much has been done since it was called last."""


class PgvectorSearch:
    """Stands in for ``Galleries``; keeps nothing in memory.

    Args:
        database: What searches are read from.
        threads: Searches at one time; each takes a connection.
        store: Where missing vectors are added, if ``database`` is a replica of it.
        ef_search: Candidates that the index keeps in view; more find more and take longer.
    """

    def __init__(
        self, database: Database, threads: int, *, ef_search: int, store: Database | None = None
    ) -> None:
        self._database = database
        self._store = store or database
        self._ef_search = ef_search
        self._building: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pgvector")

    async def search(
        self,
        name: str,
        probe: NDArray[np.float32],
        model: Model,
        k: int,
        *,
        where: dict[str, Any] | None = None,
    ) -> SearchResult:
        """Return the nearest identities of a collection as it is committed now; most probably all of them.

        Args:
            name: The collection.
            probe: float32[D].
            model: What made the probe.
            k: How many.
            where: Only identities whose metadata has these values; all where it is None.

        Raises:
            CollectionNotFoundError: There is none of that name.
            ModelMismatchError: The collection is bound to another model than the probe's.
            BusyError: Many of its vectors are missing, and others are filling them in.
        """
        return await asyncio.wrap_future(
            self._pool.submit(self.search_now, name, probe, model, k, where=where)
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
        asked = _Search(name, np.asarray(probe, np.float32), model, k, where, self._ef_search)
        found = self._database.read_now(asked.answer)
        if found is not None:
            return found
        if not self._store.write_now(_add_batch, name, model):
            self.build_now(name, model, wait_s=BUILD_WAIT_S)
        deadline = time.monotonic() + REPLICA_WAIT_S
        while found is None and time.monotonic() < deadline:
            # Others may go on writing without adding vectors; with the lock there is nothing behind.
            if self._database is self._store:
                found = self._store.write_now(asked.answer_complete)
            else:
                found = self._database.read_now(asked.answer)
                time.sleep(0 if found else 0.02)
        if found is None:
            raise BusyError("the vectors of the collection are behind its rows; try again")
        return found

    def build_now(
        self,
        name: str,
        model: Model,
        *,
        progress: Progress | None = None,
        memory_mb: int | None = None,
        wait_s: float = -1,
    ) -> int:
        """Make a collection's vectors complete, and index them.

        Every batch is a transaction of its own: an interrupted run goes on where it stopped, and runs at once
        share the work.

        Args:
            name: The collection.
            model: Its own, or the second model that it keeps templates of.
            progress: Told of every batch.
            memory_mb: MiB for making the index of many vectors, while others read and write. None leaves more
                than ``vectors.INDEX_AT_ONCE`` without one, to be searched by a scan.
            wait_s: Longest wait for another thread of this process that does the same; below 0 for ever.

        Returns:
            How many vectors were added.

        Raises:
            CollectionNotFoundError: There is none of that name.
            ModelMismatchError: The collection has no templates of that model.
            BusyError: Another thread has not finished.
        """
        if not self._building[name].acquire(timeout=wait_s):
            raise BusyError(
                f"the vectors of collection {name!r} are being filled in; try again", retry_after_s=5
            )
        try:
            return self._build(self._store.read_now(collections.get, name), model, progress, memory_mb)
        finally:
            self._building[name].release()

    def _build(
        self, collection: Collection, model: Model, progress: Progress | None, memory_mb: int | None
    ) -> int:
        digest, metric, dimensions = model.digest, model.manifest.metric, model.manifest.dimensions
        if digest not in {collection.model_digest, collection.other_model_digest}:
            raise ModelMismatchError(
                collection=collection.name, bound=collection.model_id, other=f"vectors of {model.model_id}"
            )
        total = self._store.write_now(vectors.prepare, collection, digest)
        added, filling = 0, vectors.Filling()
        while not filling.done:
            filling = self._store.write_now(vectors.fill, collection, digest, filling)
            added += filling.added
            if progress is not None:
                progress(filling.added)
        if total <= vectors.INDEX_AT_ONCE:
            self._store.write_now(vectors.make_index, collection, digest, metric, dimensions)
        elif not self._store.read_now(vectors.is_indexed, collection, digest):
            self._index_many(collection, model, total, memory_mb)
        return added

    def _index_many(self, collection: Collection, model: Model, total: int, memory_mb: int | None) -> None:
        if memory_mb is None:
            logger.warning(
                "%d vectors without an index are searched by a scan; run: visavis db vectors build", total
            )
            return
        manifest = model.manifest
        vectors.make_index_beside_writes(
            self._store, collection, model.digest, manifest.metric, manifest.dimensions, memory_mb
        )

    def missing_now(self, name: str, model: Model) -> int:
        """Return about how many vectors of a collection are missing.

        Raises:
            CollectionNotFoundError: There is none of that name.
        """
        return self._store.read_now(_missing, name, model)

    def measure_recall_now(
        self,
        name: str,
        model: Model,
        *,
        probes: int,
        top_k: int,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Recall:
        """Compare searches by the index with full scans, and keep the share of the nearest that it found.

        A probe is a stored reference, moved in a random direction as far as two images of one subject are
        apart in the model's own mated trials.

        Args:
            name: The collection.
            model: What it is bound to.
            probes: Searches.
            top_k: Nearest references compared in each.
            seed: Of the draw of references, directions and distances.
            progress: Told of every probe.

        Raises:
            CollectionNotFoundError: There is none of that name.
            ModelMismatchError: The collection is bound to another model.
            InvalidRequestError: The collection is empty.
        """
        self.build_now(name, model)
        collection = self._database.read_now(collections.get, name)
        _require_model(collection, model)
        rng = np.random.default_rng(seed)
        drawn = self._database.read_now(vectors.sample, collection, probes, seed)
        if not drawn.size:
            raise InvalidRequestError(
                [{"field": "collection", "problem": f"{name!r} holds no template to search for"}]
            )
        apart = rng.choice(_mated_distances(model), len(drawn))
        shares = []
        for reference, far in zip(drawn, apart.tolist(), strict=True):
            probe = moved(reference, far, model.manifest.metric, rng)
            shares.append(self._database.read_now(_recall, collection, probe, model, top_k, self._ef_search))
            if progress is not None:
                progress(1)
        return self._store.write_now(
            _keep_recall, collection, float(np.mean(shares)), top_k, len(shares), self._ef_search
        )

    def forget(self, name: str) -> None:
        """Do nothing: no gallery is in memory, and vectors go with the rows they were made from."""

    def close(self) -> None:
        """Finish running searches and stop."""
        self._pool.shutdown(wait=True)


def require_dimensions(models: list[Model]) -> None:
    """Refuse models whose embeddings pgvector cannot index.

    Raises:
        StartupError: One of them; it is named.
    """
    for model in models:
        if model.manifest.dimensions > vectors.MAX_DIMENSIONS:
            raise StartupError(
                f"VISAVIS_SEARCH=pgvector: model {model.model_id} has {model.manifest.dimensions} dimensions "
                f"and an index takes {vectors.MAX_DIMENSIONS}; set VISAVIS_SEARCH to exact, or leave the "
                "model out of VISAVIS_MODELS"
            )


def moved(
    reference: NDArray[np.float32], far: float, metric: Metric, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a probe of the same norm at a distance from a reference, in a random direction.

    Args:
        reference: float32[D].
        far: In the unit of the metric; what no vector of that norm is apart is cut.
        metric: Of the model.
        rng: Draws the direction.
    """
    start = np.asarray(reference, np.float64)
    step = rng.standard_normal(start.size)
    if metric == "l1":
        return np.asarray(start + step * (far / np.abs(step).sum()), np.float32)
    norm = float(np.sqrt(start @ start)) or 1.0
    step -= start * (step @ start) / norm**2
    step /= np.sqrt(step @ step)
    # Two vectors of one norm at an angle: the chord for euclidean, 1 - cos for cosine.
    cosine = 1.0 - (far**2 / (2.0 * norm**2) if metric == "euclidean" else far)
    cosine = min(1.0, max(-1.0, cosine))
    return np.asarray(start * cosine + step * norm * np.sqrt(1.0 - cosine**2), np.float32)


@dataclass(frozen=True)
class _Search:
    """What is asked of one state of the database."""

    name: str
    probe: NDArray[np.float32]
    model: Model
    k: int
    where: dict[str, Any] | None
    ef_search: int

    def answer(self, session: Session) -> SearchResult | None:
        """Return what was found, or None where the vectors are behind the collection."""
        collection = collections.get(session, self.name)
        _require_model(collection, self.model)
        index = vectors.state(session, collection, self.model.digest)
        if index is None or index.revision != collection.revision:
            return None
        among, size, exact = None, index.identities, False
        if self.where is not None:
            among = templates.matching(session, collection, self.where)
            size, exact = vectors.count_among(session, collection, among), len(among) <= SCANNED
        metric = self.model.manifest.metric
        return SearchResult(
            _nearest(
                session, collection, self.probe, metric, self.k, None if exact else self.ef_search, among
            ),
            size,
            collection.revision,
            exact=exact,
            recall=None if exact else self._measured(index),
        )

    def answer_complete(self, session: Session) -> SearchResult | None:
        """Add the last batch and search in one transaction; None where more than that is missing."""
        vectors.fill(session, collections.get(session, self.name), self.model.digest, vectors.Filling())
        session.expire_all()
        return self.answer(session)

    def _measured(self, index: VectorIndex) -> float | None:
        """Return the recall, if it was measured as this search is made."""
        measured = index.recall
        return measured.recall if measured is not None and measured.ef_search == self.ef_search else None


def _add_batch(session: Session, name: str, model: Model) -> bool:
    """Add some of what is missing, and return whether that was all."""
    collection = collections.get(session, name)
    _require_model(collection, model)
    filled = vectors.fill(session, collection, model.digest, vectors.Filling())
    return filled.done and vectors.state(session, collection, model.digest) is not None


def _nearest(
    session: Session,
    collection: Collection,
    probe: NDArray[np.float32],
    metric: Metric,
    k: int,
    ef_search: int | None,
    among: Sequence[int] | None = None,
) -> list[Candidate]:
    limit = 2 * k + 10  # the index's float32 may order the last of k otherwise than float64
    while True:
        found = vectors.nearest(session, collection, metric, probe, limit, ef_search=ef_search, among=among)
        if len(found) < limit or len({near.identity_id for near in found}) >= k:
            break
        limit *= 4  # several references of one identity have taken the places of others
    if not found:
        return []
    exact = distances(probe, np.array([near.embedding for near in found]), metric)
    ranked = sorted(zip(exact.tolist(), found, strict=True), key=lambda item: (item[0], item[1].identity_id))
    best = {
        near.identity_id: (near, value) for value, near in reversed(ranked)
    }  # the closest reference counts
    nearest = sorted(best.values(), key=lambda item: (item[1], item[0].identity_id))[:k]
    return [Candidate(near.name, near.metadata, value) for near, value in nearest]


def _recall(
    session: Session,
    collection: Collection,
    probe: NDArray[np.float32],
    model: Model,
    top_k: int,
    ef_search: int,
) -> float:
    """Return the share of the nearest identities that the index found; ties count as found."""
    metric = model.manifest.metric
    # The index first: what makes a scan of the other is set until the transaction ends.
    found = _nearest(session, collection, probe, metric, top_k, ef_search)
    exact = _nearest(session, collection, probe, metric, top_k, None)
    if not exact:
        return 1.0
    return sum(candidate.distance <= exact[-1].distance for candidate in found) / len(exact)


def _keep_recall(
    session: Session, collection: Collection, share: float, top_k: int, probes: int, ef_search: int
) -> Recall:
    now = collections.get(session, collection.name)
    index = vectors.state(session, now, collection.model_digest)
    recall = Recall(
        recall=share,
        top_k=top_k,
        probes=probes,
        ef_search=ef_search,
        revision=now.revision,
        identities=index.identities if index else 0,
        measured_at=datetime.now(UTC),
    )
    vectors.store_recall(session, now, recall)
    return recall


def _missing(session: Session, name: str, model: Model) -> int:
    return vectors.count_missing(session, collections.get(session, name), model.digest)


def _require_model(collection: Collection, model: Model) -> None:
    if collection.model_digest != model.digest:
        raise ModelMismatchError(
            collection=collection.name,
            bound=collection.model_id,
            other=f"a probe made by {model.model_id}",
        )


def _mated_distances(model: Model) -> NDArray[np.float64]:
    mated = model.evidence.mated_distance
    return mated if mated.size else np.zeros(1)
