"""The pixel baseline: compare images as they are, so that an encoder shows what it adds.

Each image becomes 105 x 105 grey values, Omniglot's own size, whatever the size of the image or of the
encoder's input, and images are compared by the Euclidean distance of these. The service's own intake reads
them. The baseline knows nothing of strokes: moving a drawing by two pixels can make it another character.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.intake import IntakeLimits, decode_image
from app.encoding.manifest import InputSpec, WholeImage
from app.encoding.preprocess import prepare_whole
from app.errors import ImageError
from app.matching.distances import Metric

PIXEL_METRIC: Final[Metric] = "euclidean"
_SPEC: Final = InputSpec(height=105, width=105, channels=1)
_HOW: Final = WholeImage(mode="fit")


def pixel_vectors(
    paths: Sequence[Path], *, progress: Callable[[int], None] = lambda _: None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read images as plain vectors.

    Args:
        paths: Image files.
        progress: Called with 1 after each file.

    Returns:
        uint8[N, 11025], rows of failures being zero, and bool[N], whether the file could be read.
    """
    vectors = np.zeros((len(paths), _SPEC.height * _SPEC.width), np.uint8)
    ok = np.zeros(len(paths), np.bool_)
    limits = IntakeLimits()
    for row, path in enumerate(paths):
        try:
            image = decode_image(path.read_bytes(), limits)
        except (OSError, ImageError):
            continue
        finally:
            progress(1)
        vectors[row] = prepare_whole(image, _HOW, _SPEC).pixels.ravel()
        ok[row] = True
    return vectors, ok
