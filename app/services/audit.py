"""Audit a collection as it stands at one revision, or photos in folders by subject.

The comparison can be broken off: a state file keeps what was embedded and compared so far, and the next run
goes on from there. It holds templates of photos, so only its owner may read it; those of a collection stay in
the store, and the state has only their digest.
"""

from __future__ import annotations

import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.bulk import embed_files
from app.encoding.detection import FaceChoice
from app.encoding.intake import IMAGE_SUFFIXES
from app.encoding.model import Model
from app.errors import InvalidRequestError
from app.matching.audit import Audit, AuditResult
from app.matching.pair_scan import StaleStateError
from app.services.models import Models
from app.storage import collections, identities
from app.storage.database import Database, Session
from app.storage.records import Collection

_SAVE_EVERY_S: Final = 5.0
"""Seconds of work that a kill may cost."""
_EMBED_AT_ONCE: Final = 128
_KIND: Final = "visavis audit state 1"


@dataclass(frozen=True, eq=False)
class Sample:
    """What is audited.

    Attributes:
        names: Identities; a label is an index into them.
        labels: int32[N].
        embeddings: float32[N, D].
        images: The file of each embedding; None for a reference of the collection.
        unusable: File and reason of each image that could not be embedded.
        revision: Of the collection; None without one.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int32]
    embeddings: NDArray[np.float32]
    images: tuple[Path | None, ...]
    unusable: tuple[tuple[Path, str], ...] = ()
    revision: int | None = None


class StateFile:
    """The file that an audit goes on from, or nothing when no path was given.

    Raises:
        InvalidRequestError: A file of that name is no audit's state, or there is no such folder.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self._saved = time.monotonic()
        if path is None:
            return
        if not path.parent.is_dir():
            raise _wrong(f"there is no folder {path.parent}")
        if path.exists():
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                    self._arrays = {name: arrays[name] for name in arrays.files}
            except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
                raise _wrong(f"{path} cannot be read as the state of an audit; name another file") from error
            if str(self._arrays.get("kind")) != _KIND:
                raise _wrong(f"{path} is not the state of an audit; name another file")

    def part(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Return the arrays that were saved under a prefix."""
        return {name[len(prefix) :]: array for name, array in self._arrays.items() if name.startswith(prefix)}

    def put(self, prefix: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace what is under a prefix; ``save`` writes it."""
        self._arrays = {name: array for name, array in self._arrays.items() if not name.startswith(prefix)}
        self._arrays.update({prefix + name: array for name, array in arrays.items()})

    @property
    def due(self) -> bool:
        """Whether so much time has passed that it should be saved."""
        return self._path is not None and time.monotonic() - self._saved >= _SAVE_EVERY_S

    def save(self) -> None:
        """Write the file anew; it is either the old one or the new one, whenever the process ends."""
        if self._path is None:
            return
        self._arrays["kind"] = np.array(_KIND)
        number, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(number, "wb") as file:
                np.savez(file, allow_pickle=False, **self._arrays)
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._saved = time.monotonic()


def labelled_files(folder: Path, *, field: str) -> list[tuple[str, Path]]:
    """List the images ``<identity>/<image>`` of a folder as (identity, path), sorted.

    Raises:
        InvalidRequestError: There is none; the error names the field.
    """
    found = [
        (path.parent.name, path)
        for path in sorted(folder.glob("*/*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not found:
        raise InvalidRequestError(
            [{"field": field, "problem": f"{folder} holds no images as <identity>/<image>"}]
        )
    return found


def embedded(
    model: Model,
    files: Sequence[tuple[str, Path]],
    choice: FaceChoice,
    state: StateFile,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[NDArray[np.float32], dict[Path, str]]:
    """Embed files, but for those that the state has with the same size and time of change.

    Returns:
        float32[N, D], zero where it failed, and the reason for each file that failed.
    """
    paths = [path.resolve() for _, path in files]
    stamps = np.array([_stamp(path) for path in paths], np.int64).reshape(-1, 2)
    known = _known(state.part("embedded_"), model, choice)
    rows = np.zeros((len(paths), model.manifest.dimensions), np.float32)
    reasons = [""] * len(paths)
    missing = []
    for number, path in enumerate(paths):
        entry = known.get((str(path), *stamps[number].tolist()))
        if entry is None:
            missing.append(number)
        else:
            rows[number], reasons[number] = entry
    progress(len(paths) - len(missing))

    def save() -> None:
        made = np.setdiff1d(np.arange(len(paths)), missing)
        state.put(
            "embedded_",
            {
                "by": np.array(f"{model.digest} {choice}"),
                "paths": np.array([str(paths[number]) for number in made]),
                "stamps": stamps[made],
                "rows": rows[made],
                "reasons": np.array([reasons[number] for number in made]),
            },
        )
        state.save()

    try:
        while missing:
            some = missing[:_EMBED_AT_ONCE]
            made = embed_files(model.images, [paths[number] for number in some], choice, progress=progress)
            rows[some] = made.embeddings
            for number, reason in zip(some, made.reasons, strict=True):
                reasons[number] = reason
            missing = missing[_EMBED_AT_ONCE:]
            if state.due:
                save()
    finally:
        save()
    return rows, {path: reason for (_, path), reason in zip(files, reasons, strict=True) if reason}


def of_folder(
    files: Sequence[tuple[str, Path]], rows: NDArray[np.float32], failed: Mapping[Path, str]
) -> Sample:
    """Return the sample of embedded photos; a subject without a usable one does not take part."""
    usable = [number for number, (_, path) in enumerate(files) if path not in failed]
    names, labels = _numbered([files[number][0] for number in usable])
    return Sample(
        names=names,
        labels=labels,
        embeddings=rows[usable],
        images=tuple(files[number][1] for number in usable),
        unusable=tuple(failed.items()),
    )


def of_collection(database: Database, models: Models, name: str) -> tuple[Sample, Model]:
    """Return a collection's references as committed now, all of one revision, and the model they are of.

    Raises:
        CollectionNotFoundError: There is none of that name.
        ModelMismatchError: It is bound to a model that is not served here.
    """
    collection, entries = database.read_now(_entries, name)
    model = models.of_collection(collection)
    names, labels = _numbered([identity for identity, _ in entries])
    rows = np.array([embedding for _, embedding in entries], np.float32)
    sample = Sample(
        names=names,
        labels=labels,
        embeddings=rows.reshape(len(entries), model.manifest.dimensions),
        images=(None,) * len(entries),
        revision=collection.revision,
    )
    return sample, model


def with_probes(
    sample: Sample, files: Sequence[tuple[str, Path]], rows: NDArray[np.float32], failed: Mapping[Path, str]
) -> Sample:
    """Return the sample with labelled photos added to the identities that they are said to show.

    Raises:
        InvalidRequestError: A folder is named after nobody in the collection.
    """
    number_of = {name: label for label, name in enumerate(sample.names)}
    unknown = sorted({name for name, _ in files} - number_of.keys())
    if unknown:
        raise InvalidRequestError(
            [
                {
                    "field": "probes",
                    "problem": f"{len(unknown)} folders are named after nobody in the collection, such as "
                    f"{unknown[0]!r}; enrol them or take the folders away",
                }
            ]
        )
    usable = [number for number, (_, path) in enumerate(files) if path not in failed]
    labels = np.array([number_of[files[number][0]] for number in usable], np.int32)
    return Sample(
        names=sample.names,
        labels=np.concatenate([sample.labels, labels]),
        embeddings=np.concatenate([sample.embeddings, rows[usable]]),
        images=sample.images + tuple(files[number][1] for number in usable),
        unusable=tuple(failed.items()),
        revision=sample.revision,
    )


def prepared(sample: Sample, model: Model) -> Audit:
    """Return the audit of a sample, at its beginning."""
    manifest = model.manifest
    return Audit(
        sample.embeddings,
        sample.labels,
        manifest.metric,
        model.evidence,
        manifest.operating_points,
        default=manifest.default_operating_point,
    )


def resumed(audit: Audit, state: StateFile) -> bool | None:
    """Bring an audit to where the state left it.

    Returns:
        None when the state has no comparison, False when it is one of other embeddings and the audit begins
        anew, True when it goes on.

    Raises:
        InvalidRequestError: The state is damaged.
    """
    saved = state.part("scan_")
    if not saved:
        return None
    try:
        audit.scan.resume(saved)
    except StaleStateError:
        return False
    except (KeyError, ValueError, TypeError) as error:
        raise _wrong("the state is damaged; remove the file or name another") from error
    return True


def compared(
    audit: Audit, state: StateFile, *, progress: Callable[[int], None] = lambda _: None
) -> AuditResult:
    """Run an audit to its end, saving its state every few seconds and when it is broken off."""
    try:
        while not audit.done:
            progress(audit.step())
            if state.due:
                state.put("scan_", audit.scan.state())
                state.save()
    finally:
        state.put("scan_", audit.scan.state())
        state.save()
    return audit.result()


def _entries(session: Session, name: str) -> tuple[Collection, list[tuple[str, NDArray[np.float32]]]]:
    collection = collections.get(session, name)
    found = identities.changed_since(session, collection, -1)
    return collection, [(entry.name, entry.embedding) for entry in found]


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    different = sorted(set(names))
    number_of = {name: number for number, name in enumerate(different)}
    return tuple(different), np.array([number_of[name] for name in names], np.int32)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # the reason is given when it is read
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _known(
    saved: Mapping[str, NDArray[np.generic]], model: Model, choice: FaceChoice
) -> dict[tuple[str, int, int], tuple[NDArray[np.float32], str]]:
    if str(saved.get("by")) != f"{model.digest} {choice}":
        return {}
    try:
        rows = saved["rows"].astype(np.float32)
        entries = zip(saved["paths"], saved["stamps"].tolist(), rows, saved["reasons"], strict=True)
        return {(str(path), size, changed): (row, str(why)) for path, (size, changed), row, why in entries}
    except (KeyError, ValueError, TypeError) as error:
        raise _wrong("the state is damaged; remove the file or name another") from error


def _wrong(problem: str) -> InvalidRequestError:
    return InvalidRequestError([{"field": "state", "problem": problem}])
