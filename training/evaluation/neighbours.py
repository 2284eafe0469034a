"""k-nearest-neighbour accuracy: are the nearest reference images of the probe's own subject?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.matching.distances import Metric

_BLOCK_ELEMENTS = 4_000_000
"""Distances held at once: 32 MB, however many images there are."""


def knn_accuracy(
    references: NDArray[np.floating],
    reference_labels: NDArray[np.integer],
    probes: NDArray[np.floating],
    probe_labels: NDArray[np.integer],
    *,
    k: int,
    metric: Metric,
) -> float:
    """Return the share of probes whose k nearest references elect the right subject.

    Each of the k has one vote. Where subjects have equally many, the one with the nearest reference wins;
    among references at equal distance the first in their order is the nearer.

    Args:
        references: float[R, D], R of at least k.
        reference_labels: int[R], 0 or more.
        probes: float[P, D], none of them among the references.
        probe_labels: int[P].
        k: Votes.
        metric: The model's.
    """
    nearest = nearest_references(references, probes, k=k, metric=metric)
    votes = reference_labels[nearest]
    counts = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
    # argmax takes the first of equals, and votes are in the order of nearness.
    elected = np.take_along_axis(votes, counts.argmax(axis=1)[:, None], axis=1)[:, 0]
    return float(np.mean(elected == probe_labels))


def nearest_references(
    references: NDArray[np.floating], probes: NDArray[np.floating], *, k: int, metric: Metric
) -> NDArray[np.intp]:
    """Return the k nearest references of each probe, nearest first, equals in their order.

    Ranks only: distances come from a product of matrices here, whose last bits differ from those of
    ``app.matching.distances``, and are not to be held against a threshold.

    Returns:
        intp[P, k].

    Raises:
        ValueError: k is not within 1..R.
    """
    if not 1 <= k <= len(references):
        raise ValueError(f"k is {k}; it must be 1 to the {len(references)} references")
    rows = references.astype(np.float64)
    asked = probes.astype(np.float64)
    if metric == "cosine":
        rows, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, asked))
    squares = np.square(rows).sum(axis=1)
    found = np.empty((len(asked), k), np.intp)
    width = rows.size if metric == "l1" else len(rows)
    block = max(1, _BLOCK_ELEMENTS // width)
    for start in range(0, len(asked), block):
        some = asked[start : start + block]
        if metric == "l1":
            scores = np.abs(some[:, None] - rows).sum(axis=2)
        else:
            scores = squares - 2.0 * (some @ rows.T)
        limit = np.partition(scores, k - 1, axis=1)[:, k - 1 : k]
        for row, score in enumerate(scores):
            close = np.flatnonzero(score <= limit[row])
            found[start + row] = close[np.argsort(score[close], kind="stable")[:k]]
    return found
