"""Which images make up the batch of a step: pairs, triplets, or P subjects x K images.

Every sampler is a function of seed and step alone. It keeps no place in the data, so a run resumed at step
1000 sees the batches that an unbroken run would have seen.

Mated or not is a boolean array named ``same`` everywhere. The texts disagree about numbers (1 is "same" in
Koch 2015 and "different" in Hadsell 2006); ``same_from_labels`` is the only way in for them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.data.errors import DataError

Indices = NDArray[np.int32]


class LabelConvention(enum.Enum):
    """What the number 1 says of a pair."""

    ONE_IS_SAME = "1 = same"
    ONE_IS_DIFFERENT = "1 = different"


def same_from_labels(values: ArrayLike, convention: LabelConvention) -> NDArray[np.bool_]:
    """Turn the 0/1 labels of pairs into booleans, True for mated pairs.

    Raises:
        TypeError: The values are booleans already; no convention applies to those.
        ValueError: A value is neither 0 nor 1.

    >>> same_from_labels([1, 0], LabelConvention.ONE_IS_DIFFERENT).tolist()
    [False, True]
    """
    numbers = np.asarray(values)
    if numbers.dtype == np.bool_:
        raise TypeError("booleans say 'same' already; pass them on as they are")
    if not np.isin(numbers, (0, 1)).all():
        raise ValueError("labels of pairs are 0 or 1")
    same: NDArray[np.bool_] = numbers == (1 if convention is LabelConvention.ONE_IS_SAME else 0)
    return same


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images by their indices.

    Attributes:
        left: int32[B].
        right: int32[B].
        same: bool[B], True for mated pairs.

    Raises:
        TypeError: ``same`` is not boolean.
        ValueError: The lengths differ.
    """

    left: Indices
    right: Indices
    same: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.same.dtype != np.bool_:
            raise TypeError(f"same: bool wanted, not {self.same.dtype}; see same_from_labels")
        if not self.left.shape == self.right.shape == self.same.shape or self.same.ndim != 1:
            raise ValueError("left, right and same are arrays of one length")

    def __len__(self) -> int:
        return len(self.same)

    def take(self, rows: NDArray[np.integer]) -> Pairs:
        """Return these rows."""
        return Pairs(self.left[rows], self.right[rows], self.same[rows])


class _Subjects:
    """Images sorted by subject, so that one is drawn in constant time whatever the subjects' sizes."""

    def __init__(self, labels: NDArray[np.integer]) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 1 or labels.size == 0 or labels.min() < 0:
            raise ValueError("labels: int[N] from 0 wanted")
        self.labels = labels.astype(np.int32)
        self.order = np.argsort(labels, kind="stable").astype(np.int32)
        self.counts = np.bincount(labels)
        self.starts = np.cumsum(self.counts) - self.counts
        # Position of each image among those of its subject.
        self.rank = np.empty(labels.size, np.int64)
        self.rank[self.order] = np.arange(labels.size) - self.starts[labels[self.order]]
        self.present = np.flatnonzero(self.counts)
        self.several = np.flatnonzero(self.counts > 1)

    def need(self, *, several: bool = False, different: bool = False) -> None:
        """Refuse labels without a mated pair, or without a non-mated one."""
        if several and not self.several.size:
            raise DataError("no subject has two images, so there is no mated pair to train on")
        if different and self.present.size < 2:
            raise DataError("all images show one subject, so there is no non-mated pair to train on")

    def image(self, subjects: NDArray[np.integer], ranks: NDArray[np.integer]) -> Indices:
        found: Indices = self.order[self.starts[subjects] + ranks]
        return found

    def any_image(self, rng: np.random.Generator, subjects: NDArray[np.integer]) -> Indices:
        return self.image(subjects, rng.integers(self.counts[subjects]))

    def mate(self, rng: np.random.Generator, images: Indices) -> Indices:
        """Return another image of the same subject for each, all equally likely."""
        subjects = self.labels[images]
        count = self.counts[subjects]
        return self.image(subjects, (self.rank[images] + 1 + rng.integers(count - 1)) % count)

    def stranger(self, rng: np.random.Generator, images: Indices) -> Indices:
        """Return an image of another subject for each, all other subjects equally likely."""
        place = np.searchsorted(self.present, self.labels[images])
        step = 1 + rng.integers(self.present.size - 1, size=place.shape)
        return self.any_image(rng, self.present[(place + step) % self.present.size])


class PKSampler:
    """Batches of P subjects with K images each, P * K indices, images of a subject side by side.

    Subjects take turns: between two batches of one subject, (nearly) all others come. Images of a subject
    are drawn without replacement; one with fewer than K gives each of them about equally often. With K above
    1, subjects with a single image are left out: they have no mated pair.

    Raises:
        DataError: Fewer than P subjects remain.

    Source: Hermans, Beyer, Leibe (2017), "In Defense of the Triplet Loss", section 2.
    """

    def __init__(
        self, labels: NDArray[np.integer], subjects_per_batch: int, samples_per_subject: int, seed: int
    ) -> None:
        self._subjects = _Subjects(labels)
        self._p, self._k, self._seed = subjects_per_batch, samples_per_subject, seed
        self._usable = self._subjects.several if self._k > 1 else self._subjects.present
        if self._usable.size < self._p:
            several = " with two images or more" if self._k > 1 else ""
            raise DataError(
                f"a batch takes {self._p} subjects and the data has {self._usable.size}{several}; "
                "take fewer subjects a batch"
            )
        self.steps_per_round = self._usable.size // self._p
        """Steps in which every subject comes once, but for a rest smaller than a batch."""

    def __call__(self, step: int) -> Indices:
        """Return int32[P*K], the images of a step."""
        turn, place = divmod(step, self.steps_per_round)
        order = np.random.default_rng([self._seed, turn]).permutation(self._usable)
        subjects = order[place * self._p : (place + 1) * self._p]
        rng = np.random.default_rng([self._seed, turn, 1 + place])
        ranks = _distinct(rng, self._subjects.counts[subjects], self._k)
        return self._subjects.image(subjects[:, None], ranks).reshape(-1)


def _distinct(rng: np.random.Generator, counts: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Draw k numbers below each count, different as far as the count allows, then over again.

    The cost does not depend on the counts (Floyd's algorithm: Bentley and Floyd 1987, CACM 30(9)).

    Returns:
        int64[len(counts), k].
    """
    draws = rng.random((len(counts), k))
    different = np.minimum(counts, k)
    chosen = np.full((len(counts), k), -1, np.int64)
    for column in range(k):
        highest = counts - different + column
        drawn = (draws[:, column] * (highest + 1)).astype(np.int64)
        taken = (chosen[:, :column] == drawn[:, None]).any(axis=1)
        chosen[:, column] = np.where(taken, highest, drawn)
    again = np.arange(k)[None, :] % different[:, None]
    return np.take_along_axis(chosen, again, axis=1)


class PairSampler:
    """Fresh pairs for each step: half mated, half not, in random order.

    Mated pairs are two different images of a subject, the subjects equally likely; so are the two subjects of
    a non-mated pair.

    Raises:
        ValueError: The batch is odd.
        DataError: There are no mated or no non-mated pairs.
    """

    def __init__(self, labels: NDArray[np.integer], batch: int, seed: int) -> None:
        if batch < 2 or batch % 2:
            raise ValueError(f"batch: an even number of pairs wanted, half of each kind, not {batch}")
        self._subjects = _Subjects(labels)
        self._subjects.need(several=True, different=True)
        self._batch, self._seed = batch, seed

    def __call__(self, step: int) -> Pairs:
        """Return the pairs of a step."""
        rng = np.random.default_rng([self._seed, step])
        known, half = self._subjects, self._batch // 2
        left = np.concatenate(
            [
                known.any_image(rng, rng.choice(known.several, half)),
                known.any_image(rng, rng.choice(known.present, half)),
            ]
        )
        right = np.concatenate([known.mate(rng, left[:half]), known.stranger(rng, left[half:])])
        return Pairs(left, right, np.arange(self._batch) < half).take(rng.permutation(self._batch))


class TripletSampler:
    """Fresh triplets for each step, drawn without looking at distances.

    Raises:
        DataError: There are no mated or no non-mated pairs.
    """

    def __init__(self, labels: NDArray[np.integer], batch: int, seed: int) -> None:
        self._subjects = _Subjects(labels)
        self._subjects.need(several=True, different=True)
        self._batch, self._seed = batch, seed

    def __call__(self, step: int) -> Indices:
        """Return int32[B, 3]: anchor, positive, negative."""
        rng = np.random.default_rng([self._seed, step])
        anchor = self._subjects.any_image(rng, rng.choice(self._subjects.several, self._batch))
        positive = self._subjects.mate(rng, anchor)
        return np.stack([anchor, positive, self._subjects.stranger(rng, anchor)], axis=1)


class FixedPairs:
    """The same pairs again each epoch, as the texts do, in a new order.

    The pairs that fill no whole batch are left out of their epoch; every epoch leaves out others.

    Raises:
        DataError: There are fewer pairs than a batch takes.
    """

    def __init__(self, pairs: Pairs, batch: int, seed: int) -> None:
        if len(pairs) < batch:
            raise DataError(f"a batch takes {batch} pairs and there are {len(pairs)}; take fewer a batch")
        self._pairs, self._batch, self._seed = pairs, batch, seed
        self.steps_per_epoch = len(pairs) // batch
        self._order = (-1, np.empty(0, np.int64))

    def __call__(self, step: int) -> Pairs:
        """Return the pairs of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._pairs))
            self._order = (epoch, order)
        return self._pairs.take(order[place * self._batch : (place + 1) * self._batch])


def balanced_pairs(labels: NDArray[np.integer], n_same: int, n_different: int, seed: int) -> Pairs:
    """Return a fixed list of pairs, mated and non-mated, in random order.

    Every image (of subjects with two or more, for mated pairs) is the left one equally often, to within one.
    The right one is another image of the subject, or an image of another subject, all of them equally likely.
    A pair may occur twice.

    Raises:
        DataError: There are no pairs of a kind that is asked for.
    """
    known = _Subjects(labels)
    known.need(several=n_same > 0, different=n_different > 0)
    rng = np.random.default_rng([seed])
    mated = _in_turn(rng, np.flatnonzero(known.counts[known.labels] > 1), n_same)
    nonmated = _in_turn(rng, np.arange(known.labels.size), n_different)
    left = np.concatenate([mated, nonmated])
    right = np.concatenate(
        [
            known.mate(rng, mated) if n_same else mated,
            known.stranger(rng, nonmated) if n_different else nonmated,
        ]
    )
    return Pairs(left, right, np.arange(left.size) < n_same).take(rng.permutation(left.size))


def _in_turn(rng: np.random.Generator, images: NDArray[np.integer], total: int) -> Indices:
    """Return a total of images in which each occurs equally often, to within one."""
    rounds = [rng.permutation(images) for _ in range(-(-total // max(1, images.size)))]
    return np.concatenate([np.empty(0, np.int64), *rounds])[:total].astype(np.int32)
