"""MNIST from its four ``idx`` files: 60,000 + 10,000 handwritten digits, white on black, 28 x 28.

The digits 0 to 9 are the subjects.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", which also defines ``idx``: two
zero bytes, the type (8 is uint8), the number of axes, each axis as a big-endian uint32, then the values.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from training.data.errors import DataError, MissingDataError
from training.data.labelled import LabelledImages

_PREFIX: Final = {"train": "train", "test": "t10k"}


def read_mnist(data_dir: Path, part: Literal["train", "test"]) -> LabelledImages:
    """Read one part of MNIST.

    Args:
        data_dir: Folder of data sets; the files are in its ``mnist/``.
        part: ``train`` has 60,000 images, ``test`` 10,000.

    Returns:
        Images uint8[N, 28, 28, 1] in the order of the files; subjects ``0`` to ``9``.

    Raises:
        MissingDataError: A file is not there.
        DataError: A file is damaged.
    """
    folder, prefix = data_dir / "mnist", _PREFIX[part]
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    digits = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or digits.shape != images.shape[:1] or digits.max(initial=0) > 9:
        raise DataError(f"{folder}: images {images.shape} and labels {digits.shape} do not fit together")
    return LabelledImages(images[..., None], digits.astype(np.int32), tuple("0123456789"))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped ``idx`` file of bytes, with as many axes as it states.

    Raises:
        MissingDataError: It is not there.
        DataError: It is no such file, or cut off.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingDataError.of(path, "mnist") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}; delete it and run: visavis data fetch mnist") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DataError(f"{path} is no idx file of bytes")
    axes = data[3]
    shape = tuple(int(size) for size in np.frombuffer(data[4 : 4 + 4 * axes], ">u4"))
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * axes)
    if len(shape) != axes or values.size != np.prod(shape):
        raise DataError(f"{path} states {shape} and has {values.size} values")
    return values.reshape(shape)
