"""SQL of how far each source has been imported into a collection. Callers hold the collection's row."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from app.storage.records import Collection
from app.storage.schema import ImportRow, utc_now


@dataclass(frozen=True)
class ImportState:
    """How far a source has got.

    Attributes:
        run: Random name of the run that this is the state of; a source that is imported again gets another.
        position: Rows of the source that are done with.
        counts: How many of them were imported, replaced, skipped and rejected.
    """

    run: str
    position: int
    counts: dict[str, int]


def find(session: Session, collection: Collection, source_sha256: str) -> ImportState | None:
    """Return how far a source has got in a collection, or None if it was never begun."""
    row = session.execute(
        select(ImportRow.position, ImportRow.counts).where(
            ImportRow.collection_id == collection.id, ImportRow.source_sha256 == source_sha256
        )
    ).first()
    if row is None:
        return None
    counts = dict(row.counts)
    return ImportState(str(counts.pop("run")), row.position, counts)


def begin(session: Session, collection: Collection, source_sha256: str, run: str) -> ImportState:
    """Begin a source at its first row, also where it has been imported before."""
    session.execute(
        delete(ImportRow).where(
            ImportRow.collection_id == collection.id, ImportRow.source_sha256 == source_sha256
        )
    )
    session.execute(
        insert(ImportRow).values(
            collection_id=collection.id, source_sha256=source_sha256, position=0, counts={"run": run}
        )
    )
    return ImportState(run, 0, {})


def advance(session: Session, collection: Collection, source_sha256: str, state: ImportState) -> None:
    """Write down how far a source has got, in the transaction of the rows themselves."""
    session.execute(
        update(ImportRow)
        .where(ImportRow.collection_id == collection.id, ImportRow.source_sha256 == source_sha256)
        .values(position=state.position, counts={"run": state.run, **state.counts}, updated_at=utc_now())
        .execution_options(synchronize_session=False)
    )
