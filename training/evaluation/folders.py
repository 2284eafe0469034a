"""Find labelled images in folders: ``<subject>/<image>`` or ``<alphabet>/<character>/<image>``.

With three levels the outer folder is the subject's group. Where all files of three levels are called like
Omniglot's, ``0709_03.png``, the number behind the underscore is who drew it, one of its alphabet's drawers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from app.encoding.intake import IMAGE_SUFFIXES
from app.errors import InvalidRequestError

_DRAWN: Final = re.compile(r"\d+_(?P<drawer>\d+)")


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Image files, each with its subject.

    Attributes:
        paths: N files, sorted.
        labels: int32[N], the subject of each, 0..S-1.
        subjects: S names, ``Alphabet/character01`` where there are groups.
        groups: S names of groups; None when there are none.
        drawers: N numbers, one person each within one group; None when unknown.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int32]
    subjects: tuple[str, ...]
    groups: tuple[str, ...] | None
    drawers: tuple[int, ...] | None


def labelled_files(folder: Path) -> LabelledFiles:
    """List the images below a folder.

    Raises:
        InvalidRequestError: There are images of fewer than two subjects, or images at both depths.
    """
    shallow, deep = (_images(folder, pattern) for pattern in ("*/*", "*/*/*"))
    if shallow and deep:
        _refuse(
            f"{folder} holds images both as <subject>/<image> ({shallow[0].relative_to(folder)}) and as "
            f"<group>/<subject>/<image> ({deep[0].relative_to(folder)}); keep one of the two"
        )
    paths = shallow or deep
    names = [path.parent.relative_to(folder).as_posix() for path in paths]
    subjects, labels = np.unique(names, return_inverse=True)
    if subjects.size < 2:
        _refuse(
            f"{folder} holds images of {subjects.size} subjects as <subject>/<image> or "
            "<group>/<subject>/<image>; at least two are needed"
        )
    drawn = [_DRAWN.fullmatch(path.stem) for path in deep]
    return LabelledFiles(
        tuple(paths),
        labels.astype(np.int32),
        tuple(subjects.tolist()),
        tuple(name.partition("/")[0] for name in subjects.tolist()) if deep else None,
        tuple(int(match["drawer"]) for match in drawn if match) if deep and all(drawn) else None,
    )


def _images(folder: Path, pattern: str) -> list[Path]:
    found = (path for path in folder.glob(pattern) if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in found if not path.name.startswith(".") and path.is_file())


def _refuse(problem: str) -> NoReturn:
    raise InvalidRequestError([{"field": "images", "problem": problem}])
