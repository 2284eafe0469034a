"""Read a list of trials in the format of LFW's ``pairs.txt``, and find its images.

Each line is one trial, its fields apart by tabs or blanks:

- ``NAME I J``: images I and J of one subject, a mated trial;
- ``NAME_A I NAME_B J``: images of two subjects, a non-mated trial.

A first line of numbers says how the trials are laid out: ``FOLDS N`` (LFW's View 2: for each fold N mated
and then N non-mated trials) or ``N`` alone (View 1: N mated, then N non-mated). It may be missing; then
any order goes. Image I of NAME is the file ``NAME/NAME_000I`` with any suffix of an image.

Source: Huang, Ramesh, Berg, Learned-Miller (2007), "Labeled Faces in the Wild", UMass Technical Report
07-49, and the set's README.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from app.encoding.intake import IMAGE_SUFFIXES
from app.errors import InvalidRequestError


class Photo(NamedTuple):
    """One image, as a list of trials names it."""

    subject: str
    number: int

    @property
    def stem(self) -> str:
        """File name without its suffix."""
        return f"{self.subject}_{self.number:04d}"


@dataclass(frozen=True)
class Pair:
    """One trial and the line that it stands on, counted from 1."""

    first: Photo
    second: Photo
    line: int

    @property
    def mated(self) -> bool:
        """Whether both images show one subject."""
        return self.first.subject == self.second.subject


@dataclass(frozen=True, eq=False)
class PairList:
    """The trials of a file.

    Attributes:
        source: The file's name, for messages.
        pairs: In the order of the file.
        folds: intp[N], the fold of each pair as the header lays them out; None without such a header.
    """

    source: str
    pairs: tuple[Pair, ...]
    folds: NDArray[np.intp] | None

    def photos(self) -> list[Photo]:
        """Return every distinct image, sorted."""
        return sorted({photo for pair in self.pairs for photo in (pair.first, pair.second)})

    def rows(self) -> NDArray[np.intp]:
        """Return intp[N, 2], both images of each pair as positions in ``photos``."""
        row_of = {photo: row for row, photo in enumerate(self.photos())}
        return np.array([(row_of[pair.first], row_of[pair.second]) for pair in self.pairs], np.intp)

    def subjects(self) -> list[str]:
        """Return the name of every subject, sorted: number S of a trial's subjects is the S-th of them."""
        return sorted({photo.subject for pair in self.pairs for photo in (pair.first, pair.second)})


def read_pairs(path: Path) -> PairList:
    """Read a list of trials from a file in UTF-8.

    Raises:
        InvalidRequestError: See ``parse_pairs``.
    """
    try:
        return parse_pairs(path.read_text(encoding="utf-8-sig"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        _refuse(path.name, f"the file cannot be read as UTF-8 text ({error})")


def parse_pairs(text: str, source: str) -> PairList:
    """Read a list of trials.

    Args:
        text: Contents of the file; empty lines are passed over.
        source: The file's name, for messages.

    Raises:
        InvalidRequestError: A line is no trial, or the trials are not laid out as the header says. The
            message names the line and what to do.

    >>> parse_pairs("Ada 1 4", "pairs.txt").pairs[0].mated
    True
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    header = _header(lines[0][1]) if lines else None
    pairs = tuple(_pair(source, number, line) for number, line in lines[1 if header else 0 :])
    if not pairs:
        _refuse(source, "there are no pairs; each line is 'NAME I J' or 'NAME_A I NAME_B J'")
    return PairList(source, pairs, _folds(source, pairs, header) if header else None)


def locate_images(listed: PairList, folder: Path) -> dict[Photo, Path]:
    """Find the file of every image.

    Args:
        listed: The trials.
        folder: Holds ``NAME/NAME_0001.jpg`` and so on.

    Raises:
        InvalidRequestError: An image is not there, or is there under two suffixes. The message names the
            first such image, its line and how many more there are.
    """
    lines: dict[Photo, int] = {}
    for pair in listed.pairs:
        lines.setdefault(pair.first, pair.line)
        lines.setdefault(pair.second, pair.line)
    stored = _images_by_stem(folder, {photo.subject for photo in lines})
    wrong = [photo for photo in lines if len(stored.get(photo.stem, ())) != 1]
    if wrong:
        first = wrong[0]
        place = folder / first.subject
        found = stored.get(first.stem)
        what = (
            f"{place} holds {' and '.join(path.name for path in found)}; keep one of them"
            if found
            else f"{place} holds no image {first.stem} ({', '.join(sorted(IMAGE_SUFFIXES))}); "
            "check --images, or take the line out"
        )
        more = f" (and {len(wrong) - 1} more images)" if len(wrong) > 1 else ""
        _refuse(listed.source, f"{what}{more}", lines[first])
    return {photo: stored[photo.stem][0] for photo in lines}


def _images_by_stem(folder: Path, subjects: Iterable[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for subject in subjects:
        place = folder / subject
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.suffix.lower() in IMAGE_SUFFIXES:
                found.setdefault(path.stem, []).append(path)
    return found


def _header(line: str) -> tuple[int, int] | None:
    """Return folds and pairs of each kind per fold; None for a line that is a trial."""
    fields = line.split()
    if len(fields) > 2 or not all(_is_number(field) for field in fields):
        return None
    return (1, int(fields[0])) if len(fields) == 1 else (int(fields[0]), int(fields[1]))


def _pair(source: str, number: int, line: str) -> Pair:
    # Names may hold blanks where tabs part the fields.
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) not in {3, 4}:
        fields = line.split()
    if len(fields) not in {3, 4}:
        _refuse(source, f"{line!r} is no trial; it must read 'NAME I J' or 'NAME_A I NAME_B J'", number)
    if len(fields) == 3:
        names, numbers = (fields[0], fields[0]), (fields[1], fields[2])
    else:
        names, numbers = (fields[0], fields[2]), (fields[1], fields[3])
    for text in numbers:
        if not _is_number(text):
            _refuse(source, f"{text!r} is no number of an image; it must be a whole number", number)
    for name in names:
        if name in {"", ".", ".."} or "/" in name or "\\" in name:
            _refuse(source, f"{name!r} is no name of a folder below --images", number)
    if len(fields) == 4 and names[0] == names[1]:
        _refuse(source, f"{names[0]!r} stands on both sides; write a mated trial as 'NAME I J'", number)
    first, second = Photo(names[0], int(numbers[0])), Photo(names[1], int(numbers[1]))
    if first == second:
        _refuse(source, f"image {first.stem} would be compared with itself; take the line out", number)
    return Pair(first, second, number)


def _folds(source: str, pairs: tuple[Pair, ...], header: tuple[int, int]) -> NDArray[np.intp] | None:
    folds, per_fold = header
    if len(pairs) != 2 * folds * per_fold:
        _refuse(
            source,
            f"the header stands for {folds} x 2 x {per_fold} = {2 * folds * per_fold} pairs and {len(pairs)} "
            "follow; correct the header or take it out",
        )
    for index, pair in enumerate(pairs):
        wanted = index % (2 * per_fold) < per_fold
        if pair.mated != wanted:
            _refuse(
                source,
                f"a {'mated' if wanted else 'non-mated'} trial is due here by the header ({per_fold} mated, "
                f"then {per_fold} non-mated, in each fold); put the lines in order or take the header out",
                pair.line,
            )
    return np.arange(len(pairs)) // (2 * per_fold) if folds > 1 else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _refuse(source: str, problem: str, line: int | None = None) -> NoReturn:
    where = source if line is None else f"{source}, line {line}"
    raise InvalidRequestError([{"field": "pairs", "problem": f"{where}: {problem}"}])
