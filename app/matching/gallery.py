"""All references of one collection in memory, and the exact search for the nearest.

The gallery is a copy of committed rows; ``services/galleries.py`` keeps it at the collection's revision.
Rows lie in one preallocated float32 matrix: adding is amortised constant time, removing swaps the last
row in.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.matching.distances import Metric, distances

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Neighbour(Generic[K]):
    """One result of a search."""

    key: K
    distance: float


class Gallery(Generic[K]):
    """A growable set of embeddings by key. Not thread-safe; the owner holds a lock."""

    def __init__(self, dimensions: int, metric: Metric) -> None:
        self._metric = metric
        self._rows = np.empty((64, dimensions), np.float32)
        self._norms = np.empty(64, np.float32)
        self._keys: list[K] = []
        self._index: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: K) -> bool:
        return key in self._index

    @property
    def nbytes(self) -> int:
        """Bytes held by the matrix, spare rows included."""
        return self._rows.nbytes + self._norms.nbytes

    def put(self, key: K, embedding: NDArray[np.float32]) -> None:
        """Add an embedding float32[D], or replace the one of that key."""
        row = self._index.get(key)
        if row is None:
            row = len(self._keys)
            if row == self._rows.shape[0]:
                self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
                self._norms = np.concatenate([self._norms, np.empty_like(self._norms)])
            self._keys.append(key)
            self._index[key] = row
        self._rows[row] = embedding
        self._norms[row] = np.dot(self._rows[row], self._rows[row])

    def discard(self, key: K) -> None:
        """Remove a key; nothing happens if it is not there."""
        row = self._index.pop(key, None)
        if row is None:
            return
        last = len(self._keys) - 1
        if row != last:
            self._rows[row] = self._rows[last]
            self._norms[row] = self._norms[last]
            self._keys[row] = self._keys[last]
            self._index[self._keys[row]] = row
        self._keys.pop()
        self._rows[last] = 0.0  # a deleted template does not linger

    def nearest(self, probe: NDArray[np.float32], k: int) -> list[Neighbour[K]]:
        """Return the ``k`` nearest references, nearest first, ties in order of key text.

        A float32 scan finds every row that could be among the nearest, given its worst rounding error;
        those are measured again in float64. So the order, the ties and the distances are those of a
        full float64 scan.

        Args:
            probe: float32[D].
            k: At least 1.
        """
        size = len(self._keys)
        if size == 0:
            return []
        candidates = self._candidates(np.asarray(probe, np.float32), min(k, size))
        exact = distances(probe, self._rows[candidates], self._metric)
        ranked = sorted(
            zip(exact.tolist(), (self._keys[i] for i in candidates), strict=True),
            key=lambda item: (item[0], str(item[1])),
        )
        return [Neighbour(key, value) for value, key in ranked[:k]]

    def _candidates(self, probe: NDArray[np.float32], k: int) -> NDArray[np.intp]:
        size = len(self._keys)
        if k == size:
            return np.arange(size)
        rows, norms = self._rows[:size], self._norms[:size]
        if self._metric == "l1":
            # Rows are taken in blocks so that the differences never need a second gallery's memory.
            scores = np.concatenate(
                [np.abs(rows[i : i + 8192] - probe).sum(axis=1) for i in range(0, size, 8192)]
            )
            scale = float(scores.max(initial=1.0))
        else:
            # Both orders are those of a.b when rows have norm 1; in general the norms are needed.
            products = rows @ probe
            if self._metric == "euclidean":
                scores = norms - 2.0 * products
                scale = float(norms.max(initial=1.0)) + float(np.dot(probe, probe))
            else:
                scores = -products / np.sqrt(np.maximum(norms, np.finfo(np.float32).tiny))
                scale = float(np.sqrt(np.dot(probe, probe)))
        # A dot product of D float32 terms is off by at most about D * 2**-24 of the operands' norms
        # (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1); four such errors meet here.
        slack = 4.0 * (rows.shape[1] + 4) * 2.0**-24 * max(scale, 1e-30)
        limit = np.partition(scores, k - 1)[k - 1] + 2.0 * slack
        if not np.isfinite(limit):  # squares that overflow float32 rank nothing; the caller measures all
            return np.arange(size)
        return np.flatnonzero(scores <= limit)
