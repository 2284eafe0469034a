"""Compare every image with every other: from embeddings to the trials of an ``Evidence``.

Pairs of one subject are mated trials, pairs of two subjects non-mated ones. The non-mated distances are
first counted in cells of distance by float32 products in blocks; the counts say where the tail ends, and a
second pass measures the trials of the tail exactly, as every comparison with a threshold does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.matching.distances import Metric, distances
from app.matching.evidence import Evidence, Histogram
from app.matching.open_set import open_set_curve

TAIL_SHARE: Final = 0.012
"""Share of the non-mated trials that is kept: enough to read thresholds up to a false match rate of 1e-2."""
LARGEST_TAIL: Final = 2_000_000
"""Trials kept at most."""
LARGEST_TOTAL: Final = 20_000_000
"""Non-mated trials above which fewer images of each subject take part in them: it is subjects that count as
independent, and one image of each of 6,000 shows smaller rates than all images of 300."""

_CELLS: Final = 512
_VALUES_AT_ONCE: Final = 8_000_000
"""Distances of one block; 32 MB."""


def all_trials(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int32],
    metric: Metric,
    *,
    closed: bool = False,
    tail_share: float = TAIL_SHARE,
    largest_total: int = LARGEST_TOTAL,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Evidence:
    """Compare every embedding with every later one.

    Args:
        embeddings: float32[N, D].
        labels: int32[N], the subject of each; numbered from 0 without gaps.
        metric: How they are compared.
        closed: The subjects are all there are, as the ten digits are, and no sample of more. Chance then lies
            in the images alone, so the evidence names images where it otherwise names subjects, and its
            bounds count those as independent. There are no strangers, so no open-set curve either.
        tail_share: Share of the non-mated trials that is kept, up to ``LARGEST_TAIL``.
        largest_total: Non-mated trials above which only some images of each subject take part in them: as
            many as keep below it, at least one.
        seed: Of the draw of those images.
        progress: Called with the number of rows just done, twice for each image that takes part.

    Returns:
        All mated trials, the closest of the non-mated ones, counts of the rest, and the open-set curve.

    Raises:
        ValueError: There is no pair of two subjects.
    """
    taken = np.arange(labels.size) if closed else _thinned(labels, largest_total, seed)
    total = _between_subjects(np.bincount(labels[taken]))
    if total == 0:
        raise ValueError("images of two subjects are needed")
    keep = max(1, min(int(total * tail_share), LARGEST_TAIL))
    blocks = _Blocks(embeddings[taken], labels[taken], metric)
    histogram = Histogram(*blocks.counted(progress))
    images, distance = blocks.closest(_reach(histogram, keep, total), progress)
    nearest = np.argsort(distance, kind="stable")[:keep]
    images, distance = images[nearest], distance[nearest]
    units = np.arange(labels.size, dtype=np.int32) if closed else labels.astype(np.int32)
    mated, of_image = _mated(embeddings, labels, metric)
    return Evidence(
        mated_distance=mated,
        mated_subject=units[of_image],
        nonmated_distance=distance,
        nonmated_subjects=units[taken[images]],
        nonmated_total=total,
        subjects=int(labels.size if closed else labels.max() + 1),
        histogram=histogram,
        open_set=None if closed else open_set_curve(distance, images, labels[taken]),
    )


def _between_subjects(images: NDArray[np.int64]) -> int:
    """Return how many pairs of images of two subjects there are, from the images of each."""
    return (int(images.sum()) ** 2 - int(np.square(images).sum())) // 2


def _thinned(labels: NDArray[np.int32], largest_total: int, seed: int) -> NDArray[np.intp]:
    """Return the images that take part in non-mated trials, in order: all, or some of each subject."""
    images = np.bincount(labels)
    if _between_subjects(images) <= largest_total:
        return np.arange(labels.size)
    most = max(1, int(images.max()) - 1)
    while most > 1 and _between_subjects(np.minimum(images, most)) > largest_total:
        most -= 1
    drawn = np.random.default_rng(seed).permutation(labels.size)
    drawn = drawn[np.argsort(labels[drawn], kind="stable")]
    place = np.arange(labels.size) - np.repeat(np.cumsum(images) - images, images)
    return np.sort(drawn[place < most])


def _mated(
    embeddings: NDArray[np.float32], labels: NDArray[np.int32], metric: Metric
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the distance of every mated trial, and one of its images."""
    by_subject = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    found, images = [np.empty(0)], [np.empty(0, np.intp)]
    for rows in by_subject:
        first, second = np.triu_indices(rows.size, 1)
        if first.size:
            found.append(distances(embeddings[rows[first]], embeddings[rows[second]], metric))
            images.append(rows[first])
    return np.concatenate(found), np.concatenate(images)


def _reach(histogram: Histogram, keep: int, total: int) -> float:
    """Return a distance within which at least so many trials lie: the far edge of the cell after theirs."""
    if keep == total:
        return math.inf
    cell = int(np.searchsorted(np.cumsum(histogram.counts), keep))
    return float(histogram.edges[min(cell + 2, histogram.counts.size)])


class _Blocks:
    """Non-mated pairs in blocks of rows, each with all later images."""

    def __init__(self, embeddings: NDArray[np.float32], labels: NDArray[np.int32], metric: Metric) -> None:
        self._metric: Metric = metric
        self._rows = np.ascontiguousarray(embeddings, np.float32)
        self._labels = labels
        if metric == "cosine":
            lengths = np.sqrt(np.square(self._rows).sum(axis=1, keepdims=True))
            self._rows = self._rows / np.maximum(lengths, np.finfo(np.float32).tiny)
        self._exact = embeddings
        self._squares = np.square(self._rows).sum(axis=1)
        if metric == "cosine":
            self._limit = 2.0
        elif metric == "l1":
            self._limit = 2.0 * float(np.abs(self._rows).sum(axis=1).max(initial=0.5))
        else:
            self._limit = 2.0 * math.sqrt(float(self._squares.max(initial=1.0)))

    def counted(self, progress: Callable[[int], None]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return edges and counts of all non-mated trials."""
        counts = np.zeros(_CELLS, np.int64)
        for start, about in self._each(progress):
            others = self._others(start, about.shape)
            cell = np.minimum(about[others] * (_CELLS / self._limit), _CELLS - 1).astype(np.int64)
            counts += np.bincount(cell, minlength=_CELLS)
        return np.linspace(0.0, self._limit, _CELLS + 1), counts

    def closest(
        self, reach: float, progress: Callable[[int], None]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return images int64[K, 2] and exact distances of the non-mated trials within about a distance."""
        # The root magnifies the rounding of float32 where distances are small.
        slack = 2e-3 * self._limit
        images, found = [np.empty((0, 2), np.int64)], [np.empty(0)]
        for start, about in self._each(progress):
            near = self._others(start, about.shape) & (about <= reach + slack)
            row, column = np.nonzero(near)
            pairs = np.stack([row + start, column + start], axis=1)
            images.append(pairs)
            found.append(
                distances(self._exact[pairs[:, 0]], self._exact[pairs[:, 1]], self._metric)
                if pairs.size
                else np.empty(0)
            )
        return np.concatenate(images), np.concatenate(found)

    def _others(self, start: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return bool[R, C], whether images ``start + r`` and ``start + c``, c > r, are of two subjects."""
        later = np.arange(shape[1]) > np.arange(shape[0])[:, None]
        return np.asarray(
            later & (self._labels[start : start + shape[0], None] != self._labels[None, start:])
        )

    def _each(self, progress: Callable[[int], None]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the first row of each block, and its distances float32[R, N - start] in single precision."""
        count, start = self._labels.size, 0
        width = self._rows.shape[1] if self._metric == "l1" else 1
        while start < count:
            rows = max(1, min(count - start, _VALUES_AT_ONCE // ((count - start) * width)))
            yield start, self._about(start, rows)
            start += rows
            progress(rows)

    def _about(self, start: int, rows: int) -> NDArray[np.float32]:
        these, all_later = self._rows[start : start + rows], self._rows[start:]
        if self._metric == "l1":
            return np.asarray(np.abs(these[:, None] - all_later[None]).sum(axis=2), np.float32)
        products = these @ all_later.T
        if self._metric == "cosine":
            return np.asarray(np.clip(1.0 - products, 0.0, 2.0))
        squares = self._squares[start : start + rows, None] + self._squares[None, start:] - 2.0 * products
        return np.asarray(np.sqrt(np.maximum(squares, 0.0)))
