"""Embed many image files on all cores, for the command line and offline evaluation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.encoding.cores import available_cores
from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageEncoder, ImageInput, Timings
from app.encoding.preprocess import Prepared
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


@dataclass(frozen=True)
class Encoded:
    """One file's embedding float32[D], and the input it was made from."""

    embedding: NDArray[np.float32]
    prepared: Prepared


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
    embeddings = np.zeros((len(paths), encoder.encoding.dimensions), np.float32)
    reasons = [""] * len(paths)
    for index, outcome in enumerate(encode_files(encoder, paths, choice)):
        if isinstance(outcome, ImageError):
            reasons[index] = f"{outcome.code}: {outcome}"
        else:
            embeddings[index] = outcome.embedding
        progress(1)
    ok = np.array([not reason for reason in reasons], np.bool_)
    return Embedded(tuple(paths), embeddings, ok, tuple(reasons))


def encode_files(
    encoder: ImageEncoder, paths: Sequence[Path], choice: FaceChoice
) -> Iterator[Encoded | ImageError]:
    """Yield what comes of each file, in their order; a few are worked on ahead.

    Args:
        encoder: The model's encoder.
        paths: Image files.
        choice: Which face counts when a picture has several.
    """

    def work(path: Path) -> Encoded:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ImageUnreadableError(f"the file cannot be read: {error.strerror}") from error
        timings = Timings()
        prepared = encoder.prepare(ImageInput(data), choice, timings)
        return Encoded(encoder.encode([prepared], timings)[0], prepared)

    def outcome(future: Future[Encoded]) -> Encoded | ImageError:
        try:
            return future.result()
        except ImageError as error:
            return error

    threads = available_cores()
    waiting: deque[Future[Encoded]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for path in paths:
                waiting.append(pool.submit(work, path))
                if len(waiting) > 4 * threads:
                    yield outcome(waiting.popleft())
            while waiting:
                yield outcome(waiting.popleft())
        finally:
            for future in waiting:  # whoever breaks off waits for what runs, not for what would
                future.cancel()
