"""The file of rows that were not imported."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Final

from app.errors import BusyError, InvalidRequestError
from app.services.imports.batch import Reject

_KEY: Final = "visavis_rejects"


class RejectsFile:
    """JSON lines: of which import, then the rows in their order; none beyond what is committed.

    Rows are written before the commit, and what a run that was killed there has left is cut off by the next.
    """

    def __init__(self, path: Path, *, collection: str, source_sha256: str, position: int) -> None:
        """Open the file, and cut off what is not committed.

        Args:
            path: The file; it may be there from an earlier run of the same import.
            collection: Where to the import goes.
            source_sha256: What it imports.
            position: Rows of the source that are done with.

        Raises:
            InvalidRequestError: It cannot be written, or holds something else.
            BusyError: Another import writes to it.
        """
        try:
            self._file: BinaryIO = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        except OSError as error:
            raise _wrong(f"{path} cannot be written ({error.strerror})") from error
        self.path = path
        self.rows = 0
        """Rows in it that are committed."""
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BusyError(
                    f"another import writes to {path}; wait for it, or name another file"
                ) from error
            self._head = _line({_KEY: 1, "collection": collection, "source_sha256": source_sha256})
            self._end = 0
            self._read(position)
        except BaseException:
            self._file.close()
            raise

    def put(self, rejects: Sequence[Reject]) -> int:
        """Write rows after those that are committed, instead of any that are not. Returns where they end."""
        self._cut()
        if not self._end:
            self._file.write(self._head)
        for one in rejects:
            self._file.write(_line({k: v for k, v in asdict(one).items() if v is not None}))
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def keep(self, end: int) -> None:
        """Note that all before ``end`` is committed."""
        self._end = end

    def close(self) -> None:
        """Close the file, without what is not committed."""
        self._cut()
        self._file.close()

    def _read(self, position: int) -> None:
        head = self._file.readline()
        if head != self._head:
            if not self._head.startswith(head):
                raise _wrong(
                    f"{self.path} holds something else than this import's rejects; name another file"
                )
            self._cut()  # empty, or cut off in its first line
            return
        self._end = len(head)
        for line in self._file:
            try:
                row = json.loads(line)["row"] if line.endswith(b"\n") else position
            except (ValueError, TypeError, KeyError):
                raise _wrong(
                    f"{self.path} was changed after row {self.rows} of it; name another file"
                ) from None
            if row >= position:
                break
            self.rows += 1
            self._end += len(line)
        self._cut()

    def _cut(self) -> None:
        self._file.truncate(self._end)
        self._file.seek(self._end)


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _wrong(problem: str) -> InvalidRequestError:
    return InvalidRequestError([{"field": "rejects", "problem": problem}])
