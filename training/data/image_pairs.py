"""Pairs of image files listed in a table: for data whose pairs are labelled and whose subjects are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.data.errors import DataError
from training.data.preparing import Preparation, prepare_files
from training.data.samplers import LabelConvention, Pairs
from training.data.tables import read_pair_table

_SHOWN: Final = 5
"""Lines that a message names; more are counted."""


@dataclass(frozen=True, eq=False)
class PairedImages:
    """Images and the pairs that a table makes of them.

    Attributes:
        images: uint8[M, H, W, C], each file once.
        paths: M files as the table names them, sorted.
        pairs: Indices of images, in the order of the table.
    """

    images: NDArray[np.uint8]
    paths: tuple[str, ...]
    pairs: Pairs


def read_image_pairs(
    table: Path,
    preparation: Preparation,
    *,
    images: Path | None = None,
    left: str | None = None,
    right: str | None = None,
    label: str | None = None,
    convention: LabelConvention | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> PairedImages:
    """Read a CSV or TSV file of pairs of image files.

    Args:
        table: Has a column of paths for either side and a label; see ``read_pair_table``.
        preparation: From the bytes of a file to the encoder's input.
        images: Folder that the paths begin in; the table's own when None.
        left: Column of the left side; None looks for a usual name such as ``image1``.
        right: Column of the right side, likewise.
        label: Column of the label, likewise.
        convention: What 1 says; not needed when the label column is called ``same`` or ``different``.
        progress: Called with how many more files are done.

    Raises:
        DataError: The table is none, an image is missing or cannot be used, or a pair that is said to
            differ is one picture twice. The message names lines.
    """
    rows = read_pair_table(table, left=left, right=right, label=label, convention=convention)
    folder = images or table.parent
    paths = sorted({*rows.left, *rows.right})
    prepared, reasons = prepare_files((folder / path for path in paths), preparation, progress=progress)
    number = {path: index for index, path in enumerate(paths)}
    pairs = Pairs(
        np.array([number[path] for path in rows.left], np.int32),
        np.array([number[path] for path in rows.right], np.int32),
        rows.same,
    )
    problems = []
    for row, line in enumerate(rows.lines):
        sides = (pairs.left[row], pairs.right[row])
        bad = next((side for side in sides if reasons[side]), None)
        if bad is not None:
            problems.append(f"line {line}: {paths[bad]}: {reasons[bad]}")
        elif not pairs.same[row] and np.array_equal(prepared[sides[0]], prepared[sides[1]]):
            problems.append(f"line {line}: both sides are the same picture and the label says different")
    if problems:
        rest = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{table}: {'; '.join(problems[:_SHOWN])}{rest}")
    return PairedImages(prepared, tuple(paths), pairs)
