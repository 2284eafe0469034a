"""Write a collection's references to a file that an import elsewhere reads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from app.errors import InvalidRequestError
from app.services.models import Models
from app.services.portable.contract import Contract
from app.services.portable.files import SUFFIXES, Writer, open_writer
from app.storage import bulk, collections
from app.storage.database import Database, Session

IDENTITIES_OF_A_PAGE: Final = 5_000
"""Identities read by one statement."""


Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Opened with the number of rows that will be written; what that gives is called with each page's."""


def _no_progress(_: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda _: None)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        contract: What the file says of itself; all its rows are of that revision.
        references: Rows of the file.
        pending: Identities left out, because during a change of model they have no reference by the
            collection's model yet.
    """

    contract: Contract
    references: int
    pending: int


def export(
    database: Database,
    models: Models,
    name: str,
    out: Path,
    *,
    progress: Progress = _no_progress,
) -> Exported:
    """Write the references of a collection, all of one revision.

    The file appears under its name when it is complete, readable to its owner only, and takes the place of
    one that was there.

    Args:
        database: The store, or a replica of it.
        models: Those served here; the collection's must be among them.
        name: The collection.
        out: The file; its suffix says the format.
        progress: Called with the number of rows before the first, and what it returns after each page.

    Raises:
        CollectionNotFoundError: There is none of that name.
        InvalidRequestError: The format is not known or needs an extra, or there is no such folder.
        ModelMismatchError: The collection's model is not served here.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise _wrong(f"{out.name}: name a file that ends with one of {', '.join(SUFFIXES)}")
    if out.is_dir() or not out.parent.is_dir():
        raise _wrong(f"{out} is a folder" if out.is_dir() else f"there is no folder {out.parent}")
    try:
        number, partial = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".partial")
    except OSError as error:
        raise _wrong(f"{out} cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(number, "w+b") as file:
            exported, writer = database.read_now(_write_rows, models, name, out, file, progress)
            with closing(writer):  # after the transaction, because a format may take long to end
                writer.finish()
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(out)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return exported


def _write_rows(
    session: Session, models: Models, name: str, out: Path, file: BinaryIO, progress: Progress
) -> tuple[Exported, Writer]:
    """Write the rows as the session sees them, from the file's beginning on; the writer is not finished."""
    collection = collections.get(session, name)
    manifest = models.of_collection(collection).manifest
    references, pending = bulk.count_exported(session, collection)
    contract = Contract(
        visavis_export=1,
        model_id=collection.model_id,
        model_digest=collection.model_digest,
        dimensions=manifest.dimensions,
        metric=manifest.metric,
        collection=collection.name,
        revision=collection.revision,
        created_at=datetime.now(UTC),
    )
    file.seek(0)
    file.truncate()  # of what was written by a transaction that had to begin again
    writer = open_writer(out, file, contract, references)
    try:
        with progress(references) as advance:
            for page in bulk.pages(session, collection, IDENTITIES_OF_A_PAGE):
                writer.write(page)
                advance(len(page))
    except BaseException:
        writer.close()
        raise
    return Exported(contract, references, pending), writer


def _wrong(problem: str) -> InvalidRequestError:
    return InvalidRequestError([{"field": "out", "problem": problem}])
