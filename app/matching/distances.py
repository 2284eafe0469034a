"""Distances between embeddings. Smaller is closer; every comparison with a threshold uses these float64."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Metric = Literal["euclidean", "cosine", "l1"]

MAX_DISTANCE: dict[Metric, float | None] = {"euclidean": 2.0, "cosine": 2.0, "l1": None}
"""Largest distance of unit embeddings; ``l1`` depends on the dimension."""


def distances(
    probe: NDArray[np.floating], references: NDArray[np.floating], metric: Metric
) -> NDArray[np.float64]:
    """Return the distance of one probe to each reference, or of each row to the same row.

    The result for a row does not depend on the other rows, so that verification of one pair, a gallery
    search and an offline evaluation agree to the last bit.

    Args:
        probe: float[D] or float[N, D].
        references: float[N, D].
        metric: ``euclidean`` is ``|a-b|`` (0..2 for unit vectors), ``cosine`` is ``1 - a.b/(|a||b|)``,
            ``l1`` is the sum of absolute differences.

    Returns:
        float64[N]; 0 for equal embeddings, whatever the metric.
    """
    # Row by row in memory: numpy adds up a column-major array in another order, which changes the last bits.
    a = np.atleast_2d(np.ascontiguousarray(probe, np.float64))
    b = np.ascontiguousarray(references, np.float64)
    if metric == "euclidean":
        return np.asarray(np.sqrt(np.square(b - a).sum(axis=1)))
    if metric == "l1":
        return np.asarray(np.abs(b - a).sum(axis=1))
    # One root of the product, because the product of two roots is not exactly the dot product of equals.
    norms = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    cosines = (b * a).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return np.asarray(np.clip(1.0 - cosines, 0.0, 2.0))


def distance(a: NDArray[np.floating], b: NDArray[np.floating], metric: Metric) -> float:
    """Return the distance of two embeddings float[D]; see ``distances``."""
    return float(distances(a, np.asarray(b)[None, :], metric)[0])
