"""Embed many files so that an interruption costs next to nothing: in blocks that stay on disk.

A block is an npz file of a few dozen embeddings with path, size, time of change and SHA-256 of each file.
The next run finds a file again by path, size and time, or by its digest where it was moved or touched. A
block is renamed into place when it is complete, so one that is there is whole; one that cannot be read is
made anew. Each image is encoded by itself, so the embeddings do not depend on where a run broke off.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.bulk import embed_files
from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageEncoder

BLOCK: Final = 64
"""Images of a block: what a kill can lose."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Embeddings of files in the order asked for.

    Attributes:
        embeddings: float32[N, D]; rows of failures are zero.
        ok: bool[N], whether the file could be embedded.
        reasons: Why not, "code: text"; empty where it could.
        digests: Hex SHA-256 of each file; empty where it could not be read.
    """

    embeddings: NDArray[np.float32]
    ok: NDArray[np.bool_]
    reasons: tuple[str, ...]
    digests: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """One embedded file."""

    embedding: NDArray[np.float32]
    reason: str
    digest: str


class EmbeddingCache:
    """Embeddings of one model, kept in a folder."""

    def __init__(self, folder: Path, key: str) -> None:
        """Read the blocks that lie there.

        Args:
            folder: Made when the first block is written.
            key: All that decides an embedding; blocks of another key are passed over.
        """
        self._folder, self._key = folder, key
        self._by_state: dict[tuple[str, int, int], _Entry] = {}
        self._by_digest: dict[str, _Entry] = {}
        self._next = 0
        for path in sorted(folder.glob("block-*.npz")):
            self._next = int(path.stem.removeprefix("block-")) + 1
            self._read(path)

    def embed(
        self,
        encoder: ImageEncoder,
        root: Path,
        paths: Sequence[Path],
        choice: FaceChoice,
        *,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Stored:
        """Embed files below a folder, those that are known already without work.

        Args:
            encoder: The model's encoder.
            root: What the names of files are relative to.
            paths: Image files below it.
            choice: Which face counts when a picture has several.
            progress: Called with the number of files just done.
        """
        found: dict[Path, _Entry] = {}
        states = {path: _state(path, root) for path in paths}
        left = []
        for path in paths:
            entry = self._by_state.get(states[path]) or self._by_digest.get(_digest(path))
            if entry is None:
                left.append(path)
            else:
                found[path] = entry
        progress(len(paths) - len(left))
        for start in range(0, len(left), BLOCK):
            block = left[start : start + BLOCK]
            digests = [_digest(path) for path in block]
            embedded = embed_files(encoder, block, choice, progress=progress)
            entries = [
                _Entry(*item) for item in zip(embedded.embeddings, embedded.reasons, digests, strict=True)
            ]
            found.update(zip(block, entries, strict=True))
            self._write([states[path] for path in block], entries)
        ordered = [found[path] for path in paths]
        return Stored(
            np.stack([entry.embedding for entry in ordered])
            if ordered
            else np.zeros((0, encoder.encoding.dimensions), np.float32),
            np.array([not entry.reason for entry in ordered], np.bool_),
            tuple(entry.reason for entry in ordered),
            tuple(entry.digest for entry in ordered),
        )

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as block:
                if str(block["key"]) != self._key:
                    return
                columns = [block[name].tolist() for name in ("paths", "sizes", "times", "reasons", "digests")]
                embeddings = block["embeddings"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return
        for name, size, time, reason, digest, embedding in zip(*columns, embeddings, strict=True):
            entry = _Entry(embedding, reason, digest)
            self._by_state[name, size, time] = self._by_digest[digest] = entry

    def _write(self, states: Sequence[tuple[str, int, int]], entries: Sequence[_Entry]) -> None:
        # A file that could not be read is tried again by the next run.
        known = [(state, entry) for state, entry in zip(states, entries, strict=True) if entry.digest]
        if not known:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        place = self._folder / f"block-{self._next:06d}.npz"
        partial = place.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                key=np.array(self._key),
                paths=np.array([state[0] for state, _ in known]),
                sizes=np.array([state[1] for state, _ in known], np.int64),
                times=np.array([state[2] for state, _ in known], np.int64),
                reasons=np.array([entry.reason for _, entry in known]),
                digests=np.array([entry.digest for _, entry in known]),
                embeddings=np.stack([entry.embedding for _, entry in known]),
            )
        partial.replace(place)
        self._next += 1


def _state(path: Path, root: Path) -> tuple[str, int, int]:
    """Return the name below the root, the size in bytes and the time of change in nanoseconds."""
    name = path.relative_to(root).as_posix()
    try:
        status = os.stat(path)  # noqa: PTH116 - follows links, as reading does
    except OSError:
        return name, -1, -1
    return name, status.st_size, status.st_mtime_ns


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
