"""Tables of pairs in CSV or TSV files, and what their label column says.

A table has a left and a right column (texts, or paths of images) and a label. Labels of 0 and 1 mean opposite
things in different sets, so a file whose column does not say which needs a ``LabelConvention``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.data.errors import DataError, MissingDataError
from training.data.samplers import LabelConvention, same_from_labels

LEFT_NAMES: Final = ("left", "a", "question1", "sentence1", "text1", "image1", "first", "#1 string")
RIGHT_NAMES: Final = ("right", "b", "question2", "sentence2", "text2", "image2", "second", "#2 string")
SCORE_NAMES: Final = ("score", "similarity")
LABEL_NAMES: Final = ("same", "different", "is_duplicate", "label", "quality", *SCORE_NAMES)
"""Names of columns that are found without being named, in lower case."""

_SAYS: Final = {"same": LabelConvention.ONE_IS_SAME, "different": LabelConvention.ONE_IS_DIFFERENT}
"""Columns whose name is their convention; not ``is_duplicate``, which a public set has inverted."""
_SHOWN: Final = 5
"""Bad lines that a message names; more are counted."""


@dataclass(frozen=True, eq=False)
class PairTable:
    """The rows of a table.

    Attributes:
        left: N cells.
        right: N cells.
        same: bool[N], True for mated pairs.
        score: float64[N] where the table has scores, else None.
        lines: Line of the file that each row ends on, counted from 1.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    same: NDArray[np.bool_]
    score: NDArray[np.float64] | None
    lines: tuple[int, ...]


def read_pair_table(
    path: Path,
    *,
    left: str | None = None,
    right: str | None = None,
    label: str | None = None,
    header: Sequence[str] | None = None,
    convention: LabelConvention | None = None,
    same_from: float | None = None,
) -> PairTable:
    """Read a CSV or TSV file in UTF-8, with or without a byte order mark.

    Args:
        path: A name ending in ``.tsv`` says tabs, without quoting; else the first line decides.
        left: Column of the left side; None looks for a usual name.
        right: Column of the right side, likewise.
        label: Column of the label, likewise.
        header: Names of the columns when the file has no first line of names.
        convention: What 1 says. Not needed when the label column is called ``same`` or ``different``.
        same_from: Scores at or above it are mated; given, the label is a score of any range.

    Raises:
        MissingDataError: The file is not there.
        DataError: It cannot be read as such a table. The message names columns or lines, and what is wrong.
    """
    names, rows = _rows(path, header)
    places = [
        _column(path, names, left, LEFT_NAMES, "left"),
        _column(path, names, right, RIGHT_NAMES, "right"),
        _column(path, names, label, LABEL_NAMES, "label"),
    ]
    label_name = names[places[2]].strip().lower()
    if same_from is None and label_name in SCORE_NAMES:
        raise DataError(
            f"{path}: column {label_name!r} has scores; say from which score on a pair is the same"
        )
    bad: list[tuple[int, str]] = []
    kept: list[tuple[int, str, str, float]] = []
    for line, cells in rows:
        problem, value = _check(cells, places, len(names), scores=same_from is not None)
        if problem:
            bad.append((line, problem))
        else:
            kept.append((line, cells[places[0]].strip(), cells[places[1]].strip(), value))
    if bad:
        shown = "; ".join(f"line {line}: {problem}" for line, problem in bad[:_SHOWN])
        rest = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(f"{path}: {shown}{rest}")
    if not kept:
        raise DataError(f"{path} has no rows")
    values = np.array([value for *_, value in kept])
    if same_from is None:
        same = same_from_labels(values, _convention(path, label_name, convention))
    else:
        same = values >= same_from
    return PairTable(
        tuple(row[1] for row in kept),
        tuple(row[2] for row in kept),
        same,
        None if same_from is None else values,
        tuple(row[0] for row in kept),
    )


def _rows(path: Path, header: Sequence[str] | None) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns, and each row with the line it ends on; empty lines are left out."""
    text = _text(path)
    tabs = path.suffix.lower() == ".tsv" or text.partition("\n")[0].count("\t") > 0
    reader = (
        csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
        if tabs
        else csv.reader(io.StringIO(text, newline=""), strict=True)
    )
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from error
    if header is not None:
        return list(header), rows
    if not rows:
        raise DataError(f"{path} is empty")
    return rows[0][1], rows[1:]


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingDataError(f"{path} is not there") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        ) from error


def _column(path: Path, names: list[str], wanted: str | None, usual: Sequence[str], role: str) -> int:
    plain = [name.strip().lower() for name in names]
    asked = [wanted.strip().lower()] if wanted is not None else usual
    found = [plain.index(name) for name in asked if name in plain]
    if len(found) == 1 or (found and wanted is not None):
        return found[0]
    has = f"the file has {', '.join(repr(name) for name in names)}"
    if wanted is not None:
        raise DataError(f"{path}: there is no column {wanted!r}; {has}")
    if found:
        several = " and ".join(repr(names[place]) for place in found)
        raise DataError(f"{path}: {several} could each be the {role} column; name one")
    raise DataError(f"{path}: name the {role} column; {has}")


def _check(cells: list[str], places: list[int], columns: int, *, scores: bool) -> tuple[str, float]:
    """Return what is wrong with a row (empty: nothing) and the value of its label."""
    if len(cells) <= max(places) or any(cell.strip() for cell in cells[columns:]):
        return f"{len(cells)} cells and the table has {columns} columns", 0.0
    if not cells[places[0]].strip() or not cells[places[1]].strip():
        return "one side is empty", 0.0
    text = cells[places[2]].strip()
    try:
        value = float(text)
    except ValueError:
        return f"the label is {text!r}, which is no number", 0.0
    if scores:
        return ("", value) if np.isfinite(value) else (f"the score is {text!r}", 0.0)
    return ("", value) if value in {0.0, 1.0} else (f"the label is {text!r}, neither 0 nor 1", 0.0)


def _convention(path: Path, label: str, convention: LabelConvention | None) -> LabelConvention:
    said = _SAYS.get(label)
    if convention is None and said is None:
        raise DataError(
            f"{path}: say whether 1 in column {label!r} means same or different, "
            "or call the column 'same' or 'different'"
        )
    if convention is not None and said not in {None, convention}:
        raise DataError(f"{path}: column {label!r} cannot mean '{convention.value}'")
    chosen = convention or said
    assert chosen is not None  # noqa: S101 - one of the two is there
    return chosen
