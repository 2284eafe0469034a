"""What VISAVIS_SEARCH=pgvector costs and finds: filling in, index, searches, recall, writes, bytes.

    python -m benchmarks.pgvector [--rows 100000] [--dimensions 128] [--probes 200] [--ef-search 40,200]
                                  [--embeddings FILE.npz] [--database URL]

Rows are as in ``benchmarks.search``: random unit vectors, which are the hardest for an index, or real
embeddings mixed to as many as are wanted. Without ``--database`` a PostgreSQL server of its own is started
(the extra ``test`` brings one). Recall is of the five nearest, against a full scan. Printed as JSON.
"""

from __future__ import annotations

import json
import statistics
import time
import uuid
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
from sqlalchemy import text

from app.encoding.bundle import load_bundle
from app.resources import resource_dir
from app.services.pgvector_search import PgvectorSearch
from app.storage import collections, identities, migrate, vectors
from app.storage.database import Database, Session
from app.storage.records import Collection, NewReference, to_bytes
from benchmarks.search import Rows, drawn, milliseconds

COLLECTION = "people"
DIGEST = "ab" * 32


def fill(session: Session, rows: Rows) -> Collection:
    """Write identities ``p0``, ``p1``, ... as fast as PostgreSQL takes them, without vectors."""
    collection = collections.add(session, COLLECTION, "any", DIGEST, {})
    revision = collections.next_revision(session, collection)
    session.execute(text("SET LOCAL statement_timeout = 0"))
    ids = session.scalars(
        text(
            "INSERT INTO identities (collection_id, name, details, revision, created_at, updated_at) "
            "SELECT :id, 'p' || n, '{}', :revision, now(), now() FROM generate_series(1, :count) n "
            "RETURNING id"
        ),
        {"id": collection.id, "revision": revision, "count": len(rows)},
    ).all()
    driver: Any = session.connection().connection.driver_connection
    columns = "id, identity_id, model_digest, embedding, quality, created_at"
    with driver.cursor().copy(f"COPY reference_templates ({columns}) FROM STDIN") as copy:
        for number, row in zip(ids, rows, strict=True):
            copy.write_row((str(uuid.uuid4()), number, DIGEST, to_bytes(row), "{}", "2026-01-01"))
    return collections.get(session, COLLECTION)


def write_ms(database: Database, collection: Collection, rows: Rows) -> float:
    """Return the median time of an enrolment's transaction."""

    def add(session: Session, row: Rows) -> None:
        revision = collections.next_revision(session, collection)
        reference = NewReference(str(uuid.uuid4()), DIGEST, row, None, {})
        identities.add(session, collection, revision, reference.id, {}, reference)

    return round(
        statistics.median(milliseconds(lambda row=row: database.write_now(add, row)) for row in rows),  # type: ignore[misc]
        2,
    )


def measured(
    database: Database, rows: Rows, probes: int, ef_search: list[int], memory_mb: int
) -> dict[str, Any]:
    """Return the figures."""
    evidence = load_bundle(resource_dir("models") / "faces", "cpu", None).evidence
    manifest = SimpleNamespace(metric="euclidean", dimensions=rows.shape[1])
    model: Any = SimpleNamespace(model_id="any", digest=DIGEST, manifest=manifest, evidence=evidence)
    migrate.upgrade(database)
    vectors.install(database)
    collection = database.write_now(fill, rows)
    result: dict[str, Any] = {"rows": len(rows), "dimensions": rows.shape[1], "searches": {}}
    started = time.perf_counter()
    last = started

    def advance(_: int) -> None:
        nonlocal last
        last = time.perf_counter()

    with closing(PgvectorSearch(database, 1, ef_search=200)) as search:
        search.build_now(COLLECTION, model, progress=advance, memory_mb=memory_mb)
    result["filled_s"] = round(last - started, 1)
    result["indexed_s"] = round(time.perf_counter() - last, 1)
    for ef in ef_search:
        with closing(PgvectorSearch(database, 1, ef_search=ef)) as search:
            recall = search.measure_recall_now(COLLECTION, model, probes=probes, top_k=5)
            asked = database.read_now(vectors.sample, collection, probes, 1)
            times = [
                milliseconds(lambda row=row: search.search_now(COLLECTION, row, model, 5))  # type: ignore[misc]
                for row in asked
            ]
        result["searches"][str(ef)] = {
            "recall": round(recall.recall, 4),
            "p50_ms": round(statistics.median(times), 2),
            "p95_ms": round(float(np.quantile(times, 0.95)), 2),
        }
    result["write_ms"] = write_ms(database, collection, rows[:50])
    vectors.keep(database)
    with closing(PgvectorSearch(database, 1, ef_search=200)) as search:
        search.search_now(COLLECTION, rows[0], model, 1)
    result["write_with_vectors_ms"] = write_ms(database, collection, rows[:50])
    with database.engine.connect() as connection:
        for name, table in (
            ("references", "reference_templates"),
            ("vectors", f"visavis_vectors.vectors_{collection.id}"),
        ):
            size = connection.scalar(
                text("SELECT pg_total_relation_size(to_regclass(:name))"), {"name": table}
            )
            result[f"{name}_bytes_each"] = round((size or 0) / len(rows))
    return result


@click.command(help=__doc__)
@click.option("--rows", type=click.IntRange(100), default=100_000)
@click.option("--dimensions", type=click.IntRange(2, vectors.MAX_DIMENSIONS), default=128)
@click.option("--probes", type=click.IntRange(1), default=200)
@click.option("--ef-search", default="40,200")
@click.option("--memory", type=click.IntRange(1), default=1000, help="MiB for making the index.")
@click.option("--embeddings", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--database", "url", help="URL of an empty PostgreSQL database with pgvector.")
def main(
    rows: int,
    dimensions: int,
    probes: int,
    ef_search: str,
    memory: int,
    embeddings: Path | None,
    url: str | None,
) -> None:
    real = None if embeddings is None else np.load(embeddings)["embeddings"]
    gallery = drawn(np.random.default_rng(rows), rows, dimensions, real)
    with ExitStack() as stack:
        if url is None:
            from tests.support.postgres import create_database, postgres_server  # noqa: PLC0415

            url = create_database(stack.enter_context(postgres_server()), "pgvector")
        database = stack.enter_context(closing(Database(url, timeout_s=600, pool_size=4)))
        wanted = [int(ef) for ef in ef_search.split(",")]
        click.echo(json.dumps(measured(database, gallery, probes, wanted, memory), indent=2))


if __name__ == "__main__":
    main()
