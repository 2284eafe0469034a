"""The small files of a bundle: golden inputs, digests, the manifest, the seal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.encoding.manifest import MANIFEST_NAME, FileEntry, Manifest
from app.encoding.seal import UNSEALED, write_seal


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


def file_entries(folder: Path, first: tuple[str, ...] = ()) -> dict[str, FileEntry]:
    """Return the manifest's list of the files in a folder: those named first, then the others by name.

    Names that are not there are left out, and so are the manifest, the seal and its signature.
    """
    present = sorted(path.name for path in folder.iterdir() if path.name not in {MANIFEST_NAME, *UNSEALED})
    names = [name for name in first if name in present]
    names += [name for name in present if name not in first]
    return {name: file_entry(folder / name) for name in names}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` with a final newline, and seal the folder: both are the last of a bundle.

    Raises:
        BundleError: Something in the folder cannot be part of a bundle; the message names it.
    """
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")
    write_seal(folder)
