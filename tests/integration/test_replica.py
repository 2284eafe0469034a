"""A service that searches a real standby of its store: answers name their revision, If-Revision waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from tests.support.images import angle_png
from tests.support.postgres import create_database, standby_of
from tests.support.service import serving, settings_for

PHOTO = {"image": angle_png(20)}
Read = tuple[str, str, dict[str, Any]]
READS: list[Read] = [
    ("POST", "/identify", {"files": PHOTO}),
    ("POST", "/verify", {"data": {"identity": "ada"}, "files": PHOTO}),
    ("GET", "/identities", {}),
]


class Standby:
    """The standby's end of the replication."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _run(self, statement: str) -> None:
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()

    def stop_following(self) -> None:
        self._run("SELECT pg_wal_replay_pause()")

    def follow(self) -> None:
        self._run("SELECT pg_wal_replay_resume()")


@pytest.fixture
def standby(stores: tuple[str, Standby]) -> Iterator[Standby]:
    """The standby, which follows at the end whatever a test did."""
    yield stores[1]
    stores[1].follow()


@pytest.fixture(scope="module")
def stores(postgres: Any) -> Iterator[tuple[str, Standby]]:
    """URL of a store with the current schema, and a standby of it."""
    url = create_database(postgres, "replicated", "current")
    with standby_of(postgres, "replicated") as standby:
        yield url, Standby(standby)


@pytest.fixture
def service(stores: tuple[str, Standby], tmp_path: Path, angle_models: Path) -> Iterator[TestClient]:
    """A service that writes to the store and searches the standby; the collection is empty there."""
    url, standby = stores
    settings = settings_for(
        tmp_path,
        angle_models,
        ("angles",),
        database_url=url,
        search_database_url=standby.url,
        revision_timeout_s=1,
    )
    with serving(settings) as opened:
        opened.delete("/collections/default").raise_for_status()
        opened.post("/collections", json={"name": "default"}).raise_for_status()
        yield opened


def enrol(service: TestClient, name: str, **fields: str) -> int:
    response = service.post("/enroll", data={"identity": name, **fields}, files=PHOTO)
    assert response.status_code == 201, response.text
    return int(response.json()["revision"])


def ask(service: TestClient, read: Read, revision: int | None = None) -> Any:
    method, path, request = read
    headers = {} if revision is None else {"If-Revision": str(revision)}
    return service.request(method, path, **request, headers=headers)


def test_read_of_a_standby_that_is_behind_names_its_revision_and_waits_for_a_later_one(
    service: TestClient, standby: Standby
) -> None:
    known = enrol(service, "ada")
    for read in READS:  # once it is there, the standby has it
        assert ask(service, read, known).json()["revision"] == known
    standby.stop_following()
    later = enrol(service, "grace")
    for read in READS:
        old = ask(service, read)
        assert (old.status_code, old.json()["revision"]) == (200, known), old.text
        refused = ask(service, read, later)
        assert (refused.status_code, refused.json()["code"]) == (409, "revision_not_reached")
        assert (refused.json()["wanted_revision"], refused.json()["revision"]) == (later, known)
    standby.follow()
    for read in READS:
        assert ask(service, read, later).json()["revision"] == later


def test_read_that_waits_is_answered_when_the_standby_has_followed(
    service: TestClient, standby: Standby
) -> None:
    enrol(service, "ada")
    for read in READS:
        standby.stop_following()
        revision = enrol(service, f"after {read[1]}")
        timer = threading.Timer(0.1, standby.follow)
        timer.start()
        answer = ask(service, read, revision)
        timer.join()
        assert (answer.status_code, answer.json()["revision"]) == (200, revision), answer.text


def test_write_of_an_etag_is_decided_by_the_store_and_not_by_the_standby(
    service: TestClient, standby: Standby
) -> None:
    first = enrol(service, "hedy")
    standby.stop_following()
    path = "/identities/hedy"
    assert service.patch(path, json={"metadata": {"a": 1}}).status_code == 200
    stale = service.patch(path, json={"metadata": {}}, headers={"If-Match": f'"{first}"'})
    assert (stale.status_code, stale.json()["revision"]) == (412, first + 1)
    key = {"Idempotency-Key": "k"}
    done, again = (service.patch(path, json={"metadata": {"b": 2}}, headers=key) for _ in range(2))
    assert (again.content, again.headers["idempotent-replayed"]) == (done.content, "true")
