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
        float64[N].
    """
    a = np.atleast_2d(np.asarray(probe, np.float64))
    b = np.asarray(references, np.float64)
    if metric == "euclidean":
        return np.asarray(np.sqrt(np.square(b - a).sum(axis=1)))
    if metric == "l1":
        return np.asarray(np.abs(b - a).sum(axis=1))
    norms = np.sqrt(np.square(a).sum(axis=1)) * np.sqrt(np.square(b).sum(axis=1))
    return np.asarray(1.0 - (b * a).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny))


def distance(a: NDArray[np.floating], b: NDArray[np.floating], metric: Metric) -> float:
    """Return the distance of two embeddings float[D]; see ``distances``."""
    return float(distances(a, np.asarray(b)[None, :], metric)[0])
