"""JSON lines: the contract in the first, then one reference a line."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from app.errors import InvalidRequestError
from app.services.portable.contract import (
    CONTRACT_KEY,
    JSON_COLUMNS,
    Contract,
    Rows,
    embedding_of,
    parse_contract,
)
from app.storage.bulk import ExportedReference

MAX_LINE: Final = 4 * 2**20
"""Bytes of one line; a longer one is no row of ours."""
_READ: Final = (*JSON_COLUMNS, "created_at")


class JsonLines:
    """A file of JSON lines as a source. Empty lines are passed over and have no number."""

    def __init__(self, path: Path) -> None:
        """Read the first line, and count the others.

        Raises:
            InvalidRequestError: The first line is a contract that this version cannot read.
        """
        self._file = path.open("rb")
        self.contract: Contract | None = None
        lines = _lines(self._file)
        first = next(lines, b"")
        self._headers = 0
        if CONTRACT_KEY.encode() in first and CONTRACT_KEY in _object(first):
            try:
                self.contract = parse_contract(first)
            except InvalidRequestError:
                self.close()
                raise
            self._headers = 1
        self.rows = bool(first) - self._headers + sum(1 for _ in lines)

    def read(self, start: int, size: int, dimensions: int) -> Iterator[Rows]:
        """Yield the rows from a position on; a line that is no row becomes a problem."""
        self._file.seek(0)
        lines = _lines(self._file)
        for _ in range(start + self._headers):
            next(lines, None)
        while True:
            some = list(itertools.islice(lines, size))
            if not some:
                return
            yield _rows(start, some, dimensions)
            start += len(some)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JsonLinesWriter:
    """Writes an export as JSON lines, embeddings in base64."""

    def __init__(self, file: BinaryIO, contract: Contract, rows: int) -> None:
        self._file = file
        file.write(contract.model_dump_json().encode() + b"\n")

    def write(self, references: Sequence[ExportedReference]) -> None:
        """Add references."""
        lines = []
        for one in references:
            row: dict[str, Any] = {
                "identity": one.identity,
                "embedding": base64.b64encode(one.embedding).decode(),
                "metadata": one.metadata,
                "quality": one.quality,
                "face": one.face,
                "created_at": one.created_at.isoformat(),
                "reference_id": one.reference_id,
            }
            lines.append(json.dumps(row, separators=(",", ":")) + "\n")
        self._file.write("".join(lines).encode())

    def finish(self) -> None:
        """Nothing is left to write."""

    def close(self) -> None:
        """Nothing is held."""


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines that are not empty; one that is too long is cut off there, and so is no JSON."""
    while line := file.readline(MAX_LINE):
        rest = line
        while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE)
        if line.strip():
            yield line


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _rows(start: int, lines: Sequence[bytes], dimensions: int) -> Rows:
    embeddings = np.zeros((len(lines), dimensions), np.float32)
    problems: dict[int, str] = {}
    identities: list[object] = []
    columns: dict[str, list[object]] = {name: [] for name in _READ}
    for number, line in enumerate(lines):
        row = _object(line)
        try:
            if not row:
                raise ValueError("the line is no JSON object")
            embeddings[number] = embedding_of(row.get("embedding"), dimensions)
        except ValueError as error:
            problems[number] = str(error)
        identities.append(row.get("identity"))
        for name in _READ:
            columns[name].append(row.get(name))
    return Rows(start, identities, embeddings, problems, {**columns})
