"""Omniglot from its zip files: 1,623 characters of 50 alphabets, each drawn once by 20 people.

A character is a subject, its alphabet the group. Images are 105 x 105, black ink on white, and stay so.

Source: Lake, Salakhutdinov, Tenenbaum (2015), "Human-level concept learning through probabilistic program
induction", Science 350.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from app.encoding.manifest import InputSpec, WholeImage
from app.errors import ImageError
from training.data.errors import DataError, MissingDataError
from training.data.labelled import LabelledImages
from training.data.preparing import on_all_cores, prepare_bytes

_MEMBER: Final = re.compile(r"images_\w+/(?P<alphabet>[^/]+)/(?P<character>[^/]+)/\d+_(?P<drawer>\d+)\.png")


@dataclass(frozen=True, eq=False)
class Drawn:
    """Characters and who drew them.

    Attributes:
        images: Subjects ``Alphabet/character01``, groups ``Alphabet``.
        drawers: int32[N], the drawer of each image, 1 to 20; a number means the same person only within one
            alphabet.
    """

    images: LabelledImages
    drawers: NDArray[np.int32]


def read_omniglot(
    data_dir: Path, part: Literal["background", "evaluation"], spec: InputSpec, how: WholeImage
) -> Drawn:
    """Read one part of Omniglot at the size an encoder wants.

    Args:
        data_dir: Folder of data sets; the file is ``omniglot/images_<part>.zip`` in it.
        part: ``background`` has 964 characters of 30 alphabets, ``evaluation`` 659 of 20.
        spec: Size and channels.
        how: How the square image is brought to that size.

    Returns:
        Images sorted by alphabet, character and drawer.

    Raises:
        MissingDataError: The file is not there.
        DataError: It is no zip file, has other contents, or an image in it is damaged.
    """
    path = data_dir / "omniglot" / f"images_{part}.zip"
    files = _read_members(path)
    subjects = sorted({name for name, _ in files})
    number = {name: index for index, name in enumerate(subjects)}
    keys = sorted(files)
    try:
        images = on_all_cores(lambda key: prepare_bytes(files[key], spec, how), keys)
    except ImageError as error:
        raise DataError(f"{path}: {error}") from error
    return Drawn(
        LabelledImages(
            np.stack(images),
            np.array([number[name] for name, _ in keys], np.int32),
            tuple(subjects),
            tuple(name.partition("/")[0] for name in subjects),
        ),
        np.array([drawer for _, drawer in keys], np.int32),
    )


def _read_members(path: Path) -> dict[tuple[str, int], bytes]:
    """Return the bytes of every image by subject and drawer."""
    files = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if match := _MEMBER.fullmatch(member):
                    subject = f"{match['alphabet']}/{match['character']}"
                    files[subject, int(match["drawer"])] = archive.read(member)
    except FileNotFoundError as error:
        raise MissingDataError.of(path, "omniglot") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is damaged: {error}; run: visavis data fetch omniglot") from error
    if not files:
        raise DataError(f"{path} has no image named like images_background/Greek/character01/0394_01.png")
    return files
