"""Which pairs a step trains on where the pairs are given, not drawn: texts, and samples of two kinds.

As in ``samplers``, every sampler is a function of seed and step alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.errors import DataError
from training.data.samplers import Pairs


class GivenPairs:
    """Given pairs, half mated and half not in each batch, each kind in its own order.

    All pairs of a kind come once before one comes again, in a new order each time.

    Raises:
        ValueError: The batch is odd.
        DataError: There are no pairs of a kind.
    """

    def __init__(self, same: NDArray[np.bool_], batch: int, seed: int) -> None:
        if batch < 2 or batch % 2:
            raise ValueError(f"batch: an even number of pairs wanted, half of each kind, not {batch}")
        self._kinds = tuple(np.flatnonzero(same == kind).astype(np.int32) for kind in (True, False))
        if not all(kind.size for kind in self._kinds):
            raise DataError("the training pairs are all of one kind; both are needed")
        self._half, self._seed = batch // 2, seed

    def __call__(self, step: int) -> Pairs:
        """Return the pairs of a step; row i is on the left as on the right."""
        chosen = [self._turn(kind, step) for kind in range(2)]
        rows = np.concatenate(chosen)
        mixed = np.random.default_rng([self._seed, step, 2]).permutation(rows.size)
        return Pairs(rows, rows, np.arange(rows.size) < self._half).take(mixed)

    def _turn(self, kind: int, step: int) -> NDArray[np.int32]:
        """Return this step's share of an endless sequence of permutations."""
        rows = self._kinds[kind]
        places = step * self._half + np.arange(self._half)
        turns, within = np.divmod(places, rows.size)
        out = np.empty(self._half, np.int32)
        for turn in np.unique(turns):
            order = np.random.default_rng([self._seed, int(turn), kind]).permutation(rows)
            out[turns == turn] = order[within[turns == turn]]
        return out


class CrossPairSampler:
    """Fresh pairs of two kinds of samples for each step: half mated, half not, in random order.

    Left samples are equally likely. The right one of a mated pair is of the same subject, that of a non-mated
    pair of another subject, all others equally likely; among a subject's samples all are.

    Args:
        left: int[N], the subject of each sample of the left kind.
        right: int[M], the subject of each sample of the right kind; has every subject of the left.
        batch: Pairs of a step, even.
        seed: Of the draws.

    Raises:
        ValueError: The batch is odd.
        DataError: A subject of the left kind has no sample of the right, or there is one subject only.
    """

    def __init__(self, left: NDArray[np.integer], right: NDArray[np.integer], batch: int, seed: int) -> None:
        if batch < 2 or batch % 2:
            raise ValueError(f"batch: an even number of pairs wanted, half of each kind, not {batch}")
        self._left, self._batch, self._seed = np.asarray(left), batch, seed
        self._right = _BySubject(self._left, np.asarray(right))

    def __call__(self, step: int) -> Pairs:
        """Return the pairs of a step."""
        rng = np.random.default_rng([self._seed, step])
        left = rng.integers(self._left.size, size=self._batch)
        same = rng.permutation(self._batch) < self._batch // 2
        return Pairs(left.astype(np.int32), self._right.drawn(rng, self._left[left], same), same)


def balanced_cross_pairs(
    left: NDArray[np.integer], right: NDArray[np.integer], count: int, seed: int
) -> Pairs:
    """Return a fixed list of pairs of two kinds of samples, half mated, in random order.

    Every left sample occurs equally often, to within one, among the mated pairs and among the others.

    Raises:
        DataError: See ``CrossPairSampler``.
    """
    left = np.asarray(left)
    known = _BySubject(left, np.asarray(right))
    rng = np.random.default_rng([seed])
    half = count // 2
    rows = []
    for size in (half, count - half):
        rounds = [rng.permutation(left.size) for _ in range(-(-size // left.size))]
        rows.append(np.concatenate(rounds)[:size])
    chosen = np.concatenate(rows).astype(np.int32)
    same = np.arange(count) < half
    return Pairs(chosen, known.drawn(rng, left[chosen], same), same).take(rng.permutation(count))


class _BySubject:
    """Samples of one kind by subject."""

    def __init__(self, left: NDArray[np.integer], right: NDArray[np.integer]) -> None:
        self._subjects, counts = np.unique(right, return_counts=True)
        if self._subjects.size < 2 or not np.isin(left, self._subjects).all():
            raise DataError("pairs of two kinds need two subjects, and both kinds of every subject")
        self._order = np.argsort(right, kind="stable").astype(np.int32)
        self._counts, self._starts = counts, np.cumsum(counts) - counts

    def drawn(
        self, rng: np.random.Generator, subjects: NDArray[np.integer], same: NDArray[np.bool_]
    ) -> NDArray[np.int32]:
        """Return a sample for each subject: of it where ``same``, else of another."""
        place = np.searchsorted(self._subjects, subjects)
        others = 1 + rng.integers(self._subjects.size - 1, size=place.size)
        place = np.where(same, place, (place + others) % self._subjects.size)
        found: NDArray[np.int32] = self._order[self._starts[place] + rng.integers(self._counts[place])]
        return found
