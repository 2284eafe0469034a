"""Image files to encoder inputs on all cores, with the code that the service runs on an upload."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.encoding.cores import available_cores
from app.encoding.intake import IntakeLimits, decode_image
from app.encoding.manifest import InputSpec, WholeImage
from app.encoding.preprocess import prepare_whole

LIMITS: Final = IntakeLimits()
"""The service's own limits, so that nothing is trained on that would not be let in."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def prepare_bytes(data: bytes, spec: InputSpec, how: WholeImage) -> NDArray[np.uint8]:
    """Return uint8[H, W, C] of one image file, exactly as the service would hand it to the encoder.

    Raises:
        ImageError: The service would refuse the file.
    """
    return prepare_whole(decode_image(data, LIMITS), how, spec).pixels


def on_all_cores(work: Callable[[_T], _R], items: Iterable[_T], *, batch: int = 64) -> list[_R]:
    """Return ``[work(item) for item in items]``, worked on by one thread a core, many items a task."""
    listed = list(items)
    pieces = [listed[start : start + batch] for start in range(0, len(listed), batch)]
    with ThreadPoolExecutor(available_cores()) as pool:
        done = pool.map(lambda piece: [work(item) for item in piece], pieces)
        return [result for piece in done for result in piece]
