"""Embed many image files on all cores, for the command line and offline evaluation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.encoding.cores import available_cores
from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageEncoder, ImageInput, Timings
from app.errors import ImageError, ImageUnreadableError


@dataclass(frozen=True)
class Embedded:
    """Embeddings of files in the order given.

    Attributes:
        paths: The files.
        embeddings: float32[N, D]; rows of failures are zero.
        ok: bool[N], whether the file could be embedded.
        reasons: Why not, one text a file; empty where it could.
    """

    paths: tuple[Path, ...]
    embeddings: NDArray[np.float32]
    ok: NDArray[np.bool_]
    reasons: tuple[str, ...]


def embed_files(
    encoder: ImageEncoder,
    paths: Sequence[Path],
    choice: FaceChoice,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Embedded:
    """Embed files; one that fails is reported, not raised.

    Args:
        encoder: The model's encoder.
        paths: Image files.
        choice: Which face counts when a picture has several.
        progress: Called with 1 after each file.
    """
    dimensions = encoder.encoding.dimensions
    embeddings = np.zeros((len(paths), dimensions), np.float32)
    reasons = [""] * len(paths)

    def work(index: int) -> None:
        try:
            data = paths[index].read_bytes()
        except OSError as error:
            raise ImageUnreadableError(f"the file cannot be read: {error.strerror}") from error
        timings = Timings()
        prepared = encoder.prepare(ImageInput(data), choice, timings)
        embeddings[index] = encoder.encode([prepared], timings)[0]

    threads = available_cores()
    waiting: deque[tuple[int, Future[None]]] = deque()

    def finish_oldest() -> None:
        index, future = waiting.popleft()
        try:
            future.result()
        except ImageError as error:
            reasons[index] = f"{error.code}: {error}"
        progress(1)

    with ThreadPoolExecutor(threads) as pool:
        for index in range(len(paths)):
            waiting.append((index, pool.submit(work, index)))
            if len(waiting) > 4 * threads:
                finish_oldest()
        while waiting:
            finish_oldest()
    ok = np.array([not reason for reason in reasons], np.bool_)
    return Embedded(tuple(paths), embeddings, ok, tuple(reasons))
