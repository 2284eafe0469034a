"""Write files of embeddings as other tools would."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from app.encoding.model import Model

Row = Mapping[str, Any]


def contract_of(model: Model, **changes: object) -> dict[str, Any]:
    """Return what a file says of embeddings that a model made."""
    manifest = model.manifest
    return {
        "visavis_export": 1,
        "model_id": model.model_id,
        "model_digest": model.digest,
        "dimensions": manifest.dimensions,
        "metric": manifest.metric,
        **changes,
    }


def unit_vectors(count: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    """Draw float32[N, D] of norm 1."""
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def rows_of(vectors: NDArray[np.float32], *, prefix: str = "p") -> list[dict[str, Any]]:
    """Return rows with names ``p0000`` and so on, and the number as metadata."""
    return [
        {"identity": f"{prefix}{number:04d}", "embedding": vector, "metadata": {"number": number}}
        for number, vector in enumerate(vectors)
    ]


def write_file(path: Path, rows: Sequence[Row], contract: Mapping[str, Any] | None) -> Path:
    """Write rows in the format that the suffix says; embeddings are arrays of one length."""
    {".jsonl": write_jsonl, ".npz": write_npz, ".parquet": write_parquet}[path.suffix](path, rows, contract)
    return path


def write_jsonl(path: Path, rows: Sequence[Row | str], contract: Mapping[str, Any] | None) -> Path:
    """Write JSON lines; a row that is text is written as it is."""
    lines = [] if contract is None else [json.dumps(contract)]
    for row in rows:
        if isinstance(row, str):
            lines.append(row)
            continue
        embedding = row.get("embedding")
        listed = embedding.tolist() if isinstance(embedding, np.ndarray) else embedding
        lines.append(json.dumps({**row, "embedding": listed}))
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def write_npz(path: Path, rows: Sequence[Row], contract: Mapping[str, Any] | None) -> Path:
    """Write npz."""
    arrays = {
        "identity": np.array([row["identity"] for row in rows]),
        "embedding": np.array([row["embedding"] for row in rows], np.float32),
        "metadata": np.array([json.dumps(row.get("metadata")) for row in rows]),
    }
    if contract is not None:
        arrays["contract"] = np.array(json.dumps(contract))
    np.savez(path, allow_pickle=False, **arrays)
    return path


def write_parquet(path: Path, rows: Sequence[Row], contract: Mapping[str, Any] | None) -> Path:
    """Write Parquet; an embedding may be None, or of another length than the others."""
    table = pyarrow.table(
        {
            "identity": pyarrow.array([row["identity"] for row in rows], pyarrow.string()),
            "embedding": pyarrow.array([row["embedding"] for row in rows], pyarrow.list_(pyarrow.float32())),
            "metadata": pyarrow.array([json.dumps(row.get("metadata")) for row in rows], pyarrow.string()),
        }
    )
    if contract is not None:
        table = table.replace_schema_metadata({"visavis_export": json.dumps(contract)})
    pyarrow.parquet.write_table(table, path, row_group_size=70)
    return path
