"""Small batches, each awkward in its own way."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

LABELS: Final = {
    "several subjects": [0, 0, 0, 1, 1, 2, 2, 2],
    "single samples among them": [0, 1, 1, 2, 3, 3, 3, 4],
    "only single samples": [0, 1, 2, 3, 4, 5, 6, 7],
    "one subject": [5, 5, 5, 5, 5, 5, 5, 5],
    "not in order": [7, 0, 7, 3, 0, 3, 7, 0],
}


def spread_out(seed: int, dimensions: int = 3, size: int = 8) -> NDArray[np.float64]:
    """Return float64[size, dimensions] that float32 holds exactly, without ties."""
    drawn = np.random.default_rng(seed).normal(size=(size, dimensions)).astype(np.float32)
    return drawn.astype(np.float64)


def on_a_grid(seed: int, dimensions: int = 2, size: int = 8) -> NDArray[np.float64]:
    """Return points of a 3 x 3 grid: many are equal, and many distances tie exactly."""
    return np.random.default_rng(seed).integers(0, 3, size=(size, dimensions)).astype(np.float64)
