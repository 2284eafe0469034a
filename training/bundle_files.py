"""The small files of a bundle: golden inputs, digests, the manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.encoding.manifest import MANIFEST_NAME, FileEntry, Manifest


def synthetic_inputs(count: int, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Return uint8[count, H, W, C] patterns of integer arithmetic: the same on every machine."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    return np.stack(
        [((k + 1) * x + (2 * k + 1) * y + 40 * c * k + (x * y) // (k + 3)) % 256 for k in range(count)]
    ).astype(np.uint8)


def file_entry(path: Path) -> FileEntry:
    """Return size and digest of a file, as the manifest lists them."""
    data = path.read_bytes()
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` with a final newline."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")
