"""A collection's own evidence on both stores: old databases, two services, reads beside a change."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import MetaData, inspect, text

from app.errors import CollectionNotFoundError
from app.services.own_evidence import OwnEvidences
from app.storage import collections, evidence, migrate
from app.storage.database import Database, Session
from app.storage.records import Collection, Measurement
from tests.support.crowd import enrol_at, evenly
from tests.support.images import angle_png
from tests.support.service import serving, settings_for

ABOUT = Measurement("d" * 64, 3, "made up", 40, 41, 1, 780)


@pytest.fixture
def gallery(database: Database) -> Collection:
    return database.write_now(collections.add, "gallery", "angles", "d" * 64, {})


def named(database: Database, name: str = "gallery") -> Collection:
    return database.read_now(collections.get, name)


def rows(database: Database) -> int:
    return int(database.read_now(lambda session: session.scalar(text("SELECT count(*) FROM evidence"))))


def test_stored_evidence_comes_back_as_it_was(database: Database, gallery: Collection) -> None:
    assert gallery.evidence_id is None
    assert database.read_now(evidence.get, gallery) is None
    put = database.write_now(evidence.put, gallery, ABOUT, bytes(range(256)) * 40)
    got = database.read_now(evidence.get, named(database))
    assert got is not None
    assert (got.id, got.measurement, got.trials) == (put.id, ABOUT, bytes(range(256)) * 40)
    assert got.created_at == put.created_at


def test_newest_is_in_force_alone_and_no_number_is_given_twice(
    database: Database, gallery: Collection
) -> None:
    numbers = [database.write_now(evidence.put, gallery, ABOUT, b"").id for _ in range(3)]
    assert (named(database).evidence_id, rows(database)) == (numbers[-1], 1)
    assert database.write_now(evidence.remove, gallery) is True
    assert (named(database).evidence_id, rows(database)) == (None, 0)
    assert database.write_now(evidence.remove, gallery) is False
    numbers.append(database.write_now(evidence.put, gallery, ABOUT, b"").id)
    assert numbers == sorted(set(numbers))


def test_deleted_collection_takes_its_evidence_along_and_gets_none(
    database: Database, gallery: Collection
) -> None:
    other = database.write_now(collections.add, "other", "angles", "d" * 64, {})
    for collection in (gallery, other):
        database.write_now(evidence.put, collection, ABOUT, b"")
    database.write_now(collections.remove, "gallery")
    assert rows(database) == 1
    for late in (lambda s: evidence.put(s, gallery, ABOUT, b""), lambda s: evidence.remove(s, gallery)):
        with pytest.raises(CollectionNotFoundError):
            database.write_now(late)
    assert named(database, "other").evidence_id is not None


def test_evidence_of_a_collection_is_not_found_by_another(database: Database, gallery: Collection) -> None:
    other = database.write_now(collections.add, "other", "angles", "d" * 64, {})
    put = database.write_now(evidence.put, gallery, ABOUT, b"")
    with database.engine.begin() as connection:
        connection.execute(
            text("UPDATE collections SET evidence_id = :n WHERE id = :i"), {"n": put.id, "i": other.id}
        )
    assert database.read_now(evidence.get, named(database, "other")) is None


def test_what_a_row_names_is_there_while_another_measures(database: Database, gallery: Collection) -> None:
    database.write_now(evidence.put, gallery, ABOUT, b"first")

    def read(session: Session) -> str | None:
        collection = collections.get(session, "gallery")
        database.write_now(evidence.put, collection, ABOUT, b"second")
        own = OwnEvidences().of(session, collection)
        return None if own is None else own.problem

    # Neither blob is an npz file; what counts is that the first is still there to be read.
    assert "damaged" in str(database.read_now(read))


def test_failed_measurement_leaves_what_was_in_force(database: Database, gallery: Collection) -> None:
    first = database.write_now(evidence.put, gallery, ABOUT, b"first")

    def broken(session: Session) -> None:
        evidence.put(session, gallery, ABOUT, b"second")
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        database.write_now(broken)
    got = database.read_now(evidence.get, named(database))
    assert got is not None
    assert (got.id, got.trials) == (first.id, b"first")


# services


def decided(service: TestClient, **fields: str) -> Any:
    data = {"identity": "p0", "collection": "people", "max_fmr": "0.01", **fields}
    response = service.post("/verify", data=data, files={"image": angle_png(5)})
    assert response.is_success, response.text
    return response.json()


def test_measured_or_removed_in_one_service_counts_in_the_other(
    url: str, tmp_path: Path, crowd_models: Path
) -> None:
    settings = settings_for(tmp_path, crowd_models, ("crowd",), database_url=url)
    with ExitStack() as stack:
        one, other = (stack.enter_context(serving(settings)) for _ in range(2))
        context = one.app.state.context  # type: ignore[attr-defined]
        enrol_at(context.database, context.models.default, evenly(40))
        for _ in range(3):
            assert decided(other)["match"] is False
            one.post("/collections/people/evidence").raise_for_status()
            assert (decided(other)["match"], decided(other)["evidence"]["source"]) == (True, "deployment")
            assert one.delete("/collections/people/evidence").status_code == 204
            assert decided(other)["evidence"]["source"] == "bundle"
            one, other = other, one


# migration


def _answers(service: TestClient) -> list[Any]:
    photo = {"image": angle_png(5)}
    people = {"collection": "people"}
    found = [
        service.get("/collections").json(),
        service.get("/identities", params=people).json(),
        decided(service),
        decided(service, max_fmr="0.001"),
        service.post("/identify", data=people, files=photo).json(),
        service.post("/identify", data={**people, "max_fpir": "0.5", "top_k": "100"}, files=photo).json(),
    ]
    for answer in found:
        answer.pop("timings_ms", None)
    return found


def test_database_of_the_first_schema_migrates_and_answers_identically(
    empty_url: str, tmp_path: Path, crowd_models: Path
) -> None:
    # The same rows twice: in a store of today, and in one that only ever had the first schema.
    today = settings_for(tmp_path, crowd_models, ("crowd",), database_url=f"sqlite:///{tmp_path / 'now.db'}")
    with serving(today) as service:
        context = service.app.state.context  # type: ignore[attr-defined]
        metadata = {"p1": {"team": "a"}}
        enrol_at(context.database, context.models.default, evenly(40), metadata=metadata)
        service.delete("/identities/p7", params={"collection": "people"}).raise_for_status()
        expected = _answers(service)
    old = settings_for(tmp_path, crowd_models, ("crowd",), database_url=empty_url)
    with closing(Database(empty_url, timeout_s=5, pool_size=2)) as first:
        migrate.upgrade(first, "0001")
        _copy(Path(tmp_path / "now.db"), first)
        assert "evidence" not in inspect(first.engine).get_table_names()
        if not first.is_sqlite:
            migrate.upgrade(first)  # a SQLite store is brought up to date when it is opened
    with serving(old) as service:
        assert _answers(service) == expected
        service.post("/collections/people/evidence").raise_for_status()
        assert decided(service)["evidence"]["source"] == "deployment"


def test_way_back_to_the_first_schema_loses_the_evidence_and_nothing_else(
    empty_url: str, tmp_path: Path, crowd_models: Path
) -> None:
    settings = settings_for(tmp_path, crowd_models, ("crowd",), database_url=empty_url)
    with closing(Database(empty_url, timeout_s=5, pool_size=2)) as database:
        migrate.upgrade(database)
    with serving(settings) as service:
        context = service.app.state.context  # type: ignore[attr-defined]
        enrol_at(context.database, context.models.default, evenly(40))
        expected = _answers(service)
        service.post("/collections/people/evidence").raise_for_status()
    with closing(Database(empty_url, timeout_s=5, pool_size=2)) as database:
        migrate.downgrade(database, "0001")
        migrate.upgrade(database)
    with serving(settings) as service:
        assert _answers(service) == expected


def _copy(source: Path, target: Database) -> None:
    tables = ("collections", "identities", "reference_templates", "removals", "api_keys")
    with closing(Database(f"sqlite:///{source}", timeout_s=5, pool_size=1)) as database:
        here, there = MetaData(), MetaData()
        here.reflect(database.engine)
        there.reflect(target.engine)
        for name in tables:
            with database.engine.connect() as reading, target.engine.begin() as writing:
                columns = [here.tables[name].c[column.name] for column in there.tables[name].c]
                for row in reading.execute(here.tables[name].select().with_only_columns(*columns)):
                    writing.execute(there.tables[name].insert().values(dict(row._mapping)))
        if not target.is_sqlite:
            with target.engine.begin() as writing:
                for name in ("collections", "identities"):
                    writing.execute(text(f"SELECT setval('{name}_id_seq', (SELECT max(id) FROM {name}))"))
