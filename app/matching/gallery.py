"""All references of one collection in memory, and the exact search for the nearest.

The gallery is a copy of committed rows; ``services/galleries.py`` keeps it at the collection's revision. They
lie in one preallocated float32 matrix with the key of their identity beside them; an identity may have
several rows, and its nearest counts. Changing one key costs a scan of the keys (a millisecond for a million).

Galleries are searched by a float32 scan. Of a large one whose rows are unit vectors, each ``PART`` rows also
have four-bit copies (``quantised``), which name all rows that could be among the nearest; the scan is then of
those. Either way the few that float32 cannot tell apart are measured again in float64, so the order, the ties
and the distances are those of a full float64 scan.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.matching.distances import Metric, distances
from app.matching.quantised import (
    ROUNDING,
    EngineError,
    Estimates,
    Quantised,
    quantise,
    rotation,
)

logger = logging.getLogger("visavis.matching")

Keys = NDArray[np.int64]
Rows = NDArray[np.float32]

PART: Final = 32_768
"""Rows that are quantised together."""
LEAST_PARTS: Final = 8
"""Parts from which their copies are used; a gallery with fewer is scanned as fast."""
BLOCK: Final = 8_192
"""Rows scanned at once, so that what is computed of them stays in the processor's cache."""
REBUILT_AT: Final = PART // 32
"""Changed rows of a part, after which it is quantised anew; until then each is measured in every search."""
GROUPS: Final = 8
"""Tasks that a search of the parts is cut into, at most."""
UNIT: Final = 1e-3
"""Norms of rows that count as unit vectors may be off by this."""
DEPTH: Final = 512
"""Candidates first asked of a part for each probe; a part that has more is asked again."""

NOBODY: Final = np.int64(-1)
"""Key of a row that is free."""


@dataclass(frozen=True)
class Neighbour:
    """One result of a search."""

    key: int
    distance: float


@dataclass(frozen=True)
class State:
    """What a gallery can be made from again without the store; see ``Gallery.state``.

    Attributes:
        keys: int64[n], -1 where a row is free.
        rows: float32[m, D] with m >= n, what is beyond n is room.
        parts: For each part its quantised bytes uint8[...], levels float32[D, 16] and errors float32[m].
        measured: bool[n], quantised rows that every search must measure.
    """

    keys: Keys
    rows: Rows
    parts: tuple[tuple[NDArray[np.uint8], Rows, Rows], ...]
    measured: NDArray[np.bool_]


@dataclass(frozen=True)
class _Answers:
    """What P parts answer to Q probes.

    Attributes:
        places: int64[Q, R], rows.
        most: float32[Q, R], the most that their cosines can be.
        others: float64[Q, P], the most that the cosines of all other rows of each part can be.
    """

    places: NDArray[np.int64]
    most: Rows
    others: NDArray[np.float64]

    def of(self, q: int) -> tuple[NDArray[np.int64], Rows, NDArray[np.float64]]:
        """Return what concerns one probe."""
        return self.places[q], self.most[q], self.others[q]


class Gallery:
    """A growable set of embeddings by key. Not thread-safe; the owner holds a lock.

    Args:
        dimensions: D.
        metric: Of the model.
        pool: Threads that the parts of a large gallery are searched on; None searches them in turn.
        part: Rows that are quantised together; tests take fewer than ``PART``.
        least_parts: Parts from which their copies are used.
    """

    def __init__(
        self,
        dimensions: int,
        metric: Metric,
        *,
        pool: Executor | None = None,
        part: int = PART,
        least_parts: int = LEAST_PARTS,
    ) -> None:
        self._metric = metric
        self._pool = pool
        self._part = part
        self._least_parts = least_parts
        self._rows: Rows = np.empty((64, dimensions), np.float32)
        self._norms: Rows = np.empty(64, np.float32)
        self._keys: Keys = np.full(64, NOBODY)
        self._measured: NDArray[np.bool_] = np.zeros(64, np.bool_)
        self._size = 0
        self._free: list[int] = []
        self._several: dict[int, int] = {}
        self._highest = -1
        self._parts: list[Quantised] = []
        self._errors: Rows = np.empty(0, np.float32)
        self._depth = min(DEPTH, part)
        self._touched: set[int] = set()
        self.written: set[int] | None = None
        """Places of rows written since somebody put an empty set here, while the matrix is being copied."""
        self.generation = 0
        """Rises when rows move to other places, which a copy under way does not survive."""
        self._plain = metric == "l1"

    def __len__(self) -> int:
        """Return how many identities there are."""
        return self.references - sum(self._several.values()) + len(self._several)

    def __contains__(self, key: int) -> bool:
        return self._places([key]).size > 0

    def count(self, keys: Iterable[int]) -> int:
        """Return how many of these identities are there."""
        return np.unique(self._keys[self._places(keys)]).size

    @property
    def references(self) -> int:
        """How many rows are in use."""
        return self._size - len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes held, spare rows included."""
        arrays = (self._rows, self._norms, self._keys, self._measured)
        return (
            self._errors.nbytes
            + sum(array.nbytes for array in arrays)
            + sum(part.nbytes for part in self._parts)
        )

    # --- changes

    def put(self, key: int, embeddings: Rows) -> None:
        """Add an identity, or replace all that is known of it; float32[D] or float32[R, D]."""
        self.change({key: embeddings})

    def discard(self, key: int) -> None:
        """Remove an identity; nothing happens if it is not there."""
        self.change({}, gone=[key])

    def change(self, put: Mapping[int, Rows], *, gone: Iterable[int] = ()) -> None:
        """Remove identities, then add or replace others.

        Args:
            put: By key, at least 0, all embeddings of the identity: float32[D] or float32[R, D].
            gone: Keys to remove; those that are not there change nothing.
        """
        for place in self._places([*gone, *put]).tolist():
            self._several.pop(int(self._keys[place]), None)
            self._clear(place)
        for key, embeddings in put.items():
            given = np.atleast_2d(np.asarray(embeddings, np.float32))
            if len(given) > 1:
                self._several[key] = len(given)
            self._highest = max(self._highest, key)
            for place, embedding in zip(self._room(len(given)), given, strict=True):
                self._set(place, key, embedding)
        self._tidy()

    def load(self, batches: Iterable[tuple[Keys, Rows]], *, expected: int = 0) -> None:
        """Fill an empty gallery.

        Args:
            batches: Of keys int64[n] with embeddings float32[n, D], in any order.
            expected: About how many rows will come, so that memory need not grow in steps.
        """
        self._reserve(expected)
        for keys, embeddings in batches:
            start, stop = self._size, self._size + len(keys)
            self._reserve(stop)
            self._rows[start:stop], self._keys[start:stop] = embeddings, keys
            self._norms[start:stop] = np.square(self._rows[start:stop]).sum(axis=1)
            self._size = stop
        self._count_keys()
        self._tidy()

    def _count_keys(self) -> None:
        keys = self._keys[: self._size]
        self._highest = int(keys.max(initial=-1))
        different, counts = np.unique(keys[keys != NOBODY], return_counts=True)
        several = counts > 1
        self._several = dict(zip(different[several].tolist(), counts[several].tolist(), strict=True))

    def _places(self, keys: Iterable[int]) -> NDArray[np.intp]:
        """Return the rows of identities, in order."""
        known = np.array([key for key in keys if 0 <= key <= self._highest], np.int64)
        held = self._keys[: self._size]
        if known.size == 1:
            return np.flatnonzero(held == known[0])
        return np.flatnonzero(np.isin(held, known)) if known.size else np.empty(0, np.intp)

    def _room(self, count: int) -> list[int]:
        """Return places of free rows, new ones where there are none."""
        places = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = count - len(places)
        self._reserve(self._size + fresh)
        places += range(self._size, self._size + fresh)
        self._size += fresh
        return places

    def _reserve(self, size: int) -> None:
        held = len(self._keys)
        if size <= held:
            return
        # Doubling a large matrix would hold up to twice what is needed.
        wanted = max(size, 2 * held if held < PART else held + held // 8)

        def grown(array: Any, fill: Any) -> Any:  # noqa: ANN401
            new = np.empty((wanted, *array.shape[1:]), array.dtype)
            new[: self._size] = array[: self._size]
            new[self._size :] = fill
            return new

        self._rows, self._norms = grown(self._rows, 0), grown(self._norms, 0)
        self._keys, self._measured = grown(self._keys, NOBODY), grown(self._measured, False)

    def _set(self, place: int, key: int, embedding: Rows) -> None:
        self._note(place)
        self._keys[place] = key
        self._rows[place] = embedding
        self._norms[place] = np.dot(self._rows[place], self._rows[place])
        self._forget_copy(place)
        self._measured[place] = place < self._quantised

    def _clear(self, place: int) -> None:
        self._note(place)
        self._keys[place] = NOBODY
        self._rows[place] = 0.0  # a deleted template does not linger
        self._norms[place] = 0.0
        self._measured[place] = False
        self._forget_copy(place)
        self._free.append(place)

    def _note(self, place: int) -> None:
        if self.written is not None:
            self.written.add(place)

    def _forget_copy(self, place: int) -> None:
        if place < self._quantised:
            self._parts[place // self._part].forget(place % self._part)
            self._touched.add(place // self._part)

    @property
    def _quantised(self) -> int:
        """Rows from the first that have four-bit copies."""
        return len(self._parts) * self._part

    def _tidy(self) -> None:
        """Close gaps where most rows are free, and bring the four-bit copies up to date."""
        if len(self._free) > max(self._part, self._size // 2):
            self._close_gaps()
        for number in self._touched:
            span = slice(number * self._part, (number + 1) * self._part)
            allowed = len(self._parts[number].outliers) + REBUILT_AT * self._part // PART
            if self._parts and np.count_nonzero(self._measured[span]) > allowed:
                self._quantise(number)
        self._touched.clear()
        while self._size - self._quantised >= self._part and not self._plain:
            self._quantise(len(self._parts))

    def _close_gaps(self) -> None:
        self.generation += 1
        kept = np.flatnonzero(self._keys[: self._size] != NOBODY)
        self._rows, self._norms, self._keys = self._rows[kept], self._norms[kept], self._keys[kept]
        self._measured = np.zeros(len(kept), np.bool_)
        self._size, self._free = len(kept), []
        self._parts, self._errors = [], np.empty(0, np.float32)
        self._touched.clear()

    def _quantise(self, number: int) -> None:
        """Make the four-bit copies of a part, or give up on copies where its rows do not suit them."""
        span = slice(number * self._part, (number + 1) * self._part)
        used = self._keys[span] != NOBODY
        lengths = np.sqrt(self._norms[span])
        try:
            if (np.abs(lengths[used] - 1.0) > UNIT).any():
                raise EngineError("the embeddings are no unit vectors")
            made = quantise(self._rows[span])
        except (EngineError, ImportError) as error:
            logger.warning("the gallery is searched by plain scans: %s", error)
            self._plain, self._parts, self._errors = True, [], np.empty(0, np.float32)
            self._measured[:] = False
            return
        self._measured[span] = False
        self._measured[span][made.outliers] = used[made.outliers]
        self._errors = np.concatenate(
            [self._errors[: span.start], made.errors, self._errors[span.stop :]], dtype=np.float32
        )
        if number < len(self._parts):
            self._parts[number] = made
        else:
            self._parts.append(made)

    # --- search

    def nearest(
        self, probe: NDArray[np.floating[Any]], k: int, *, among: Iterable[int] | None = None
    ) -> list[Neighbour]:
        """Return the ``k`` nearest identities; see ``nearest_each``."""
        return self.nearest_each(np.asarray(probe)[None, :], k, among=among)[0]

    def nearest_each(
        self, probes: NDArray[np.floating[Any]], k: int, *, among: Iterable[int] | None = None
    ) -> list[list[Neighbour]]:
        """Return the ``k`` nearest identities to each probe, nearest first, ties in order of their keys.

        Args:
            probes: float32[Q, D].
            k: At least 1.
            among: Only identities of these keys; all where it is None.
        """
        asked = np.ascontiguousarray(probes, np.float32)
        allowed = None
        if among is not None:
            chosen = np.fromiter(among, np.int64)
            allowed = np.isin(self._keys[: self._size], chosen[chosen >= 0])
        rows_there = self.references if allowed is None else int(np.count_nonzero(allowed))
        answers: list[list[Neighbour]] = [[] for _ in asked]
        unanswered = list(range(len(asked))) if rows_there else []
        wanted = min(k, rows_there)
        while unanswered:
            found = self._candidates(asked[unanswered], wanted, allowed)
            for probe, places in zip(unanswered, found, strict=True):
                answers[probe] = self._ranked(asked[probe], places, k)
            # Several rows of one identity may have taken the places of others.
            unanswered = [q for q in unanswered if len(answers[q]) < k and wanted < rows_there]
            wanted = min(4 * wanted, rows_there)
        return answers

    def _ranked(self, probe: Rows, places: NDArray[np.intp], k: int) -> list[Neighbour]:
        exact = distances(probe, self._rows[places], self._metric)
        keys = self._keys[places]
        nearest: dict[int, float] = {}
        for place in np.lexsort((keys, exact)).tolist():
            nearest.setdefault(int(keys[place]), float(exact[place]))
            if len(nearest) == k:
                break
        return [Neighbour(key, value) for key, value in nearest.items()]

    def _candidates(self, probes: Rows, k: int, allowed: NDArray[np.bool_] | None) -> list[NDArray[np.intp]]:
        """Return for each probe the places of all rows that may be among its ``k`` nearest rows."""
        if allowed is not None or len(self._parts) < self._least_parts or k > self._part // 8:
            usable = self._keys[: self._size] != NOBODY
            if allowed is not None:
                usable &= allowed
            if 4 * np.count_nonzero(usable) < self._size:
                places = np.flatnonzero(usable)
                return [
                    places[kept] for kept in self._scan(self._rows[places], self._norms[places], probes, k)
                ]
            return self._scan(self._rows[: self._size], self._norms[: self._size], probes, k, usable)
        return self._pruned(probes, k)

    def _pruned(self, probes: Rows, k: int) -> list[NDArray[np.intp]]:
        """Return the candidates by way of the four-bit copies."""
        lengths = np.sqrt(np.square(probes.astype(np.float64)).sum(axis=1))
        if not (np.isfinite(lengths).all() and lengths.min() > 1e-3):
            usable = self._keys[: self._size] != NOBODY
            return self._scan(self._rows[: self._size], self._norms[: self._size], probes, k, usable)
        turned = np.ascontiguousarray((probes / lengths[:, None]) @ rotation(probes.shape[1]), np.float32)
        found = self._asked(turned, range(len(self._parts)), self._depth)
        # What has no copy, or one that cannot be trusted, is scanned.
        measured = np.flatnonzero(self._measured[: self._quantised])
        of_measured = self._scan(self._rows[measured], self._norms[measured], probes, k)
        tail = slice(self._quantised, self._size)
        of_tail = self._scan(self._rows[tail], self._norms[tail], probes, k, self._keys[tail] != NOBODY)
        results = []
        for q, probe in enumerate(probes):
            known = np.concatenate([measured[of_measured[q]], self._quantised + of_tail[q]])
            results.append(self._proven(probe, turned[q : q + 1], float(lengths[q]), k, known, found.of(q)))
        return results

    def _asked(self, turned: Rows, parts: Sequence[int], depth: int) -> _Answers:
        """Return what parts answer to probes."""

        def some(numbers: Sequence[int]) -> list[Estimates]:
            return [self._parts[number].estimate(turned, depth) for number in numbers]

        # A few groups and not one task a part: handing a task over costs a third of doing it.
        cuts = np.linspace(0, len(parts), min(GROUPS, len(parts)) + 1).astype(int)
        groups = [parts[start:stop] for start, stop in itertools.pairwise(cuts.tolist())]
        each: Callable[..., Any] = map if self._pool is None else self._pool.map
        found: list[Estimates] = [estimates for group in each(some, groups) for estimates in group]
        rounding = np.stack([self._parts[number].estimate_error(turned) for number in parts], axis=1)
        places = np.concatenate(
            [own.rows + number * self._part for number, own in zip(parts, found, strict=True)], axis=1
        )
        most = np.concatenate([own.cosines for own in found], axis=1)
        most += self._errors[places]
        most += np.repeat(rounding + UNIT, [own.rows.shape[1] for own in found], axis=1).astype(np.float32)
        others = np.stack(
            [
                np.full(len(turned), -np.inf)
                if own.complete
                else own.cosines[:, -1] + self._parts[number].error
                for number, own in zip(parts, found, strict=True)
            ],
            axis=1,
        )
        return _Answers(places, most, others + rounding + UNIT)

    def _proven(
        self,
        probe: Rows,
        turned: Rows,
        length: float,
        k: int,
        known: NDArray[np.intp],
        answer: tuple[NDArray[np.int64], Rows, NDArray[np.float64]],
    ) -> NDArray[np.intp]:
        """Return all rows that may be among the ``k`` nearest of one probe; asks deeper where it must.

        Args:
            probe: float32[D].
            turned: float32[1, D], its direction, turned.
            length: Its norm.
            k: How many.
            known: Rows to measure anyway.
            answer: Of all parts; see ``_Answers``.
        """
        places, most, others = answer
        usable = (self._keys[places] != NOBODY) & ~self._measured[places]
        places, most = places[usable], most[usable]
        # The k-th nearest of a few good candidates is no nearer than the k-th nearest of all.
        few = min(2 * k + 32, places.size)
        first = places if few == places.size else places[np.argpartition(-most, few)[:few]]
        least = self._least_cosine(probe, length, np.concatenate([known, first]), k)
        depth = self._depth
        short = np.flatnonzero(others >= least)
        kept = [known, places[most >= least]]
        needed = kept[1].size // len(others)
        while short.size:
            # The weakest answer of these parts could still be among the nearest, so there may be more.
            depth = min(4 * depth, self._part)
            places, most, others = self._asked(turned, short.tolist(), depth).of(0)
            near = places[most >= least]
            kept.append(near[(self._keys[near] != NOBODY) & ~self._measured[near]])
            needed = max(needed, near.size // short.size)
            short = short[others >= least]
        # Well above what lately was needed: asking a few parts anew costs more than asking all of them for
        # more rows.
        self._depth = max(DEPTH, round(0.9 * self._depth + 0.1 * min(2.5 * needed + 64, self._part)))
        candidates = np.concatenate(kept)
        if len(kept) > 2:  # parts that were asked twice named some rows twice
            candidates = np.unique(candidates)
        within = self._scan(self._rows[candidates], self._norms[candidates], probe[None, :], k)[0]
        return candidates[within]

    def _least_cosine(self, probe: Rows, length: float, places: NDArray[np.intp], k: int) -> float:
        """Return a cosine that each of the ``k`` nearest rows reaches."""
        if places.size < k:
            return -2.0
        exact = distances(probe, self._rows[places], self._metric)
        farthest = float(np.partition(exact, k - 1)[k - 1])
        if self._metric == "cosine":
            return 1.0 - farthest - ROUNDING
        # |x - p| <= d  =>  cos(x, p) >= (|x|^2 + |p|^2 - d^2) / (2 |x| |p|), for |x| within UNIT of 1.
        above = (1.0 - UNIT) ** 2 + length**2 - farthest**2
        return above / (2.0 * length * ((1.0 + UNIT) if above > 0 else (1.0 - UNIT))) - ROUNDING

    def _scan(
        self, rows: Rows, norms: Rows, probes: Rows, k: int, usable: NDArray[np.bool_] | None = None
    ) -> list[NDArray[np.intp]]:
        """Return for each probe which rows may be among its ``k`` nearest, by a scan in float32."""
        size = len(rows)
        there = size if usable is None else int(np.count_nonzero(usable))
        if k >= there:
            every = np.arange(size) if usable is None else np.flatnonzero(usable)
            return [every] * len(probes)
        scores = np.empty((len(probes), size), np.float32)
        for start in range(0, size, BLOCK):
            block = slice(start, start + BLOCK)
            scores[:, block] = self._scores(rows[block], norms[block], probes)
        scale = self._scale(norms, probes, scores)
        if usable is not None:
            scores[:, ~usable] = np.inf
        # A dot product of D float32 terms is off by at most about D * 2**-24 of the operands' norms
        # (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1); four such errors meet here.
        slack = 4.0 * (rows.shape[1] + 4) * 2.0**-24 * np.maximum(scale, 1e-30)
        limits = np.partition(scores, k - 1, axis=1)[:, k - 1] + 2.0 * slack
        if not np.isfinite(limits).all():  # squares that overflow float32 rank nothing: all are measured
            return [np.arange(size) if usable is None else np.flatnonzero(usable)] * len(probes)
        return [np.flatnonzero(own <= limit) for own, limit in zip(scores, limits, strict=True)]

    def _scores(self, rows: Rows, norms: Rows, probes: Rows) -> Rows:
        """Return float32[Q, n] that rank rows as their distances do, smaller for nearer."""
        if self._metric == "l1":
            return np.stack([np.abs(rows - probe).sum(axis=1) for probe in probes])
        # Both orders are those of a.b when rows have norm 1; in general the norms are needed.
        products = probes @ rows.T
        if self._metric == "euclidean":
            return np.asarray(norms - 2.0 * products, np.float32)
        return np.asarray(-products / np.sqrt(np.maximum(norms, np.finfo(np.float32).tiny)), np.float32)

    def _scale(self, norms: Rows, probes: Rows, scores: Rows) -> NDArray[np.float64]:
        """Return float64[Q], the size of what is rounded in each probe's scores."""
        squares = np.square(probes.astype(np.float64)).sum(axis=1)
        if self._metric == "l1":
            return np.asarray(scores.max(axis=1, initial=1.0), np.float64)
        if self._metric == "euclidean":
            return np.asarray(float(norms.max(initial=1.0)) + squares)
        return np.asarray(np.sqrt(squares))

    # --- snapshots

    @property
    def size(self) -> int:
        """Rows in use or free, from the first to the last in use."""
        return self._size

    def copy(self, places: NDArray[np.intp]) -> Rows:
        """Return a copy of some rows of the matrix, float32[n, D]."""
        return self._rows[places]

    def state(self) -> State:
        """Return what ``from_state`` needs; ``rows`` is a view, all else a copy."""
        return State(
            self._keys[: self._size].copy(),
            self._rows[: self._size],
            tuple((part.to_bytes(), part.levels, part.errors) for part in self._parts),
            self._measured[: self._size].copy(),
        )

    @classmethod
    def from_state(
        cls,
        state: State,
        metric: Metric,
        *,
        pool: Executor | None = None,
        part: int = PART,
        least_parts: int = LEAST_PARTS,
    ) -> Gallery:
        """Return a gallery equal to the one that gave the state; it takes the arrays over.

        Raises:
            EngineError: The state's parts cannot be used.
            ImportError: The search engine is not installed.
        """
        made = cls(state.rows.shape[1], metric, pool=pool, part=part, least_parts=least_parts)
        made._take(state)
        return made

    def _take(self, state: State) -> None:
        size, room = len(state.keys), len(state.rows)
        self._rows, self._size = state.rows, size
        self._keys, self._measured = np.full(room, NOBODY), np.zeros(room, np.bool_)
        self._keys[:size], self._measured[:size] = state.keys, state.measured
        self._norms = np.zeros(room, np.float32)
        for start in range(0, size, BLOCK):
            block = slice(start, min(start + BLOCK, size))
            self._norms[block] = np.square(self._rows[block]).sum(axis=1)
        self._free = np.flatnonzero(state.keys == NOBODY).tolist()
        self._count_keys()
        self._parts = [Quantised.from_bytes(*each) for each in state.parts]
        self._errors = np.concatenate([np.empty(0, np.float32), *(part.errors for part in self._parts)])
        self._tidy()
