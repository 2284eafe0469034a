"""Read official one-shot runs in the layout of Omniglot's ``all_runs``.

Each folder ``runNN`` is a test of its own: ``training/`` holds one image of each of N characters by one
person, ``test/`` images of the same characters by another one, and each line of ``class_labels.txt`` says
which is which: ``run01/test/item01.png run01/training/class07.png``. Omniglot has 20 runs of 20 ways with 20
items each, of characters of its evaluation set.

Source: Lake, Salakhutdinov, Tenenbaum (2015), Science 350; https://github.com/brendenlake/omniglot.
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from app.encoding.intake import IMAGE_SUFFIXES
from app.errors import InvalidRequestError
from training.evaluation.oneshot import OneShotTrials

LABELS: Final = "class_labels.txt"
_MOST_BYTES: Final = 2**30
"""Of an archive's files together; Omniglot's runs have 0.2 MB."""


@dataclass(frozen=True, eq=False)
class OfficialRuns:
    """The trials of all runs.

    Attributes:
        names: Of the R runs.
        folder: What the files are relative to.
        files: Every image of every run, as ``run01/test/item01.png``.
        trials: Rows of ``files``; clusters are the runs, numbered as in ``names``.
    """

    names: tuple[str, ...]
    folder: Path
    files: tuple[str, ...]
    trials: OneShotTrials

    @property
    def paths(self) -> list[Path]:
        """Return where the files are."""
        return [self.folder / file for file in self.files]


@contextmanager
def opened_runs(source: Path) -> Iterator[OfficialRuns]:
    """Read runs from a folder or a zip archive; an archive's files are there until the context ends.

    Raises:
        InvalidRequestError: See ``read_runs``; or the archive is none, or holds more than 1 GB.
    """
    if source.is_dir():
        yield read_runs(source)
        return
    with tempfile.TemporaryDirectory(prefix="visavis-runs-") as folder:
        try:
            with zipfile.ZipFile(source) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                    _refuse(f"{source.name} holds more than 1 GB; unpack it and name the folder")
                archive.extractall(folder)
        except (
            OSError,
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            _refuse(f"{source.name} is neither a folder nor a zip archive that can be read ({error})")
        yield read_runs(Path(folder))


def read_runs(folder: Path) -> OfficialRuns:
    """Read all runs below a folder, or below ``all_runs`` in it.

    Raises:
        InvalidRequestError: There are none, the runs have different numbers of classes, or a line of
            labels does not fit the files. The message names the file, the line and what is wrong.
    """
    root = folder / "all_runs" if (folder / "all_runs").is_dir() else folder
    found = [path.parent for path in sorted(root.glob(f"*/{LABELS}"))]
    if not found:
        _refuse(f"{folder} holds no <run>/{LABELS}")
    files: list[str] = []
    probes: list[int] = []
    candidates: list[list[int]] = []
    cluster: list[int] = []
    for number, run in enumerate(found):
        classes, items = ([f"{run.name}/{part}/{name}" for name in _images(run / part)] for part in _PARTS)
        start = len(files)
        files += classes + items
        if number and len(classes) != len(candidates[0]):
            _refuse(f"{run.name} has {len(classes)} classes and {found[0].name} {len(candidates[0])}")
        if len(classes) < 2:
            _refuse(f"{run.name}/{_PARTS[0]} holds {len(classes)} images; at least two classes are needed")
        for item, right in _answers(run, classes, items):
            probes.append(start + len(classes) + item)
            others = [start + other for other in range(len(classes)) if other != right]
            candidates.append([start + right, *others])
            cluster.append(number)
    trials = OneShotTrials(_array(probes), _array(candidates), _array(cluster))
    return OfficialRuns(tuple(run.name for run in found), root, tuple(files), trials)


_PARTS: Final = ("training", "test")


def _images(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _answers(run: Path, classes: list[str], items: list[str]) -> list[tuple[int, int]]:
    """Return item and class of each line, as numbers in their lists."""
    place = f"{run.name}/{LABELS}"
    try:
        text = (run / LABELS).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f"{place}: the file cannot be read as UTF-8 text ({error})")
    answers: dict[int, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not (fields := line.split()):
            continue
        if len(fields) != 2:
            _refuse(
                f"{place}, line {number}: {line.strip()!r} is no '{run.name}/test/X {run.name}/training/Y'"
            )
        for name, known in zip(fields, (items, classes), strict=True):
            if name not in known:
                _refuse(f"{place}, line {number}: {name} is not among the {len(known)} images there")
        item, right = items.index(fields[0]), classes.index(fields[1])
        if item in answers:
            _refuse(f"{place}, line {number}: {fields[0]} has two lines")
        answers[item] = right
    if len(answers) != len(items) or not items:
        _refuse(f"{place}: {len(answers)} lines for {len(items)} images in test")
    return list(answers.items())


def _array(rows: list[int] | list[list[int]]) -> NDArray[np.intp]:
    return np.array(rows, np.intp)


def _refuse(problem: str) -> NoReturn:
    raise InvalidRequestError([{"field": "runs", "problem": problem}])
