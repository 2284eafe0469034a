"""Read which cohort each subject belongs to: a CSV or TSV file of ``subject,cohort``.

One line a subject, its two fields apart by tabs where the first line has one, else by commas; fields may be
in double quotes. A first line ``subject,cohort`` is a header. A subject without a cohort (an empty field),
and one that the file does not name, is of no cohort: ``unknown``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path
from typing import Final, NoReturn

from app.errors import InvalidRequestError

_HEADER: Final = ("subject", "cohort")


def read_cohorts(path: Path) -> dict[str, str]:
    """Read a file in UTF-8; see ``parse_cohorts``.

    Raises:
        InvalidRequestError: It cannot be read, or a line is wrong; the message names the line.
    """
    try:
        return parse_cohorts(path.read_text(encoding="utf-8-sig"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        _refuse(path.name, f"the file cannot be read as UTF-8 text ({error})")


def parse_cohorts(text: str, source: str) -> dict[str, str]:
    r"""Read the cohort of each subject.

    Args:
        text: Contents of the file; empty lines are passed over.
        source: The file's name, for messages.

    Returns:
        Cohort by subject; subjects with an empty cohort are left out.

    Raises:
        InvalidRequestError: A line has not two fields or an unprintable one, a subject has two lines, or no
            subject has a cohort. The message names the line and what to do.

    >>> parse_cohorts("subject,cohort\nada,north\nbob,", "cohorts.csv")
    {'ada': 'north'}
    """
    delimiter = "\t" if "\t" in text.lstrip().partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: dict[str, int] = {}
    cohorts: dict[str, str] = {}
    try:
        for number, row in enumerate(reader):
            fields = [field.strip() for field in row]
            if not any(fields) or (number == 0 and tuple(field.lower() for field in fields) == _HEADER):
                continue
            subject, cohort = _fields(source, reader.line_num, fields, delimiter)
            if subject in lines:
                problem = (
                    f"subject {subject!r} already has a cohort in line {lines[subject]}; keep one of them"
                )
                _refuse(source, problem, reader.line_num)
            lines[subject] = reader.line_num
            if cohort:
                cohorts[subject] = cohort
    except csv.Error as error:
        _refuse(source, f"no row of a CSV file ({error})", reader.line_num)
    if not cohorts:
        _refuse(source, "no subject has a cohort; each line is 'subject,cohort'")
    return cohorts


def check_known(cohorts: dict[str, str], subjects: Collection[str], source: str) -> None:
    """Refuse a file of which no subject takes part.

    Args:
        cohorts: As read.
        subjects: Names of those who take part.
        source: The file's name, for messages.

    Raises:
        InvalidRequestError: No subject of the file is among them.
    """
    if cohorts.keys().isdisjoint(subjects):
        ours, theirs = min(cohorts), min(subjects, default="none")
        _refuse(
            source,
            f"none of its {len(cohorts)} subjects is among the {len(subjects)} that are compared ({ours!r} "
            f"in the file, {theirs!r} among them); subjects are called like the folders of their images",
        )


def _fields(source: str, line: int, fields: list[str], delimiter: str) -> tuple[str, str]:
    if len(fields) != 2:
        between = "a tab" if delimiter == "\t" else "a comma"
        problem = (
            f"{len(fields)} field{'' if len(fields) == 1 else 's'}; a line is a subject and its cohort, with "
            f"{between} between them, like the first line's (put names that hold one in double quotes)"
        )
        _refuse(source, problem, line)
    for name, field in zip(_HEADER, fields, strict=True):
        if not field.isprintable():
            _refuse(source, f"the {name} {field!r} holds a character that cannot be shown; take it out", line)
    if not fields[0]:
        _refuse(source, "the subject is empty; name the folder of its images", line)
    return fields[0], fields[1]


def _refuse(source: str, problem: str, line: int | None = None) -> NoReturn:
    where = source if line is None else f"{source}, line {line}"
    raise InvalidRequestError([{"field": "cohorts", "problem": f"{where}: {problem}"}])
