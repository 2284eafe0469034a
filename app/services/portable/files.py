"""Which format a file has: by its suffix."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from app.services.portable.contract import Contract, Source, refuse_source
from app.services.portable.jsonl import JsonLines, JsonLinesWriter
from app.services.portable.npz import NpzFile, NpzWriter
from app.services.portable.parquet import ParquetFile, ParquetWriter
from app.storage.bulk import ExportedReference

SUFFIXES: Final = (".jsonl", ".npz", ".parquet")


class Writer(Protocol):
    """A file of embeddings that is being written."""

    def write(self, references: Sequence[ExportedReference]) -> None:
        """Add references."""

    def finish(self) -> None:
        """Write what comes last; the file stays open."""

    def close(self) -> None:
        """Let go of the file, also of one that was not finished and is of no use."""


def open_source(path: Path) -> Source:
    """Open a file of embeddings.

    Raises:
        InvalidRequestError: It is of another kind, or cannot be read.
    """
    kinds: dict[str, Callable[[Path], Source]] = {
        ".jsonl": JsonLines,
        ".npz": NpzFile,
        ".parquet": ParquetFile,
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        refuse_source(
            f"{path.name} is neither a folder of photos nor a file of embeddings ({', '.join(kinds)})"
        )
    try:
        return kind(path)
    except OSError as error:
        refuse_source(f"{path} cannot be read ({error.strerror or error})")


def open_writer(path: Path, file: BinaryIO, contract: Contract, rows: int) -> Writer:
    """Begin a file of embeddings.

    Args:
        path: Its suffix, one of ``SUFFIXES``, says the format.
        file: What is written to; it can seek.
        contract: Of the embeddings.
        rows: How many references will be written.

    Raises:
        InvalidRequestError: The format needs an extra that is not installed.
    """
    kinds: dict[str, Callable[[BinaryIO, Contract, int], Writer]] = {
        ".jsonl": JsonLinesWriter,
        ".npz": NpzWriter,
        ".parquet": ParquetWriter,
    }
    return kinds[path.suffix.lower()](file, contract, rows)


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file.

    Raises:
        InvalidRequestError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        refuse_source(f"{path} cannot be read ({error.strerror or error})")
