"""Embed prepared images with an exported encoder, on all cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from app.encoding.cores import available_cores
from app.encoding.onnx_session import Graph

BATCH = 64

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Map uint8[N, H, W, C] to float32[N, D]."""


def embed_images(encoder: Graph, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Map uint8[N, H, W, C] to float32[N, D].

    The images must be what the service's own preprocessing makes of a photo; then the embeddings are those of
    the service, to the last bits that depend on the batch.
    """
    starts = range(0, len(images), BATCH)
    with ThreadPoolExecutor(available_cores()) as pool:
        parts = pool.map(lambda start: encoder(images[start : start + BATCH])["embeddings"], starts)
        return np.concatenate(list(parts))
