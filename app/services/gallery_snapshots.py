"""Snapshots of large galleries on disk, so that a worker is ready at once and shares memory with the others.

A snapshot is three files in a folder of this host: a description, the rows as they lie in memory, and what
else the gallery holds. The rows are mapped, not read, so that workers of a host share them as long as they do
not change. A snapshot is used only when

* the store knows its nonce, which one that was put back from an older backup does not;
* the store can still tell what has changed since its revision;
* every byte has the digest that the description gives.

Otherwise it is removed and the gallery read from the store. Snapshots hold templates: the folder is for its
owner alone, and after a removal a new snapshot soon takes the old one's place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from app.matching.distances import Metric
from app.matching.gallery import PART, Gallery, State
from app.matching.quantised import EngineError
from app.storage import templates
from app.storage.database import Database, DatabaseUnavailableError, Session
from app.storage.records import Collection

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("visavis.galleries")

FORMAT: Final = 1
ROWS_AT_ONCE: Final = 16_384
"""Rows copied while the gallery is held, so that no search waits long; each run has its own digest."""
SPARE: Final = 0.1
"""Room after the rows, as a share of them, so that a gallery made from a snapshot can grow in place."""


UNDER_WAY_S: Final = 3600.0
"""Seconds after which files that nothing describes are taken for what a crash has left."""


class Held(Protocol):
    """A gallery that others search and change, and what it reflects."""

    lock: threading.Lock
    gallery: Gallery
    revision: int


class SnapshotError(Exception):
    """A snapshot cannot be used; the message says why."""


class Snapshots:
    """The snapshots of one folder.

    Args:
        folder: Made when the first is written.
        store: Takes the nonces: the primary, also where searches read a replica.
    """

    def __init__(self, folder: Path, store: Database) -> None:
        self._folder = folder
        self._store = store

    def load(
        self, session: Session, collection: Collection, dimensions: int, metric: Metric, pool: Executor
    ) -> tuple[Gallery, int] | None:
        """Return the gallery of a collection and its revision, or None where there is no usable snapshot."""
        described = self._described(collection)
        if not described.is_file():
            return None
        try:
            return self._load(session, collection, dimensions, metric, pool)
        except (SnapshotError, EngineError, ImportError, OSError, ValueError, KeyError) as error:
            logger.warning("the snapshot of collection %s is not used: %s", collection.name, error)
            nonce = self._nonce(collection)
            described.unlink(missing_ok=True)
            if nonce is not None:
                self._remove(nonce)
            return None

    def _load(
        self, session: Session, collection: Collection, dimensions: int, metric: Metric, pool: Executor
    ) -> tuple[Gallery, int]:
        about = json.loads(self._described(collection).read_text(encoding="utf-8"))
        if about["format"] != FORMAT or about["dimensions"] != dimensions or about["part"] != PART:
            raise SnapshotError("another version of visavis wrote it")
        revision = templates.snapshot_revision(session, collection, about["nonce"])
        if revision is None or revision != about["revision"]:
            raise SnapshotError("this store does not know it: it is of another store, or of a later state")
        if not collection.removals_from <= revision <= collection.revision:
            raise SnapshotError(f"its revision {revision} is too long ago")
        rows_file, rest_file = self._files(about["nonce"])
        if hashlib.sha256(rest_file.read_bytes()).hexdigest() != about["rest_sha256"]:
            raise SnapshotError(f"{rest_file.name} is damaged")
        rows = np.memmap(rows_file, np.float32, mode="c", shape=(about["room"], dimensions))
        starts = range(0, about["size"], ROWS_AT_ONCE)
        for found, expected in zip(
            pool.map(lambda start: _digest(rows[start : min(start + ROWS_AT_ONCE, about["size"])]), starts),
            about["rows_sha256"],
            strict=True,
        ):
            if found != expected:
                raise SnapshotError(f"{rows_file.name} is damaged")
        with np.load(rest_file, allow_pickle=False) as rest:
            state = State(
                keys=rest["keys"],
                rows=np.asarray(rows),
                parts=tuple(
                    (rest[f"codes_{n}"], rest[f"levels_{n}"], rest[f"errors_{n}"])
                    for n in range(about["parts"])
                ),
                measured=rest["measured"],
            )
        return Gallery.from_state(state, metric, pool=pool), revision

    def save(self, collection: Collection, held: Held) -> int | None:
        """Write a snapshot beside running searches and changes; the one before is removed.

        Args:
            collection: Whose gallery it is.
            held: The gallery; its lock is taken for a few milliseconds at a time.

        Returns:
            The snapshot's revision; None when another process is writing one, or the gallery was rearranged
            meanwhile.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        nonce = secrets.token_hex(16)
        with _alone(self._folder / f"{collection.id}.lock") as alone:
            if not alone:
                return None
            before = self._nonce(collection)
            try:
                about = _write(held, *self._files(nonce))
                if about is None:
                    self._remove(nonce)
                    return None
                revision: int = about["revision"]
                self._store.write_now(_replace_nonce, collection, revision, nonce, before)
                scratch = self._folder / f"{nonce}.partial"
                _private(scratch).write_text(json.dumps({"nonce": nonce, **about}), encoding="utf-8")
                scratch.replace(self._described(collection))
            except BaseException:
                self._remove(nonce)
                raise
            if before is not None:
                self._remove(before)
        self.tidy()
        logger.info("a snapshot of collection %s at revision %d is written", collection.name, revision)
        return revision

    def tidy(self) -> None:
        """Remove what is of no use: files of collections that are gone, or that a crash has left."""
        with contextlib.suppress(DatabaseUnavailableError, OSError, ValueError, KeyError):
            known = self._store.read_now(templates.known_snapshots)
            used = set()
            for path in self._folder.glob("*.json"):
                nonce = json.loads(path.read_text(encoding="utf-8"))["nonce"]
                if nonce in known:
                    used.add(nonce)
                else:
                    path.unlink(missing_ok=True)
            for path in self._folder.iterdir():
                # What is young may be on its way to be described.
                old = time.time() - path.stat().st_mtime > UNDER_WAY_S
                if path.suffix in {".rows", ".npz", ".partial"} and path.stem not in used and old:
                    path.unlink(missing_ok=True)

    def _remove(self, nonce: str) -> None:
        for path in (*self._files(nonce), self._folder / f"{nonce}.partial"):
            path.unlink(missing_ok=True)

    def _nonce(self, collection: Collection) -> str | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            nonce: str = json.loads(self._described(collection).read_text(encoding="utf-8"))["nonce"]
            return nonce
        return None

    def _described(self, collection: Collection) -> Path:
        return self._folder / f"{collection.id}-{collection.model_digest[:16]}.json"

    def _files(self, nonce: str) -> tuple[Path, Path]:
        return self._folder / f"{nonce}.rows", self._folder / f"{nonce}.npz"


def _write(held: Held, rows_file: Path, rest_file: Path) -> dict[str, Any] | None:
    """Write both files of a gallery, and return what is to be said of them; None if it was rearranged."""
    gallery = held.gallery
    with held.lock:
        generation, size, gallery.written = gallery.generation, gallery.size, set()
    try:
        with _private(rows_file).open("r+b") as file:
            for start in range(0, size, ROWS_AT_ONCE):
                with held.lock:
                    if held.gallery is not gallery or gallery.generation != generation:
                        return None
                    copied = gallery.copy(np.arange(start, min(start + ROWS_AT_ONCE, size)))
                file.write(copied.tobytes())
            with held.lock:
                if held.gallery is not gallery or gallery.generation != generation:
                    return None
                revision, state = held.revision, gallery.state()
                late = np.array(sorted(gallery.written), np.intp)
                rewritten = gallery.copy(late)
            width = 4 * rewritten.shape[1]
            for place, row in zip(late.tolist(), rewritten, strict=True):
                file.seek(place * width)
                file.write(row.tobytes())
            size, room = len(state.keys), int(len(state.keys) * (1.0 + SPARE))
            file.truncate(room * width)
            file.flush()
            os.fsync(file.fileno())
    finally:
        gallery.written = None
    rest: dict[str, Any] = {"keys": state.keys, "measured": state.measured}
    for number, (codes, levels, errors) in enumerate(state.parts):
        rest |= {f"codes_{number}": codes, f"levels_{number}": levels, f"errors_{number}": errors}
    with _private(rest_file).open("r+b") as file:
        np.savez(file, allow_pickle=False, **rest)
        file.flush()
        os.fsync(file.fileno())
    rows = np.memmap(rows_file, np.float32, mode="r", shape=(room, width // 4))
    return {
        "format": FORMAT,
        "revision": revision,
        "dimensions": width // 4,
        "part": PART,
        "size": size,
        "room": room,
        "parts": len(state.parts),
        "rows_sha256": [
            _digest(rows[start : min(start + ROWS_AT_ONCE, size)]) for start in range(0, size, ROWS_AT_ONCE)
        ],
        "rest_sha256": hashlib.sha256(rest_file.read_bytes()).hexdigest(),
    }


def _replace_nonce(
    session: Session, collection: Collection, revision: int, nonce: str, before: str | None
) -> None:
    if before is not None:
        templates.forget_snapshot(session, before)
    templates.add_snapshot(session, collection, revision, nonce)


def _digest(rows: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).view(np.uint8).data).hexdigest()


def _private(path: Path) -> Path:
    """Make an empty file that only its owner can read."""
    os.close(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
    return path


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Yield whether this process holds the lock file; where there are no such locks, always."""
    with _private(path).open("r+b") as file:
        if sys.platform == "win32":  # has no such locks
            yield True
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
