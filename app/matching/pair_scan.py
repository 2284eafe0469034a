"""Compare every embedding with every other one, block by block: the close pairs, and counts of the rest.

A matrix product in float32 finds what is near enough to matter; whatever is kept, or lies so near a threshold
that rounding could put it on the other side, is measured again in float64 by ``app.matching.distances``. So
pairs, distances and counts are those of a full float64 comparison, however many threads the product runs on.

The scan goes through blocks of rows. Between two of them its whole state is a few arrays (``state``), from
which it goes on to the same result.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.matching.distances import Metric, distances

ROWS: Final = 512
"""Rows of a block: what is lost at most when a scan is broken off."""
_COLUMNS: Final = 4096
_L1_CELLS: Final = 2_000_000
"""Differences in memory at once; the sum of absolute differences has no matrix product."""
_MEASURED_AT_ONCE: Final = 65_536
PAIRS_KEPT: Final = 2_000_000
"""Close pairs remembered, 16 bytes each; of more, the closest."""


class StaleStateError(ValueError):
    """A saved state belongs to other embeddings, labels or thresholds."""


class PairScan:
    """Every pair of embeddings with different labels. Call ``step`` until ``done``."""

    def __init__(
        self,
        embeddings: NDArray[np.float32],
        labels: NDArray[np.int32],
        metric: Metric,
        *,
        thresholds: NDArray[np.float64],
        load_threshold: float,
        keep: float,
        most_kept: int = PAIRS_KEPT,
    ) -> None:
        """Prepare a scan.

        Args:
            embeddings: float32[N, D].
            labels: int32[N], numbered from 0 without gaps.
            metric: How they are compared.
            thresholds: float64[T], rising; pairs at or below each are counted.
            load_threshold: The one of them at which each label's close pairs are counted.
            keep: Distance up to which pairs are kept, at most the last threshold.
            most_kept: Of more than this the closest are kept, ties in order of their rows.

        Raises:
            ValueError: The shapes contradict one another, or a number is not finite.
        """
        if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
            raise ValueError("embeddings must be [N, D] and labels [N]")
        if not np.isfinite(embeddings).all():
            raise ValueError("an embedding has a number that is not finite")
        self.labels = labels
        self.counts = np.bincount(labels).astype(np.int64) if labels.size else np.zeros(0, np.int64)
        if (self.counts == 0).any():
            raise ValueError("labels must be numbered from 0 without gaps")
        self._embeddings = np.ascontiguousarray(embeddings, np.float32)
        self._metric = metric
        self._thresholds = thresholds
        self._load_level = int(np.searchsorted(thresholds, load_threshold))
        self._most_kept = most_kept
        self._columns, self._limits, self._slack = self._prepared()
        self.row = 0
        self.keep = min(keep, float(thresholds[-1]))
        self.seen = np.zeros(thresholds.size, np.int64)
        self.load = np.zeros(self.counts.size, np.float64)
        self.first = np.zeros(0, np.int32)
        self.second = np.zeros(0, np.int32)
        self.distance = np.zeros(0, np.float64)

    @property
    def done(self) -> bool:
        """Whether every block was compared."""
        return self.row >= self.labels.size

    @property
    def steps(self) -> int:
        """Pairs of rows in all, those of one label and the mirrored ones of a block included."""
        return self._pairs_before(self.labels.size)

    @property
    def steps_done(self) -> int:
        """Pairs of rows that were compared."""
        return self._pairs_before(self.row)

    def _pairs_before(self, end: int) -> int:
        size = self.labels.size
        return sum(min(ROWS, size - row) * (size - row) for row in range(0, end, ROWS))

    @property
    def compared(self) -> int:
        """Pairs of different labels in all."""
        size = int(self.labels.size)
        return (size * size - int(np.square(self.counts).sum())) // 2

    def step(self) -> int:
        """Compare the next block of rows with itself and everything after it; returns the pairs of rows."""
        start, size = self.row, self.labels.size
        stop = min(start + ROWS, size)
        kept = [(self.first, self.second, self.distance)]
        for begin in range(start, size, _COLUMNS):
            end = min(begin + _COLUMNS, size)
            scores = self._scores(start, stop, begin, end)
            near = np.flatnonzero(scores <= self._limits[-1] + self._slack)
            first, second = np.divmod(near, end - begin)
            first, second = (first + start).astype(np.int32), (second + begin).astype(np.int32)
            different = (second > first) & (self.labels[first] != self.labels[second])
            kept += self._taken(first[different], second[different], scores.ravel()[near[different]])
        firsts, seconds, apart = zip(*kept, strict=True)
        self.first, self.second = np.concatenate(firsts), np.concatenate(seconds)
        self.distance = np.concatenate(apart)
        self.row = stop
        if self.distance.size > self._most_kept and (self.done or self.distance.size > 2 * self._most_kept):
            self._forget_the_farthest()
        return (stop - start) * (size - start)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that a later ``resume`` needs, as arrays for an npz file."""
        return {
            "fingerprint": np.array(self.fingerprint()),
            "row": np.array(self.row, np.int64),
            "keep": np.array(self.keep, np.float64),
            "seen": self.seen,
            "load": self.load,
            "first": self.first,
            "second": self.second,
            "distance": self.distance,
        }

    def resume(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Go on where a state was taken.

        Raises:
            StaleStateError: It is of another scan.
            KeyError: It lacks an array.
        """
        if str(state["fingerprint"]) != self.fingerprint():
            raise StaleStateError("the state belongs to other embeddings, labels or thresholds")
        self.row, self.keep = int(state["row"]), float(state["keep"])
        self.seen = state["seen"].astype(np.int64)
        self.load = state["load"].astype(np.float64)
        self.first, self.second = state["first"].astype(np.int32), state["second"].astype(np.int32)
        self.distance = state["distance"].astype(np.float64)

    def fingerprint(self) -> str:
        """Return a hex SHA-256 of what is compared and how."""
        digest = hashlib.sha256(f"{self._metric} {ROWS} {_COLUMNS} {self._most_kept}".encode())
        for array in (self._embeddings, self.labels, self._thresholds):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(str(self._load_level).encode())
        return digest.hexdigest()

    def _prepared(self) -> tuple[NDArray[np.float32], NDArray[np.float64], float]:
        """Return the columns as they are multiplied, the thresholds as scores, and the worst rounding error.

        A dot product of D float32 terms is off by at most D * 2**-24 of the sum of their sizes (Higham,
        "Accuracy and Stability of Numerical Algorithms", 3.1); twice that is allowed for.
        """
        rows = self._embeddings
        unit = 2.0 * (rows.shape[1] + 4) * 2.0**-24
        if self._metric == "l1":
            return rows, self._thresholds, unit * float(self._thresholds[-1])
        squares = np.square(rows, dtype=np.float64).sum(axis=1)
        if self._metric == "cosine":
            norms = np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny))
            unit_rows = (rows / norms[:, None]).astype(np.float32)
            return unit_rows, self._thresholds, 2.0 * unit
        # [x, |x|^2, 1] times [-2y, 1, |y|^2] is the squared distance: one product, nothing to add after it.
        ones = np.ones_like(squares)
        columns = np.column_stack([rows, squares, ones]).astype(np.float32)
        return columns, np.square(self._thresholds), 4.0 * unit * float(squares.max(initial=0.0))

    def _scores(self, start: int, stop: int, begin: int, end: int) -> NDArray[np.float32]:
        rows, columns = self._columns[start:stop], self._columns[begin:end]
        if self._metric == "l1":
            scores = np.empty((stop - start, end - begin), np.float32)
            at_once = max(1, _L1_CELLS // max(1, columns.size))
            for row in range(0, stop - start, at_once):
                part = rows[row : row + at_once, None, :] - columns[None, :, :]
                scores[row : row + at_once] = np.abs(part, out=part).sum(axis=2)
            return scores
        if self._metric == "cosine":
            product = rows @ columns.T
            return np.asarray(np.subtract(np.float32(1.0), product, out=product))
        turned = rows.copy()
        turned[:, :-2] *= -2.0
        turned[:, -2:] = rows[:, :-3:-1]
        return np.asarray(turned @ columns.T)

    def _taken(
        self, first: NDArray[np.int32], second: NDArray[np.int32], scores: NDArray[np.float32]
    ) -> list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]]:
        """Count candidates; returns those that are close enough to be kept, with their distances."""
        taken = []
        level = np.searchsorted(self._limits, scores, side="left")
        above = np.append(self._limits, np.inf)[level] - scores
        below = scores - np.insert(self._limits, 0, -np.inf)[level]
        keep = self.keep**2 if self._metric == "euclidean" else self.keep
        doubtful = np.flatnonzero((np.minimum(above, below) <= self._slack) | (scores <= keep + self._slack))
        for begin in range(0, doubtful.size, _MEASURED_AT_ONCE):
            part = doubtful[begin : begin + _MEASURED_AT_ONCE]
            one, other = first[part], second[part]
            apart = distances(self._embeddings[one], self._embeddings[other], self._metric)
            level[part] = np.searchsorted(self._thresholds, apart, side="left")
            kept = apart <= self.keep
            taken.append((one[kept], other[kept], apart[kept]))
        self.seen += np.cumsum(np.bincount(level, minlength=self._thresholds.size + 1))[:-1]
        loaded = level <= self._load_level
        one, other = self.labels[first[loaded]], self.labels[second[loaded]]
        weight = 1.0 / (self.counts[one] * self.counts[other])
        for side in (one, other):
            self.load += np.bincount(side, weight, minlength=self.load.size)
        return taken

    def _forget_the_farthest(self) -> None:
        nearest = np.lexsort((self.second, self.first, self.distance))[: self._most_kept]
        self.first, self.second = self.first[nearest], self.second[nearest]
        self.distance = self.distance[nearest]
        self.keep = float(self.distance[-1])
