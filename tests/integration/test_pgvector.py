"""Searches by pgvector in a real PostgreSQL: as good as exact ones, never stale, refused where it lacks."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from sqlalchemy import text

from app.cli import visavis
from app.context import open_context
from app.encoding.model import Model, open_model
from app.errors import BusyError, ModelMismatchError, StartupError
from app.matching.distances import Metric, distance, distances
from app.services import pgvector_search
from app.services.galleries import Galleries, SearchResult
from app.services.pgvector_search import PgvectorSearch, moved
from app.storage import collections, identities, vectors
from app.storage.database import Database, Session
from app.storage.records import Collection, NewReference, to_bytes
from app.storage.schema import IdentityRow, ReferenceRow
from tests.support.images import angle_png
from tests.support.postgres import create_database
from tests.support.service import serving, settings_for
from tests.support.vectors import people, write_vector_bundle

_numbers = itertools.count()
EF_SEARCH = 200


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of 64 dimensions; tests give it embeddings and no image."""
    return open_model(write_vector_bundle(tmp_path_factory.mktemp("models")), provider="cpu")


@pytest.fixture
def new_url(postgres: Any) -> str:
    """URL of a PostgreSQL of the test's own, with the current schema and no vectors."""
    return create_database(postgres, f"vectors_{next(_numbers)}", "current")


@pytest.fixture(scope="module")
def vectors_url(postgres: Any) -> str:
    """URL of a PostgreSQL with tables of vectors."""
    url = create_database(postgres, "vectors", "current")
    with closing(Database(url, timeout_s=5, pool_size=1)) as database:
        vectors.install(database)
        with database.engine.begin() as connection:
            # Of so few rows a scan is cheaper, and exact: nothing of the index would be tested.
            connection.execute(text("ALTER DATABASE vectors SET enable_seqscan = off"))
            connection.execute(text("ALTER DATABASE vectors SET enable_sort = off"))
    return url


@pytest.fixture
def url(vectors_url: str) -> str:
    """URL of a PostgreSQL with tables of vectors and no rows."""
    with closing(Database(vectors_url, timeout_s=5, pool_size=1)) as database:
        with database.engine.begin() as connection:
            connection.execute(text("TRUNCATE collections CASCADE"))
            connection.execute(text("TRUNCATE visavis_vectors.vectors, visavis_vectors.indexes"))
        database.write_now(vectors.drop_partitions_without_collection)
    return vectors_url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A store whose writers keep vectors."""
    with closing(Database(url, timeout_s=5, pool_size=10)) as opened:
        vectors.keep(opened)
        yield opened


@pytest.fixture
def bystander(url: str) -> Iterator[Database]:
    """The same store, opened by a process that searches exactly and keeps no vectors."""
    with closing(Database(url, timeout_s=5, pool_size=2)) as opened:
        yield opened


@pytest.fixture
def search(database: Database) -> Iterator[PgvectorSearch]:
    with closing(PgvectorSearch(database, 1, ef_search=EF_SEARCH)) as opened:
        yield opened


def collection_of(database: Database, model: Model, name: str = "staff") -> Collection:
    return database.write_now(collections.add, name, model.model_id, model.digest, {})


def reference(model: Model, embedding: NDArray[np.float32]) -> NewReference:
    return NewReference(str(uuid.uuid4()), model.digest, embedding, None, {})


def enrol(
    database: Database,
    collection: Collection,
    model: Model,
    name: str,
    *embeddings: NDArray[np.float32],
    metadata: dict[str, Any] | None = None,
) -> None:
    def write(session: Session) -> None:
        revision = collections.next_revision(session, collection)
        references = [reference(model, embedding) for embedding in embeddings]
        identities.add(session, collection, revision, name, metadata or {"of": name}, *references)

    database.write_now(write)


def replace(
    database: Database, collection: Collection, model: Model, name: str, embedding: NDArray[np.float32]
) -> None:
    def write(session: Session) -> None:
        revision = collections.next_revision(session, collection)
        identities.replace(session, collection, revision, name, None, reference(model, embedding))

    database.write_now(write)


def remove(database: Database, collection: Collection, name: str) -> None:
    def write(session: Session) -> None:
        identities.remove(session, collection, collections.next_revision(session, collection), name)

    database.write_now(write)


def enrol_many(
    database: Database, collection: Collection, model: Model, embeddings: NDArray[np.float32]
) -> None:
    """Enrol ``p0``, ``p1``, ... as an import does, which keeps no vectors."""

    def write(session: Session) -> None:
        revision = collections.next_revision(session, collection)
        people = [
            IdentityRow(collection_id=collection.id, name=f"p{i}", details={}, revision=revision)
            for i in range(len(embeddings))
        ]
        session.add_all(people)
        session.flush()
        session.add_all(
            ReferenceRow(
                id=str(uuid.uuid4()),
                identity_id=person.id,
                model_digest=model.digest,
                embedding=to_bytes(embedding),
                quality={},
            )
            for person, embedding in zip(people, embeddings, strict=True)
        )

    database.write_now(write)


def names(result: SearchResult) -> list[str]:
    return [candidate.identity for candidate in result.candidates]


def rows(database: Database, table: str) -> int:
    with database.engine.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM visavis_vectors.{table}")) or 0)


def index_scans(database: Database) -> int:
    """Return how many searches took the HNSW index."""
    database.engine.dispose()  # a connection that ends reports what it has counted
    with database.engine.connect() as connection:
        for _ in range(100):
            connection.execute(text("SELECT pg_stat_clear_snapshot()"))
            query = "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname LIKE 'hnsw%'"
            if scans := connection.scalar(text(query)):
                return int(scans)
            time.sleep(0.05)
    return 0


def indexed(database: Database, collection: Collection, model: Model) -> bool:
    return database.read_now(vectors.is_indexed, collection, model.digest)


def test_answers_are_those_of_the_exact_search_to_the_last_bit(
    database: Database, search: PgvectorSearch, model: Model
) -> None:
    gallery, _ = people(2000, 1, seed=1)
    probes, _ = people(2000, 1, seed=1, spread=0.9)
    collection = collection_of(database, model)
    enrol_many(database, collection, model, gallery)
    with closing(Galleries(database, 1)) as galleries:
        pairs = [
            (galleries.search_now("staff", probe, model, 5), search.search_now("staff", probe, model, 5))
            for probe in probes[:50]
        ]
    assert indexed(database, collection, model)
    assert index_scans(database) == 50
    first = sum(names(exact)[0] == names(quick)[0] for exact, quick in pairs) / 50
    five = sum(len(set(names(exact)) & set(names(quick))) for exact, quick in pairs) / 250
    assert first >= 0.95
    assert five >= 0.95
    for exact, quick in pairs:
        assert (quick.gallery_size, quick.revision) == (exact.gallery_size, exact.revision) == (2000, 1)
        known = {candidate.identity: candidate.distance for candidate in exact.candidates}
        for candidate in quick.candidates:
            row = gallery[int(candidate.identity[1:])]
            assert candidate.distance == known.get(candidate.identity, candidate.distance)
            assert candidate.distance in distances(probes[:50], np.tile(row, (50, 1)), "euclidean")
        assert [c.distance for c in quick.candidates] == sorted(c.distance for c in quick.candidates)


def test_enrolled_is_found_at_once_and_deleted_is_gone_at_once(
    database: Database, search: PgvectorSearch, model: Model
) -> None:
    gallery, _ = people(40, 1)
    collection = collection_of(database, model)
    for i, row in enumerate(gallery):
        enrol(database, collection, model, f"p{i}", row)
        result = search.search_now("staff", row, model, 1)
        assert names(result) == [f"p{i}"]
        assert result.candidates[0].distance == 0.0
        assert result.candidates[0].metadata == {"of": f"p{i}"}
        assert (result.gallery_size, result.revision) == (i + 1, i + 1)
    for i, row in enumerate(gallery):
        remove(database, collection, f"p{i}")
        result = search.search_now("staff", row, model, 100)
        assert f"p{i}" not in names(result)
        assert result.gallery_size == len(result.candidates) == 39 - i
    assert rows(database, "vectors") == 0


def test_writes_keep_the_vectors_complete_within_their_own_transaction(
    database: Database, search: PgvectorSearch, model: Model
) -> None:
    gallery, _ = people(3, 1)
    collection = collection_of(database, model)
    search.search_now("staff", gallery[0], model, 1)
    enrol(database, collection, model, "ada", gallery[0])
    replace(database, collection, model, "ada", gallery[1])
    enrol(database, collection, model, "grace", gallery[2])
    remove(database, collection, "grace")
    state = database.read_now(vectors.state, collection, model.digest)
    assert state is not None
    assert (state.revision, state.identities) == (4, 1)
    assert rows(database, "vectors") == 1


def test_several_enrolled_at_one_revision_are_all_found(
    database: Database, search: PgvectorSearch, model: Model
) -> None:
    gallery, _ = people(5, 1)
    collection = collection_of(database, model)
    search.search_now("staff", gallery[0], model, 1)

    def write(session: Session) -> None:
        revision = collections.next_revision(session, collection)
        for i, row in enumerate(gallery):
            identities.add(session, collection, revision, f"p{i}", {}, reference(model, row))

    database.write_now(write)
    for i, row in enumerate(gallery):
        result = search.search_now("staff", row, model, 1)
        assert (names(result), result.gallery_size) == ([f"p{i}"], 5)


def test_write_that_is_given_up_leaves_no_vector(
    database: Database, search: PgvectorSearch, model: Model
) -> None:
    gallery, _ = people(1, 1)
    collection = collection_of(database, model)
    search.search_now("staff", gallery[0], model, 1)

    def write(session: Session) -> None:
        revision = collections.next_revision(session, collection)
        identities.add(session, collection, revision, "ada", {}, reference(model, gallery[0]))
        raise ValueError("given up")

    with pytest.raises(ValueError, match="given up"):
        database.write_now(write)
    assert rows(database, "vectors") == 0
    assert search.search_now("staff", gallery[0], model, 1).gallery_size == 0


def test_replaced_is_measured_anew_and_its_old_template_is_gone(
    database: Database, search: PgvectorSearch, model: Model
) -> None:
    gallery, _ = people(2, 1)
    collection = collection_of(database, model)
    enrol(database, collection, model, "ada", gallery[0])
    search.search_now("staff", gallery[0], model, 1)
    replace(database, collection, model, "ada", gallery[1])
    (candidate,) = search.search_now("staff", gallery[0], model, 5).candidates
    assert candidate.distance == distance(gallery[0], gallery[1], "euclidean")
    assert rows(database, "vectors") == 1


def test_changes_by_a_process_that_keeps_no_vectors_are_seen(
    database: Database, bystander: Database, search: PgvectorSearch, model: Model
) -> None:
    gallery, _ = people(4, 1)
    collection = collection_of(database, model)
    for i in range(3):
        enrol(database, collection, model, f"p{i}", gallery[i])
    search.search_now("staff", gallery[0], model, 1)
    enrol(bystander, collection, model, "p3", gallery[3])
    replace(bystander, collection, model, "p1", -gallery[1])
    remove(bystander, collection, "p0")
    assert rows(database, "vectors") == 1  # what was deleted is gone before any search
    result = search.search_now("staff", gallery[3], model, 5)
    assert (names(result)[0], result.gallery_size, result.revision) == ("p3", 3, 6)
    assert search.search_now("staff", gallery[1], model, 5).candidates[-1].identity == "p1"
    enrol(database, collection, model, "p4", gallery[0])
    state = database.read_now(vectors.state, collection, model.digest)
    assert state is not None
    assert (state.revision, state.identities) == (7, 4)


def test_nearest_of_several_references_counts_and_none_hides_another_identity(
    database: Database, search: PgvectorSearch, model: Model
) -> None:
    probe = np.eye(64, dtype=np.float32)[0]
    near, _ = people(64, 1, seed=5)
    crowd = probe + 0.1 * near
    crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
    collection = collection_of(database, model)
    enrol(database, collection, model, "ada", *crowd)
    enrol(database, collection, model, "grace", -probe)
    result = search.search_now("staff", probe, model, 2)
    assert names(result) == ["ada", "grace"]
    assert result.gallery_size == 2
    assert result.candidates[0].distance == distances(probe, crowd, "euclidean").min()
    remove(database, collection, "ada")
    assert names(search.search_now("staff", probe, model, 2)) == ["grace"]


def test_search_among_those_of_some_metadata_is_exact_and_counts_only_them(
    database: Database, search: PgvectorSearch, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, _ = people(30, 1)
    collection = collection_of(database, model)
    for i, row in enumerate(gallery):
        enrol(database, collection, model, f"p{i}", row, metadata={"site": "north" if i % 3 else "south"})
    where = {"site": "south"}
    result = search.search_now("staff", gallery[1], model, 100, where=where)
    assert sorted(names(result)) == sorted(f"p{i}" for i in range(0, 30, 3))
    assert (result.gallery_size, result.exact) == (10, True)
    monkeypatch.setattr(pgvector_search, "SCANNED", 5)
    by_index = search.search_now("staff", gallery[1], model, 100, where=where)
    assert by_index.candidates == result.candidates
    assert (by_index.gallery_size, by_index.exact) == (10, False)
    assert search.search_now("staff", gallery[1], model, 5, where={"site": "east"}).candidates == []


def test_collection_that_is_deleted_takes_its_vectors_with_it(
    database: Database, bystander: Database, search: PgvectorSearch, model: Model
) -> None:
    gallery, _ = people(300, 1)
    enrol_many(database, collection_of(database, model), model, gallery)
    assert search.search_now("staff", gallery[7], model, 1).gallery_size == 300
    assert (rows(database, "vectors"), rows(database, "indexes")) == (300, 1)
    bystander.write_now(collections.remove, "staff")
    assert (rows(database, "vectors"), rows(database, "indexes")) == (0, 0)
    again = collection_of(database, model)
    enrol(database, again, model, "ada", gallery[0])
    assert names(search.search_now("staff", gallery[7], model, 5)) == ["ada"]
    assert database.write_now(vectors.drop_partitions_without_collection) == 1
    assert names(search.search_now("staff", gallery[7], model, 5)) == ["ada"]


def test_many_deleted_neighbours_do_not_starve_a_search(
    database: Database, search: PgvectorSearch, model: Model
) -> None:
    probe = np.eye(64, dtype=np.float32)[0]
    offsets, _ = people(900, 1, seed=6)
    gallery = probe + np.linspace(0.1, 2, 900)[:, None] * offsets
    gallery = (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).astype(np.float32)
    collection = collection_of(database, model)
    enrol_many(database, collection, model, gallery)
    search.search_now("staff", probe, model, 1)
    with database.engine.begin() as connection:  # the nearest, more than the index keeps in view
        connection.execute(text("DELETE FROM identities WHERE substr(name, 2)::int < 700"))
    assert len(names(search.search_now("staff", probe, model, 100))) == 100


def test_two_that_build_at_once_add_each_vector_once(
    url: str, database: Database, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "BATCH", 50)
    gallery, _ = people(600, 1)
    enrol_many(database, collection_of(database, model), model, gallery)
    with closing(Database(url, timeout_s=30, pool_size=4)) as other:

        def build(store: Database) -> int:
            with closing(PgvectorSearch(store, 1, ef_search=EF_SEARCH)) as search:
                return search.build_now("staff", model)

        with ThreadPoolExecutor(2) as pool:
            added = list(pool.map(build, [database, other]))
    assert sum(added) == 600
    assert rows(database, "vectors") == 600


def test_build_that_is_interrupted_goes_on(
    database: Database, search: PgvectorSearch, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "BATCH", 100)
    gallery, _ = people(250, 1)
    collection = collection_of(database, model)
    enrol_many(database, collection, model, gallery)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search.build_now("staff", model, progress=stop)
    assert rows(database, "vectors") == 100
    assert search.missing_now("staff", model) == 150
    enrol(database, collection, model, "late", -gallery[0])
    assert search.build_now("staff", model) == 151
    result = search.search_now("staff", -gallery[0], model, 1)
    assert (names(result), result.gallery_size) == (["late"], 251)


def test_searches_are_told_to_come_again_while_another_fills_in_many_vectors(
    database: Database, search: PgvectorSearch, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "BATCH", 10)
    monkeypatch.setattr(pgvector_search, "BUILD_WAIT_S", 0.05)
    gallery, _ = people(60, 1)
    enrol_many(database, collection_of(database, model), model, gallery)
    under_way, go_on = threading.Event(), threading.Event()

    def pause(_: int) -> None:
        under_way.set()
        assert go_on.wait(20)

    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(search.build_now, "staff", model, progress=pause)
        assert under_way.wait(20)
        with pytest.raises(BusyError, match="being filled in"):
            search.search_now("staff", gallery[0], model, 1)
        go_on.set()
        building.result(20)
    assert names(search.search_now("staff", gallery[0], model, 1)) == ["p0"]


def test_index_of_many_is_made_beside_writes(
    database: Database, search: PgvectorSearch, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "INDEX_AT_ONCE", 100)
    gallery, _ = people(600, 1)
    collection = collection_of(database, model)
    enrol_many(database, collection, model, gallery)
    assert names(search.search_now("staff", gallery[9], model, 1)) == ["p9"]
    assert not indexed(database, collection, model)
    assert search.build_now("staff", model, memory_mb=64) == 0
    assert indexed(database, collection, model)
    assert names(search.search_now("staff", gallery[9], model, 1)) == ["p9"]


def test_vectors_of_the_model_to_come_are_there_when_the_collection_changes_over(
    database: Database, search: PgvectorSearch, model: Model, angle_models: Path
) -> None:
    gallery, _ = people(3, 1)
    to_come = open_model(angle_models / "angles", provider="cpu")
    collection = collection_of(database, model)
    other = {"m": to_come.model_id, "d": to_come.digest, "id": collection.id}
    with database.engine.begin() as connection:
        statement = "UPDATE collections SET other_model_id = :m, other_model_digest = :d WHERE id = :id"
        connection.execute(text(statement), other)
    assert search.build_now("staff", model) == search.build_now("staff", to_come) == 0

    def write(session: Session) -> None:
        for i, row in enumerate(gallery):
            revision = collections.next_revision(session, collection)
            turned = np.array([np.cos(i), np.sin(i)], np.float32)
            both = reference(model, row), reference(to_come, turned)
            identities.add(session, collection, revision, f"p{i}", {}, *both)

    database.write_now(write)
    assert search.search_now("staff", gallery[1], model, 1).gallery_size == 3
    assert search.missing_now("staff", to_come) == 0
    with database.engine.begin() as connection:
        statement = (
            "UPDATE collections SET model_id = other_model_id, model_digest = other_model_digest, "
            "other_model_id = model_id, other_model_digest = model_digest WHERE id = :id"
        )
        connection.execute(text(statement), {"id": collection.id})
    probe = np.array([1, 0], np.float32)
    result = search.search_now("staff", probe, to_come, 3)
    assert (names(result), result.gallery_size) == (["p0", "p1", "p2"], 3)
    with pytest.raises(ModelMismatchError):
        search.search_now("staff", gallery[1], model, 1)


def test_vectors_missing_on_a_replica_are_added_to_the_store(
    database: Database, bystander: Database, model: Model
) -> None:
    gallery, _ = people(20, 1)
    enrol_many(database, collection_of(database, model), model, gallery)
    with closing(PgvectorSearch(bystander, 1, ef_search=EF_SEARCH, store=database)) as search:
        assert names(search.search_now("staff", gallery[3], model, 1)) == ["p3"]
    assert rows(database, "vectors") == 20


def test_probe_of_another_model_is_refused(
    database: Database, search: PgvectorSearch, model: Model, angle_models: Path
) -> None:
    collection_of(database, model)
    other = open_model(angle_models / "angles", provider="cpu")
    with pytest.raises(ModelMismatchError):
        search.search_now("staff", np.zeros(2, np.float32), other, 1)
    with pytest.raises(ModelMismatchError):
        search.build_now("staff", other)


def test_recall_is_null_until_measured_and_then_quoted_where_it_was_measured_alike(
    database: Database, search: PgvectorSearch, model: Model
) -> None:
    gallery, _ = people(400, 1)
    enrol_many(database, collection_of(database, model), model, gallery)
    before = search.search_now("staff", gallery[0], model, 1)
    assert (before.exact, before.recall) == (False, None)
    recall = search.measure_recall_now("staff", model, probes=30, top_k=5)
    assert 0.95 <= recall.recall <= 1.0
    assert (recall.probes, recall.top_k, recall.identities, recall.revision) == (30, 5, 400, 1)
    assert search.search_now("staff", gallery[0], model, 1).recall == recall.recall
    with closing(PgvectorSearch(database, 1, ef_search=40)) as narrower:
        assert narrower.search_now("staff", gallery[0], model, 1).recall is None


def test_measured_recall_of_a_useless_index_is_low(
    database: Database, search: PgvectorSearch, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, _ = people(400, 1)
    enrol_many(database, collection_of(database, model), model, gallery)
    honest = vectors.nearest

    def poor(*args: Any, ef_search: int | None, **others: Any) -> Any:
        found = honest(*args, ef_search=ef_search, **others)
        return found if ef_search is None else [near for near in found if near.identity_id % 2]

    monkeypatch.setattr(vectors, "nearest", poor)
    assert search.measure_recall_now("staff", model, probes=30, top_k=5).recall == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "l1"])
def test_probe_is_moved_as_far_as_asked(metric: Metric) -> None:
    start = people(1, 1)[0][0]
    for far in (0.0, 0.3, 1.0):
        probe = moved(start, far, metric, np.random.default_rng(3))
        assert distance(probe, start, metric) == pytest.approx(far, abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "dimensions"), [("euclidean", 3), ("cosine", 3), ("l1", 3), ("euclidean", 2001), ("l1", 4000)]
)
def test_index_ranks_as_the_metric_does(database: Database, metric: Metric, dimensions: int) -> None:
    digest = "ab" * 32
    collection = database.write_now(collections.add, "staff", "any", digest, {})
    rng = np.random.default_rng(8)
    gallery = rng.standard_normal((40, dimensions)).astype(np.float32)

    def fill(session: Session) -> None:
        vectors.prepare(session, collection, digest)
        revision = collections.next_revision(session, collection)
        for i, row in enumerate(gallery):
            made = NewReference(f"r{i}", digest, row, None, {})
            identities.add(session, collection, revision, f"p{i}", {}, made)
        assert vectors.fill(session, collection, digest, vectors.Filling()).done

    database.write_now(fill)
    database.write_now(vectors.make_index, collection, digest, metric, dimensions)
    probe = rng.standard_normal(dimensions).astype(np.float32)

    def by_index(session: Session) -> list[str]:
        found = vectors.nearest(session, collection, metric, probe, 5, ef_search=EF_SEARCH)
        return sorted(near.name for near in found)

    expected = np.argsort(distances(probe, gallery, metric))[:5]
    assert database.read_now(by_index) == sorted(f"p{i}" for i in expected)


def test_service_answers_over_http_and_says_that_it_is_not_exact(
    database: Database, url: str, tmp_path: Path, angle_models: Path
) -> None:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=url, search="pgvector")
    with serving(settings) as one, serving(settings) as other:
        for i in range(5):
            enrolled = one.post("/enroll", data={"identity": f"p{i}"}, files={"image": angle_png(20 * i)})
            assert enrolled.status_code == 201, enrolled.text
            answer = other.post("/identify", files={"image": angle_png(20 * i)}).json()
            assert answer["candidates"][0]["identity"] == f"p{i}"
            assert answer["gallery_size"] == i + 1
            assert (answer["exact"], answer["recall"]) == (False, None)
        assert one.delete("/identities/p3").status_code == 204
        answer = other.post("/identify", data={"top_k": "100"}, files={"image": angle_png(60)}).json()
        assert sorted(c["identity"] for c in answer["candidates"]) == ["p0", "p1", "p2", "p4"]
    with serving(settings_for(tmp_path, angle_models, ("angles",), database_url=url)) as exact:
        assert exact.post("/identify", files={"image": angle_png(0)}).json()["exact"] is True


def command(*words: str, **variables: str) -> Any:
    return CliRunner().invoke(visavis, list(words), env=variables, catch_exceptions=True)


def test_commands_build_measure_and_drop(
    new_url: str, tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    models_dir = write_vector_bundle(tmp_path).parent
    monkeypatch.chdir(tmp_path)
    gallery, _ = people(300, 1)
    with closing(Database(new_url, timeout_s=5, pool_size=1)) as store:
        enrol_many(store, collection_of(store, model), model, gallery)
    environment = {
        "VISAVIS_DATABASE_URL": new_url,
        "VISAVIS_MODELS_DIR": str(models_dir),
        "VISAVIS_MODELS": "vectors",
        "VISAVIS_PROVIDER": "cpu",
    }
    refused = command("db", "vectors", "recall", "--collection", "staff", **environment)
    assert "visavis db upgrade" in str(refused.exception)
    built = command("db", "vectors", "build", **environment)
    assert built.exit_code == 0, built.output
    assert "staff: 300 vectors added, by model vectors" in built.output
    assert "staff: 0 vectors added" in command("db", "vectors", "build", **environment).output
    words = ("db", "vectors", "recall", "--collection", "staff", "--probes", "20", "--json")
    measured = command(*words, **environment)
    assert measured.exit_code == 0, measured.output
    document = json.loads(measured.stdout)
    assert document["recall"] >= 0.95
    assert document["probes"] == 20
    assert command("db", "vectors", "drop", "--yes", **environment).exit_code == 0
    with closing(Database(new_url, timeout_s=5, pool_size=1)) as store:
        with store.engine.connect() as connection:
            assert connection.scalar(text("SELECT to_regclass('visavis_vectors.vectors')")) is None
        remove(store, store.read_now(collections.get, "staff"), "p0")


def test_upgrade_makes_the_tables_where_pgvector_is_asked_for(
    new_url: str, tmp_path: Path, angle_models: Path
) -> None:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=new_url, search="pgvector")
    with (
        pytest.raises(StartupError, match="'visavis db upgrade' with VISAVIS_SEARCH=pgvector"),
        open_context(settings),
    ):
        pass
    for _ in range(2):
        done = command("db", "upgrade", VISAVIS_DATABASE_URL=new_url, VISAVIS_SEARCH="pgvector")
        assert done.exit_code == 0, done.output
    with open_context(settings):
        pass


def test_server_without_the_extension_is_refused_in_words(new_url: str) -> None:
    with (
        closing(Database(new_url, timeout_s=5, pool_size=1)) as database,
        database.engine.begin() as connection,
    ):
        name = connection.scalar(text("SELECT current_database()"))
        connection.execute(text(f"ALTER DATABASE {name} SET extension_control_path = '/nonexistent'"))
    with (
        closing(Database(new_url, timeout_s=5, pool_size=1)) as database,
        pytest.raises(StartupError, match=r"does not offer the extension pgvector.*VISAVIS_SEARCH"),
    ):
        vectors.install(database)


def test_user_who_may_not_create_the_extension_is_told_what_to_do(new_url: str) -> None:
    with closing(Database(new_url, timeout_s=5, pool_size=1)) as database:
        with database.engine.begin() as connection:
            role = f"plain_{next(_numbers)}"
            connection.execute(text(f"CREATE ROLE {role}"))
            name = connection.scalar(text("SELECT current_database()"))
            connection.execute(text(f"ALTER DATABASE {name} SET role = '{role}'"))
        database.engine.dispose()
        with pytest.raises(StartupError, match="CREATE EXTENSION vector there as a superuser"):
            vectors.install(database)


def test_sqlite_is_refused_at_start(tmp_path: Path, angle_models: Path) -> None:
    with pytest.raises(StartupError, match="search=pgvector needs PostgreSQL"):
        settings_for(tmp_path, angle_models, ("angles",), search="pgvector")
    with (
        closing(Database(f"sqlite:///{tmp_path / 'visavis.db'}", timeout_s=5, pool_size=1)) as database,
        pytest.raises(StartupError, match="PostgreSQL only"),
    ):
        vectors.install(database)
