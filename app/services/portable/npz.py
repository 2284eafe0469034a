"""npz: arrays of one length, and the contract as JSON in an array without dimensions.

The file is a zip archive of ``.npy`` files, which are read as streams: the embeddings of a million people
are half a gigabyte, and no more than a part of them is in memory.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.services.portable.contract import (
    JSON_COLUMNS,
    TEXT_COLUMNS,
    Contract,
    Rows,
    parse_contract,
    refuse_source,
)
from app.storage.bulk import ExportedReference

_READ: Final = (*JSON_COLUMNS, "created_at")
_BYTES_AT_ONCE: Final = 64 * 2**20
"""Bytes of one array in memory; an array of text takes as many for each row as its longest."""
_ROWS_WRITTEN_AT_ONCE: Final = 4096


class NpzFile:
    """An npz file as a source."""

    def __init__(self, path: Path) -> None:
        """Read the shapes of the arrays, and the contract.

        Raises:
            InvalidRequestError: It is no npz file, or lacks an array, or the arrays do not fit together.
        """
        self._file = path.open("rb")
        try:
            try:
                self._archive = zipfile.ZipFile(self._file)
            except (OSError, zipfile.BadZipFile) as error:
                refuse_source(f"{path.name} cannot be read as npz ({error})")
            self._names = {name.removesuffix(".npy") for name in self._archive.namelist()}
            missing = [name for name in ("identity", "embedding") if name not in self._names]
            if missing:
                refuse_source(f"{path.name} has no array {missing[0]!r}; identity and embedding are wanted")
            self.contract = self._contract()
            shapes = {
                name: self._column(name).shape
                for name in ("identity", "embedding", *_READ)
                if name in self._names
            }
            lengths = {shape[0] if shape else 0 for shape in shapes.values()}
            if len(lengths) != 1 or len(shapes["embedding"]) != 2:
                refuse_source(f"{path.name}: embedding [N, D] and N of each other are wanted, not {shapes}")
            self.rows = int(lengths.pop())
        except BaseException:
            self.close()
            raise

    def read(self, start: int, size: int, dimensions: int) -> Iterator[Rows]:
        """Yield the rows from a position on."""
        columns = {
            name: self._column(name) for name in ("identity", "embedding", *_READ) if name in self._names
        }
        found = columns["embedding"].shape[1]
        if found != dimensions:
            refuse_source(f"the embeddings have {found} dimensions; {dimensions} are wanted")
        size = max(1, min(size, *(_BYTES_AT_ONCE // max(1, c.row_bytes) for c in columns.values())))
        for column in columns.values():
            column.skip(start)
        while start < self.rows:
            count = min(size, self.rows - start)
            read = {name: column.read(count) for name, column in columns.items()}
            with np.errstate(over="ignore", invalid="ignore"):  # refused as not finite, by row
                embeddings = read.pop("embedding").astype(np.float32)
            identities = read.pop("identity").tolist()
            yield Rows(start, identities, embeddings, {}, {name: a.tolist() for name, a in read.items()})
            start += count

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _contract(self) -> Contract | None:
        if "contract" not in self._names:
            return None
        column = self._column("contract")
        if column.shape != () or column.dtype.kind not in "US":
            refuse_source("the array contract is not one text")
        value = column.read(1).tolist()[0]
        return parse_contract(value)

    def _column(self, name: str) -> _Column:
        try:
            return _Column(name, self._archive.open(f"{name}.npy"))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            refuse_source(f"the array {name} cannot be read ({error})")


class _Column:
    """One array of an archive, read in order."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name = name
        self._file = file
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        self.shape, by_column, self.dtype = read_header(file)
        wanted = "f" if name == "embedding" else "US"
        if self.dtype.kind not in wanted:
            kind = "floating-point numbers" if name == "embedding" else "text (numpy's U)"
            refuse_source(f"the array {name} is of type {self.dtype}; {kind} is wanted")
        if by_column and len(self.shape) > 1:
            refuse_source(f"the array {name} lies column by column; save np.ascontiguousarray({name})")
        self.row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))

    def skip(self, rows: int) -> None:
        left = rows * self.row_bytes
        while left:
            left -= len(self._bytes(min(left, 2**20)))

    def read(self, rows: int) -> NDArray[Any]:
        data = self._bytes(rows * self.row_bytes)
        array = np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])
        if self.dtype.kind == "S":
            try:
                return np.char.decode(array, "utf-8")
            except UnicodeDecodeError:
                refuse_source(f"the array {self._name} holds text that is not UTF-8")
        return array

    def _bytes(self, wanted: int) -> bytes:
        try:
            data = self._file.read(wanted)
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            refuse_source(f"the array {self._name} is damaged ({error})")
        if len(data) != wanted:
            refuse_source(f"the array {self._name} is cut off")
        return data


class NpzWriter:
    """Writes an export as npz. Text waits in files beside, because its longest must be known first."""

    def __init__(self, file: BinaryIO, contract: Contract, rows: int) -> None:
        self._archive = zipfile.ZipFile(file, "w")
        self._rows = rows
        with self._archive.open("contract.npy", "w") as member:
            npy.write_array(member, np.array(contract.model_dump_json()))
        self._waiting = {name: _Waiting() for name in TEXT_COLUMNS}
        self._member = self._archive.open("embedding.npy", "w", force_zip64=True)
        _write_header(self._member, (rows, contract.dimensions), np.dtype("<f4"))

    def write(self, references: Sequence[ExportedReference]) -> None:
        """Add references."""
        self._member.write(b"".join(one.embedding for one in references))
        for one in references:
            self._waiting["identity"].add(one.identity)
            self._waiting["metadata"].add(json.dumps(one.metadata))
            self._waiting["quality"].add(json.dumps(one.quality))
            self._waiting["face"].add("" if one.face is None else json.dumps(one.face))
            self._waiting["created_at"].add(one.created_at.isoformat())
            self._waiting["reference_id"].add(one.reference_id)

    def finish(self) -> None:
        """Write the text, and the archive's directory."""
        self._member.close()
        for name, waiting in self._waiting.items():
            # Deflated: every row takes the room of the longest, and most of it is zero.
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with self._archive.open(info, "w", force_zip64=True) as member:
                dtype = np.dtype(f"<U{waiting.longest}")
                _write_header(member, (self._rows,), dtype)
                for texts in waiting.taken(max(1, _BYTES_AT_ONCE // dtype.itemsize)):
                    member.write(np.array(texts, dtype).tobytes())
        self._archive.close()

    def close(self) -> None:
        """Let go of the file. The archive would write to it when it is collected, if it were not closed."""
        with suppress(OSError, ValueError):
            self._member.close()
        with suppress(OSError, ValueError):
            self._archive.close()
        for waiting in self._waiting.values():
            waiting.close()


class _Waiting:
    """Texts in a file of their own, until they are written."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - see close
        self.longest = 1

    def add(self, text: str) -> None:
        self.longest = max(self.longest, len(text))
        self._file.write(json.dumps(text) + "\n")

    def close(self) -> None:
        self._file.close()

    def taken(self, size: int) -> Iterator[list[str]]:
        size = min(size, _ROWS_WRITTEN_AT_ONCE)
        self._file.seek(0)
        texts = []
        for line in self._file:
            texts.append(json.loads(line))
            if len(texts) == size:
                yield texts
                texts = []
        if texts:
            yield texts


def _write_header(member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(member, header)
