"""Parquet, through pyarrow: a column of lists of float32, columns of text, the contract in the schema."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidRequestError
from app.services.portable.contract import (
    CONTRACT_KEY,
    JSON_COLUMNS,
    Contract,
    Rows,
    parse_contract,
    refuse_source,
)
from app.storage.bulk import ExportedReference

_READ: Final = (*JSON_COLUMNS, "created_at")
_ROWS_OF_A_GROUP: Final = 65_536


class ParquetFile:
    """A Parquet file as a source."""

    def __init__(self, path: Path) -> None:
        """Read the schema.

        Raises:
            InvalidRequestError: It is no Parquet file, lacks a column, or pyarrow is not installed.
        """
        parquet = _module("pyarrow.parquet")
        self._errors = _errors()
        try:
            self._file: Any = parquet.ParquetFile(path)
        except self._errors as error:
            refuse_source(f"{path.name} cannot be read as Parquet ({error})")
        schema = self._file.schema_arrow
        self._columns = [name for name in ("identity", "embedding", *_READ) if name in schema.names]
        stored = (schema.metadata or {}).get(CONTRACT_KEY.encode())
        try:
            missing = [name for name in ("identity", "embedding") if name not in schema.names]
            if missing:
                refuse_source(f"{path.name} has no column {missing[0]!r}; identity and embedding are wanted")
            self.contract: Contract | None = None if stored is None else parse_contract(stored)
        except InvalidRequestError:
            self.close()
            raise
        self.rows = int(self._file.metadata.num_rows)

    def read(self, start: int, size: int, dimensions: int) -> Iterator[Rows]:
        """Yield the rows from a position on; a list of another length becomes a problem of its row."""
        groups = self._file.metadata.num_row_groups
        first, before = 0, 0
        while first < groups and before + self._file.metadata.row_group(first).num_rows <= start:
            before += self._file.metadata.row_group(first).num_rows
            first += 1
        try:
            batches = self._file.iter_batches(
                batch_size=size, row_groups=list(range(first, groups)), columns=self._columns
            )
            for batch in batches:
                skipped = max(0, start - before)
                before += batch.num_rows
                if skipped >= batch.num_rows:
                    continue
                rows = _rows(start, batch.slice(skipped), dimensions)
                start = before
                yield rows
        except self._errors as error:
            refuse_source(f"the file is damaged after row {start} ({error})")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ParquetWriter:
    """Writes an export as Parquet."""

    def __init__(self, file: BinaryIO, contract: Contract, rows: int) -> None:
        arrow, parquet = _module("pyarrow"), _module("pyarrow.parquet")
        self._arrow = arrow
        self._dimensions = contract.dimensions
        self._schema = arrow.schema(
            [
                arrow.field("identity", arrow.string(), nullable=False),
                arrow.field("embedding", arrow.list_(arrow.float32(), contract.dimensions), nullable=False),
                arrow.field("metadata", arrow.string(), nullable=False),
                arrow.field("quality", arrow.string(), nullable=False),
                arrow.field("face", arrow.string()),
                arrow.field("created_at", arrow.timestamp("us", tz="UTC"), nullable=False),
                arrow.field("reference_id", arrow.string(), nullable=False),
            ],
            metadata={CONTRACT_KEY: contract.model_dump_json()},
        )
        self._writer: Any = parquet.ParquetWriter(file, self._schema)

    def write(self, references: Sequence[ExportedReference]) -> None:
        """Add references."""
        arrow = self._arrow
        numbers = np.frombuffer(b"".join(one.embedding for one in references), "<f4")
        columns = [
            arrow.array([one.identity for one in references], arrow.string()),
            arrow.FixedSizeListArray.from_arrays(arrow.array(numbers, arrow.float32()), self._dimensions),
            arrow.array([json.dumps(one.metadata) for one in references], arrow.string()),
            arrow.array([json.dumps(one.quality) for one in references], arrow.string()),
            arrow.array(
                [None if one.face is None else json.dumps(one.face) for one in references], arrow.string()
            ),
            arrow.array([one.created_at for one in references], arrow.timestamp("us", tz="UTC")),
            arrow.array([one.reference_id for one in references], arrow.string()),
        ]
        batch = arrow.RecordBatch.from_arrays(columns, schema=self._schema)
        self._writer.write_batch(batch, row_group_size=_ROWS_OF_A_GROUP)

    def finish(self) -> None:
        """Write the file's directory."""
        self._writer.close()

    def close(self) -> None:
        """Let go of the file."""
        with suppress(OSError):  # of one that was not finished
            self._writer.close()


def _rows(start: int, batch: Any, dimensions: int) -> Rows:  # noqa: ANN401 - pyarrow.RecordBatch
    columns = {name: batch.column(name) for name in batch.schema.names}
    embeddings, problems = _embeddings(columns.pop("embedding"), dimensions)
    identities = columns.pop("identity").to_pylist()
    return Rows(start, identities, embeddings, problems, {n: c.to_pylist() for n, c in columns.items()})


def _embeddings(column: Any, dimensions: int) -> tuple[NDArray[np.float32], dict[int, str]]:  # noqa: ANN401
    arrow = _module("pyarrow")
    kind = column.type
    lists = (
        arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_fixed_size_list(kind)
    )
    if not lists or not arrow.types.is_floating(kind.value_type):
        refuse_source(f"the column embedding is of type {kind}; a list of float32 is wanted")
    lengths = _module("pyarrow.compute").list_value_length(column)
    found = lengths.fill_null(-1).to_numpy(zero_copy_only=False)
    embeddings = np.zeros((len(column), dimensions), np.float32)
    good = found == dimensions
    # What lies below one that is missing is not part of the flattened numbers.
    flat = column.filter(arrow.array(good)).flatten().fill_null(float("nan"))
    with np.errstate(over="ignore"):
        embeddings[good] = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dimensions)
    problems = {
        int(number): "there is no embedding"
        if found[number] < 0
        else f"the embedding has {found[number]} dimensions; {dimensions} are wanted"
        for number in np.flatnonzero(~good)
    }
    return embeddings, problems


def _module(name: str) -> Any:  # noqa: ANN401 - an optional package
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidRequestError(
            [
                {
                    "field": "source",
                    "problem": "Parquet needs the extra: pip install 'visavis[parquet]'",
                }
            ]
        ) from error


def _errors() -> tuple[type[Exception], ...]:
    return (OSError, ValueError, _module("pyarrow").ArrowException)
