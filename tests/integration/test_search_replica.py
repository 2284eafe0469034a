"""A replica for searches: whole changes only, and nothing but searches rests on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from app.context import open_context
from app.errors import StartupError
from app.settings import Settings
from app.storage import migrate
from app.storage.database import Database
from tests.support.images import angle_png
from tests.support.postgres import create_database, postgres_server, replica_of, restart, url_of
from tests.support.service import serving, settings_for


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Any, Any]]:
    """A server with the store ``visavis``, and its replica."""
    with postgres_server() as server:
        with closing(Database(create_database(server, "visavis"), timeout_s=5, pool_size=1)) as database:
            migrate.upgrade(database)
        with replica_of(server) as replica:
            yield server, replica


@pytest.fixture
def settings(servers: tuple[Any, Any], tmp_path: Path, angle_models: Path) -> Settings:
    server, replica = servers
    return settings_for(
        tmp_path,
        angle_models,
        ("angles",),
        database_url=url_of(server, "visavis"),
        search_database_url=url_of(replica, "visavis"),
    )


@pytest.fixture
def service(settings: Settings, servers: tuple[Any, Any]) -> Iterator[TestClient]:
    with serving(settings) as client:
        client.delete("/collections/default")
        client.post("/collections", json={"name": "default"}).raise_for_status()
        eventually(lambda: client.get("/identities").json()["identities"] == [])
        yield client


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def on(server: Any, statement: str) -> None:
    engine = create_engine(url_of(server, "visavis"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def enrol(service: TestClient, name: str) -> Any:
    answer = service.post("/enroll", data={"identity": name}, files={"image": angle_png(0)})
    assert answer.status_code == 201, answer.text
    return answer.json()


def identify(service: TestClient, **headers: str) -> Any:
    return service.post("/identify", files={"image": angle_png(0)}, headers=headers)


def test_search_on_a_replica_never_sees_half_a_change(service: TestClient) -> None:
    revisions = []
    for number in range(20):
        enrol(service, f"ada-{number}")
        found = service.post("/identify", data={"top_k": "100"}, files={"image": angle_png(0)}).json()
        revisions.append(found["revision"])
        assert found["gallery_size"] == found["revision"] == len(found["candidates"])
    assert revisions == sorted(revisions)


def test_keys_are_checked_where_they_are_revoked(
    settings: Settings, service: TestClient, servers: tuple[Any, Any]
) -> None:
    from app.services.access import create_key, revoke_key

    database = service.app.state.context.database  # type: ignore[attr-defined]
    key = create_key(database, "caller", "full")
    headers = {"Authorization": f"Bearer {key}"}
    try:
        on(servers[1], "SELECT pg_wal_replay_pause()")
        assert identify(service, **headers).status_code == 200
        revoke_key(database, "caller")
        assert identify(service, **headers).status_code == 401
    finally:
        on(servers[1], "SELECT pg_wal_replay_resume()")
        on(servers[0], "DELETE FROM api_keys")


def test_replica_that_is_away_stops_searches_and_nothing_else(
    service: TestClient, servers: tuple[Any, Any]
) -> None:
    enrol(service, "ada")
    servers[1].stop()
    try:
        answer = identify(service)
        assert (answer.status_code, answer.json()["code"]) == (503, "busy")
        assert service.get("/readyz").status_code == 503
        enrol(service, "grace")
        assert service.get("/identities/grace").status_code == 200
    finally:
        restart(servers[1])
    eventually(lambda: identify(service).status_code == 200)
    eventually(lambda: len(identify(service).json()["candidates"]) == 2)
    assert service.get("/readyz").status_code == 200


def test_replica_that_cannot_be_reached_stops_the_start_by_the_name_of_its_setting(
    settings: Settings,
) -> None:
    away = settings.model_copy(update={"search_database_url": "postgresql+psycopg://127.0.0.1:1/visavis"})
    with pytest.raises(StartupError, match="VISAVIS_SEARCH_DATABASE_URL"), open_context(away):
        pass
