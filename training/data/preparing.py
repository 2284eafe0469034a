"""Image files to encoder inputs on all cores, with the code that the service runs on an upload."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.encoding.cores import available_cores
from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.intake import IntakeLimits, decode_image
from app.encoding.manifest import InputSpec, WholeImage
from app.encoding.model import Model
from app.encoding.preprocess import prepare_whole
from app.errors import ImageError

LIMITS: Final = replace(IntakeLimits(), timeout_s=60.0)
"""The service's own limits, but for time: a busy machine must not change what is trained on."""

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Preparation:
    """How the bytes of an image file become an encoder's input.

    Attributes:
        input: Shape of the result.
        prepare: Bytes to uint8[H, W, C]; raises ``ImageError`` for a file that the service would refuse.
        key: Names all that decides the result, for caches.
    """

    input: InputSpec
    prepare: Callable[[bytes], NDArray[np.uint8]]
    key: str


def whole_images(spec: InputSpec, how: WholeImage) -> Preparation:
    """Use the whole image, as for a bundle whose manifest says so."""
    key = f"{spec.model_dump_json()} {how.model_dump_json()}"
    return Preparation(spec, lambda data: prepare_bytes(data, spec, how), key)


def aligned_faces(model: Model, choice: FaceChoice = "central") -> Preparation:
    """Find and align the face, with the detector of a bundle.

    Args:
        model: Opened with ``LIMITS``, so that a slow file is not taken for a bad one.
        choice: Which face counts when there are several.
    """

    def prepare(data: bytes) -> NDArray[np.uint8]:
        return model.images.prepare(ImageInput(data), choice, Timings()).pixels

    return Preparation(model.manifest.input, prepare, f"{model.digest} {choice}")


def prepare_bytes(data: bytes, spec: InputSpec, how: WholeImage) -> NDArray[np.uint8]:
    """Return uint8[H, W, C] of one image file, exactly as the service would hand it to the encoder.

    Raises:
        ImageError: The service would refuse the file.
    """
    return prepare_whole(decode_image(data, LIMITS), how, spec).pixels


def prepare_files(
    paths: Iterable[Path], preparation: Preparation, *, progress: Callable[[int], None] = lambda _: None
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Prepare N files; one that fails is reported, not raised.

    Args:
        paths: The files.
        preparation: What to do with each.
        progress: Called with how many more files are done.

    Returns:
        uint8[N, H, W, C], rows of failures zero, and N reasons, empty where the file could be prepared.
    """
    listed = list(paths)
    shape = preparation.input
    images = np.zeros((len(listed), shape.height, shape.width, shape.channels), np.uint8)

    def work(index: int) -> str:
        try:
            images[index] = preparation.prepare(listed[index].read_bytes())
        except OSError as error:
            return f"the file cannot be read: {error.strerror}"
        except ImageError as error:
            return str(error)
        return ""

    return images, tuple(on_all_cores(work, range(len(listed)), batch=8, progress=progress))


def on_all_cores(
    work: Callable[[_T], _R],
    items: Iterable[_T],
    *,
    batch: int = 64,
    progress: Callable[[int], None] = lambda _: None,
) -> list[_R]:
    """Return ``[work(item) for item in items]``, worked on by one thread a core, many items a task."""
    listed = list(items)
    pieces = [listed[start : start + batch] for start in range(0, len(listed), batch)]
    results: list[_R] = []
    with ThreadPoolExecutor(available_cores()) as pool:
        for done in pool.map(lambda piece: [work(item) for item in piece], pieces):
            results.extend(done)
            progress(len(done))
    return results
