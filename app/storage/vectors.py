"""SQL of the vectors that PostgreSQL itself searches, with the extension pgvector. None of it is for SQLite.

All of it lies in the schema ``visavis_vectors``, which ``install`` makes; no migration knows it, because the
migrations are SQLite's too. A row of ``vectors`` is a copy of one reference, in the partition of its
collection, and each partition has an HNSW index a model. A row of ``indexes`` says of a collection and a
model how many identities have vectors and up to which revision they are complete.

Rows come in by ``follow``, within the transaction that raises the revision, or by ``fill`` where a process
that does not keep vectors has written: ``indexes.revision`` stays behind the collection's then, and no
search uses vectors that are behind. Rows go out by triggers, in whatever transaction deletes a reference, an
identity or a collection, and whichever program runs it. Both are safe beside other writers because whoever
changes a collection holds the lock of its row.

Every statement and every key has ``collection_id``, which makes it a distribution column for Citus too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    MetaData,
    String,
    Table,
    and_,
    cast,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema, DropSchema, DropTable
from sqlalchemy.types import UserDefinedType

from app.errors import CollectionNotFoundError, StartupError
from app.matching.distances import Metric
from app.storage.database import Database, Session, reason
from app.storage.records import Collection, from_bytes
from app.storage.schema import CollectionRow, IdentityRow, ReferenceRow

SCHEMA: Final = "visavis_vectors"
MAX_DIMENSIONS: Final = 4000
"""Most that an index of half-precision numbers takes; up to 2,000 are indexed in single precision."""
BATCH: Final = 1000
"""Vectors written by one transaction, which holds up other writers of the collection meanwhile."""
INDEX_AT_ONCE: Final = 20_000
"""Vectors that a request may index (some seconds, in which writes wait); more are left to the command."""

_LOCK: Final = 8210472
"""Number of the advisory lock that ``install`` holds; the migrations' is one less."""
_OPTION: Final = "visavis_vectors"
"""Execution option of a writer that keeps vectors."""

# By metric: pgvector's operator, and the end of its operator class.
_OPERATORS: Final[dict[Metric, tuple[str, str]]] = {
    "euclidean": ("<->", "l2_ops"),
    "cosine": ("<=>", "cosine_ops"),
    "l1": ("<+>", "l1_ops"),
}


class _Vector(UserDefinedType[Any]):
    """pgvector's type for float32[D], of any D."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:  # noqa: ANN401 - as the base class has it
        return "vector"


_METADATA: Final = MetaData(schema=SCHEMA)
_INDEXES: Final = Table(
    "indexes",
    _METADATA,
    Column("collection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("model_digest", String(64), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("identities", BigInteger, nullable=False),
    Column("recall", postgresql.JSONB),
)
_VECTORS: Final = Table(
    "vectors",
    _METADATA,
    Column("collection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("reference_id", String(36), primary_key=True),
    Column("identity_id", BigInteger, nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("embedding", _Vector, nullable=False),
    Index("vectors_identity", "collection_id", "identity_id"),
    postgresql_partition_by="LIST (collection_id)",
)


def _forgetting(table: str, gone: str, key: str) -> tuple[str, str]:
    """Return a function and a trigger that take away the vectors of what a statement deleted.

    Args:
        table: Where it was deleted.
        gone: Query of the collection, the identities concerned as ``people`` and the deleted keys as ``ids``.
        key: Column of ``vectors`` that these are in.
    """
    name = f"{SCHEMA}.forget_{table}"
    counted = f"""(
                SELECT count(DISTINCT v.identity_id) FROM {SCHEMA}.vectors v
                WHERE v.collection_id = item.collection_id AND v.model_digest = x.model_digest
                AND v.identity_id = ANY (item.people)
            ) WHERE x.collection_id = item.collection_id"""  # noqa: S608 - all names are ours
    function = f"""CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE item record;
    BEGIN
        FOR item IN {gone} LOOP
            UPDATE {SCHEMA}.indexes x SET identities = x.identities - {counted};
            DELETE FROM {SCHEMA}.vectors
            WHERE collection_id = item.collection_id AND {key} = ANY (item.ids);
            UPDATE {SCHEMA}.indexes x SET identities = x.identities + {counted};
        END LOOP;
        RETURN NULL;
    END $$"""  # noqa: S608
    trigger = f"""CREATE TRIGGER visavis_vectors AFTER DELETE ON {table}
        REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION {name}()"""
    return function, trigger


_TRIGGERS: Final = (
    *_forgetting(
        "identities",
        """SELECT collection_id, array_agg(id) AS people, array_agg(id) AS ids
           FROM gone GROUP BY collection_id""",
        "identity_id",
    ),
    # References that go together with their identity find no collection here: the trigger above has theirs.
    *_forgetting(
        "reference_templates",
        """SELECT i.collection_id, array_agg(DISTINCT i.id) AS people, array_agg(g.id) AS ids
           FROM gone g JOIN identities i ON i.id = g.identity_id GROUP BY i.collection_id""",
        "reference_id",
    ),
    f"""CREATE FUNCTION {SCHEMA}.forget_collection() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM {SCHEMA}.indexes WHERE collection_id = OLD.id;
        RETURN NULL;
    END $$""",  # noqa: S608
    f"""CREATE TRIGGER visavis_vectors AFTER DELETE ON collections
        FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.forget_collection()""",
)


@dataclass(frozen=True)
class Recall:
    """How many of the nearest the index found, as measured.

    Attributes:
        recall: Share of the exact nearest that were returned, 0 to 1.
        top_k: How many were asked for.
        probes: Searches compared.
        ef_search: Of the index, while it was measured.
        revision: The collection's, whose vectors were searched.
        identities: How many there were.
        measured_at: When.
    """

    recall: float
    top_k: int
    probes: int
    ef_search: int
    revision: int
    identities: int
    measured_at: datetime


@dataclass(frozen=True)
class VectorIndex:
    """The vectors of a collection, by one model.

    Attributes:
        revision: They are complete up to this revision of the collection; -1 while they are first filled in.
        identities: How many have any.
        recall: As measured last; None before.
    """

    revision: int
    identities: int
    recall: Recall | None


@dataclass(frozen=True)
class Filling:
    """Where filling in vectors has got to.

    Attributes:
        start: Identities below this id have been looked at.
        began: The collection's revision when the pass began.
        added: Vectors that the last batch added.
        done: They are complete.
    """

    start: int = 0
    began: int = -1
    added: int = 0
    done: bool = False


@dataclass(frozen=True)
class Near:
    """A reference that the index returned, with what an answer needs of its identity."""

    identity_id: int
    name: str
    metadata: dict[str, Any]
    embedding: NDArray[np.float32]


def install(database: Database) -> None:
    """Make the schema with its tables and triggers; one that is there stays as it is.

    Raises:
        StartupError: The store is no PostgreSQL, or it offers no pgvector, or not to this user.
    """
    if database.is_sqlite:
        raise StartupError(
            "vectors are kept in PostgreSQL only; set VISAVIS_DATABASE_URL to postgresql+psycopg://..., or "
            "VISAVIS_SEARCH to exact"
        )
    try:
        database.write_now(_install)
    except DBAPIError as error:
        raise StartupError(
            f"pgvector cannot be set up in the database {database.name}: {reason(error)}; run "
            "CREATE EXTENSION vector there as a superuser, and let the service's user create a schema"
        ) from error


def require(database: Database) -> None:
    """Refuse to go on without what ``install`` makes.

    Raises:
        StartupError: Something is missing; the message says what to do.
    """
    if database.is_sqlite or not database.read_now(_installed):
        raise StartupError(
            f"VISAVIS_SEARCH=pgvector: the database {database.name} has no tables of vectors; run "
            "'visavis db upgrade' with VISAVIS_SEARCH=pgvector set"
        )
    database.read_now(_require_version)


def uninstall(database: Database) -> None:
    """Drop all vectors with their tables and triggers. Services that use them must be stopped before."""
    database.write_now(lambda session: session.execute(DropSchema(SCHEMA, cascade=True, if_exists=True)))


def keep(database: Database) -> None:
    """Have every write of this process add its vectors in its own transaction."""
    database.writer = database.writer.execution_options(**{_OPTION: True})


def follow(session: Session, collection: Collection, revision: int) -> None:
    """Add the vectors of what a write has just changed, where this process keeps them.

    Where they were behind before, or more is missing than one batch, they stay behind until ``fill``. To be
    called after every change, also where several have one revision.

    Args:
        session: Of the write; it holds the lock of the collection's row.
        collection: What was changed.
        revision: What the write has raised it to.
    """
    if not session.connection().get_execution_options().get(_OPTION):
        return
    session.flush()  # rows that are only in the session yet
    complete = select(_INDEXES.c.model_digest).where(
        _INDEXES.c.collection_id == collection.id, _INDEXES.c.revision >= revision - 1
    )
    for digest in session.scalars(complete).all():
        missing = _missing(session, collection.id, digest, revision - 1, start=0)
        reached = revision if len(missing) < BATCH else revision - 1
        _add(session, collection.id, digest, missing, reached)


def state(session: Session, collection: Collection, digest: str) -> VectorIndex | None:
    """Return what there is of a collection's vectors by a model; None before the first."""
    row = session.execute(
        select(_INDEXES.c.revision, _INDEXES.c.identities, _INDEXES.c.recall).where(
            _of(collection.id, digest)
        )
    ).first()
    if row is None:
        return None
    recall = row.recall and Recall(
        **{**row.recall, "measured_at": datetime.fromisoformat(row.recall["measured_at"])}
    )
    return VectorIndex(row.revision, row.identities, recall)


def prepare(session: Session, collection: Collection, digest: str) -> int:
    """Make the partition of a collection if there is none, and return how many references are to be in it.

    Raises:
        CollectionNotFoundError: It was deleted meanwhile.
    """
    _lock(session, collection)
    partition = _partition(collection.id)
    if session.scalar(select(func.to_regclass(f"{SCHEMA}.{partition}"))) is None:
        # Attached and not made as a partition, which would lock out every search of every collection.
        session.execute(text(f"CREATE TABLE {SCHEMA}.{partition} (LIKE {SCHEMA}.vectors INCLUDING ALL)"))
        session.execute(
            text(
                f"ALTER TABLE {SCHEMA}.vectors ATTACH PARTITION {SCHEMA}.{partition} "
                f"FOR VALUES IN ({collection.id})"
            )
        )
    session.execute(
        postgresql.insert(_INDEXES)
        .values(collection_id=collection.id, model_digest=digest, revision=-1, identities=0)
        .on_conflict_do_nothing()
    )
    return _count_references(session, collection.id, digest)


def count_missing(session: Session, collection: Collection, digest: str) -> int:
    """Return how many references by a model have no vector yet."""
    there = session.scalar(
        select(func.count()).where(
            _VECTORS.c.collection_id == collection.id, _VECTORS.c.model_digest == digest
        )
    )
    return _count_references(session, collection.id, digest) - (there or 0)


def fill(session: Session, collection: Collection, digest: str, filling: Filling) -> Filling:
    """Add one batch of the vectors that are missing.

    A pass goes through the identities in order of id. What changes behind it has a later revision than the
    pass began at, so at its end the vectors are complete up to that one, and the next pass has little to do.

    Args:
        session: Of a write.
        collection: Whose vectors are prepared.
        digest: Of the model.
        filling: ``Filling()`` begins; then what the batch before returned.

    Raises:
        CollectionNotFoundError: It was deleted meanwhile.
    """
    revision = _lock(session, collection)
    found = state(session, collection, digest)
    if found is None or found.revision >= revision:
        return Filling(done=True)
    began = revision if filling.start == 0 else filling.began
    missing = _missing(session, collection.id, digest, found.revision, filling.start)
    if len(missing) == BATCH:
        _add(session, collection.id, digest, missing, found.revision)
        return Filling(missing[-1][0], began, BATCH)
    _add(session, collection.id, digest, missing, began)
    return Filling(added=len(missing), done=began == revision)


def nearest(
    session: Session,
    collection: Collection,
    metric: Metric,
    probe: NDArray[np.float32],
    limit: int,
    *,
    ef_search: int | None,
    among: Sequence[int] | None = None,
) -> list[Near]:
    """Return references of a collection by its own model that are nearest to a probe, in any order.

    Args:
        session: Of a read.
        collection: Whose vectors are complete.
        metric: Of the model.
        probe: float32[D].
        limit: How many at most.
        ef_search: Candidates that the index keeps in view; None compares every vector instead.
        among: Only identities of these ids; all where it is None.
    """
    # Strict: the index goes on where deleted rows left too few, and keeps the order.
    settings = (
        {"enable_indexscan": "off"}
        if ef_search is None
        else {"hnsw.ef_search": str(ef_search), "hnsw.iterative_scan": "strict_order"}
    )
    if ef_search is None and among is None:
        settings["statement_timeout"] = "0"  # a scan of everything, to measure by
    session.execute(select(*(func.set_config(name, value, True) for name, value in settings.items())))
    kind = _kind(probe.size)
    # Collection and model stand in the text, or PostgreSQL would not see that the partition's index fits.
    ranked = f"""
        SELECT identity_id, reference_id FROM {SCHEMA}.vectors
        WHERE collection_id = {collection.id} AND model_digest = '{_hex(collection.model_digest)}'
        {"" if among is None else "AND identity_id = ANY (:among)"}
        ORDER BY (embedding::{kind}) {_OPERATORS[metric][0]} CAST(:probe AS {kind}) LIMIT :limit"""  # noqa: S608
    near = text(ranked).columns(_VECTORS.c.identity_id, _VECTORS.c.reference_id).subquery("near")
    rows = session.execute(
        select(IdentityRow.id, IdentityRow.name, IdentityRow.details, ReferenceRow.embedding)
        .join(near, near.c.identity_id == IdentityRow.id)
        .join(ReferenceRow, ReferenceRow.id == near.c.reference_id),
        {"probe": _as_text(probe), "limit": limit} | ({} if among is None else {"among": list(among)}),
    )
    return [Near(key, name, dict(details), from_bytes(embedding)) for key, name, details, embedding in rows]


def count_among(session: Session, collection: Collection, ids: Sequence[int]) -> int:
    """Return how many of some identities have vectors by the collection's own model."""
    return (
        session.scalar(
            select(func.count(_VECTORS.c.identity_id.distinct())).where(
                _VECTORS.c.collection_id == collection.id,
                _VECTORS.c.model_digest == collection.model_digest,
                _VECTORS.c.identity_id == func.any(cast(list(ids), postgresql.ARRAY(BigInteger))),
            )
        )
        or 0
    )


def sample(session: Session, collection: Collection, count: int, seed: int) -> NDArray[np.float32]:
    """Return references by the collection's own model, float32[N, D], drawn by a seed; one may come twice."""
    span = select(func.min(IdentityRow.id), func.max(IdentityRow.id)).where(
        IdentityRow.collection_id == collection.id
    )
    first, last = (number or 0 for number in session.execute(span).one())
    query = (
        select(ReferenceRow.embedding)
        .join(IdentityRow, IdentityRow.id == ReferenceRow.identity_id)
        .where(
            IdentityRow.collection_id == collection.id, ReferenceRow.model_digest == collection.model_digest
        )
        .order_by(IdentityRow.id)
        .limit(1)
    )
    places = np.random.default_rng(seed).integers(first, last + 1, count).tolist()
    # From a place between two ids to the next one that is there: no scan of a large table.
    rows = [session.scalar(query.where(IdentityRow.id >= place)) for place in places]
    return np.array([from_bytes(row) for row in rows if row is not None], np.float32)


def store_recall(session: Session, collection: Collection, recall: Recall) -> None:
    """Keep a measured recall with the vectors of the collection's own model."""
    kept = {**asdict(recall), "measured_at": recall.measured_at.isoformat()}
    _set(session, collection.id, collection.model_digest, recall=kept)


def is_indexed(session: Session, collection: Collection, digest: str) -> bool:
    """Return whether the vectors of a model have a usable HNSW index."""
    return bool(
        session.scalar(
            text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"),
            {"name": f"{SCHEMA}.{_index(collection.id, digest)}"},
        )
    )


def make_index(
    session: Session, collection: Collection, digest: str, metric: Metric, dimensions: int
) -> None:
    """Index the vectors of a model; writes of the collection wait meanwhile, searches do not."""
    _lock(session, collection)
    if not is_indexed(session, collection, digest):
        session.execute(text("SET LOCAL statement_timeout = 0"))
        session.execute(text(f"DROP INDEX IF EXISTS {SCHEMA}.{_index(collection.id, digest)}"))
        session.execute(text(_create_index(collection.id, digest, metric, dimensions, "")))


def make_index_beside_writes(
    database: Database, collection: Collection, digest: str, metric: Metric, dimensions: int, memory_mb: int
) -> None:
    """Index the vectors of a model while others read and write.

    Waits for every transaction of the database that is open, a backup's too.

    Args:
        database: The store.
        collection: Whose vectors are filled in.
        digest: Of the model.
        metric: Of the model.
        dimensions: Of its embeddings.
        memory_mb: MiB for the graph; past them PostgreSQL builds it several times more slowly.
    """
    with database.writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            for statement in (
                "SET statement_timeout = 0",
                "SET lock_timeout = 0",
                f"SET maintenance_work_mem = '{memory_mb}MB'",
                # What an attempt that was interrupted has left is of no use.
                f"DROP INDEX CONCURRENTLY IF EXISTS {SCHEMA}.{_index(collection.id, digest)}",
                _create_index(collection.id, digest, metric, dimensions, "CONCURRENTLY"),
            ):
                connection.exec_driver_sql(statement)
        finally:
            connection.invalidate()  # its settings must not go back into the pool


def drop_partitions_without_collection(session: Session) -> int:
    """Drop what is left of collections that were deleted, and return how many there were.

    Searches of every collection wait for it, a moment.
    """
    names = session.scalars(
        text(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = :of"
        ),
        {"of": session.scalar(select(func.to_regclass(f"{SCHEMA}.vectors").cast(postgresql.OID)))},
    ).all()
    kept = {_partition(number) for number in session.scalars(select(CollectionRow.id))}
    gone = [name for name in names if name not in kept]
    for name in gone:
        session.execute(DropTable(Table(name, MetaData(schema=SCHEMA))))
    return len(gone)


def _install(session: Session) -> None:
    session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    if not _installed(session):
        offered = session.scalar(text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"))
        if offered is None:
            raise StartupError(
                "this PostgreSQL server does not offer the extension pgvector, which VISAVIS_SEARCH=pgvector "
                "needs; install pgvector 0.8 or newer on it (the image pgvector/pgvector has it), or set "
                "VISAVIS_SEARCH to exact"
            )
        if session.scalar(text("SELECT 1 FROM pg_extension WHERE extname = 'vector'")) is None:
            session.execute(text("CREATE EXTENSION vector"))
        session.execute(CreateSchema(SCHEMA))
        _METADATA.create_all(session.connection())
        for statement in _TRIGGERS:
            session.connection().exec_driver_sql(statement)
    _require_version(session)


def _installed(session: Session) -> bool:
    return session.scalar(select(func.to_regclass(f"{SCHEMA}.indexes"))) is not None


def _require_version(session: Session) -> None:
    version = str(session.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")))
    numbers: tuple[int, ...] = ()
    with suppress(ValueError):
        numbers = tuple(map(int, version.split(".")))
    if numbers < (0, 8):
        raise StartupError(
            f"VISAVIS_SEARCH=pgvector needs pgvector 0.8 or newer, the database has {version}; install it "
            "and run ALTER EXTENSION vector UPDATE"
        )


def _lock(session: Session, collection: Collection) -> int:
    """Keep every other writer of a collection out until the transaction ends, and return its revision."""
    revision = session.scalar(
        select(CollectionRow.revision)
        .where(CollectionRow.id == collection.id)
        .with_for_update(key_share=True)
    )
    if revision is None:
        raise CollectionNotFoundError(collection.name)
    return revision


def _count_references(session: Session, collection_id: int, digest: str) -> int:
    query = (
        select(func.count())
        .select_from(ReferenceRow)
        .join(IdentityRow, IdentityRow.id == ReferenceRow.identity_id)
        .where(IdentityRow.collection_id == collection_id, ReferenceRow.model_digest == digest)
    )
    return session.scalar(query) or 0


def _missing(
    session: Session, collection_id: int, digest: str, revision: int, start: int
) -> Sequence[tuple[int, str, bytes]]:
    """Return a batch of references that have no vector, of identities that changed after a revision."""
    there = and_(_VECTORS.c.collection_id == collection_id, _VECTORS.c.reference_id == ReferenceRow.id)
    rows = session.execute(
        select(IdentityRow.id, ReferenceRow.id, ReferenceRow.embedding)
        .join(ReferenceRow, ReferenceRow.identity_id == IdentityRow.id)
        .where(
            IdentityRow.collection_id == collection_id,
            IdentityRow.revision > revision,
            IdentityRow.id >= start,
            ReferenceRow.model_digest == digest,
            ~select(_VECTORS.c.reference_id).where(there).exists(),
        )
        .order_by(IdentityRow.id)
        .limit(BATCH)
    )
    return [(identity, reference, embedding) for identity, reference, embedding in rows]


def _add(
    session: Session,
    collection_id: int,
    digest: str,
    references: Sequence[tuple[int, str, bytes]],
    revision: int,
) -> None:
    """Add vectors, which are then complete up to a revision."""
    if not references:
        _set(session, collection_id, digest, revision=revision)
        return
    people = {identity for identity, _, _ in references}
    there = session.scalar(
        select(func.count(_VECTORS.c.identity_id.distinct())).where(
            _VECTORS.c.collection_id == collection_id,
            _VECTORS.c.model_digest == digest,
            _VECTORS.c.identity_id == func.any(cast(list(people), postgresql.ARRAY(BigInteger))),
        )
    )
    # One statement for all, and not one a row.
    texts = [_as_text(from_bytes(embedding)) for _, _, embedding in references]
    rows = (
        func.unnest(
            cast([identity for identity, _, _ in references], postgresql.ARRAY(BigInteger)),
            cast([reference for _, reference, _ in references], postgresql.ARRAY(String)),
            cast(texts, postgresql.ARRAY(String)),
        )
        .table_valued("identity_id", "reference_id", "embedding")
        .render_derived()
    )
    values = {
        "collection_id": literal(collection_id, BigInteger),
        "reference_id": rows.c.reference_id,
        "identity_id": rows.c.identity_id,
        "model_digest": literal(digest),
        "embedding": cast(rows.c.embedding, _Vector),
    }
    session.execute(insert(_VECTORS).from_select(list(values), select(*values.values())))
    counted = _INDEXES.c.identities + len(people) - (there or 0)
    _set(session, collection_id, digest, identities=counted, revision=revision)


def _of(collection_id: int, digest: str) -> ColumnElement[bool]:
    return and_(_INDEXES.c.collection_id == collection_id, _INDEXES.c.model_digest == digest)


def _set(session: Session, collection_id: int, digest: str, **values: object) -> None:
    session.execute(update(_INDEXES).where(_of(collection_id, digest)).values(values))


def _create_index(collection_id: int, digest: str, metric: Metric, dimensions: int, how: str) -> str:
    kind = _kind(dimensions)
    operators = f"{kind.partition('(')[0]}_{_OPERATORS[metric][1]}"
    return (
        f"CREATE INDEX {how} {_index(collection_id, digest)} ON {SCHEMA}.{_partition(collection_id)} "
        f"USING hnsw ((embedding::{kind}) {operators}) WHERE model_digest = '{_hex(digest)}'"
    )


def _kind(dimensions: int) -> str:
    """Return the type that vectors are indexed as; stored they are always in single precision."""
    return f"vector({dimensions})" if dimensions <= 2000 else f"halfvec({dimensions})"


def _partition(collection_id: int) -> str:
    return f"vectors_{collection_id}"


def _index(collection_id: int, digest: str) -> str:
    return f"hnsw_{collection_id}_{_hex(digest)[:16]}"


def _hex(digest: str) -> str:
    """Return a model's digest, which goes into SQL as text."""
    int(digest, 16)
    return digest


def _as_text(embedding: NDArray[np.float32]) -> str:
    """Return pgvector's text of an embedding; every number is read back to the same float32."""
    return f"[{','.join(map(repr, embedding.tolist()))}]"
