"""A service that searches a real standby of its store: how old its answers are is said, and If-Revision waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from app.storage.database import Database
from tests.support.images import angle_png
from tests.support.postgres import create_database, standby_of, url_of
from tests.support.service import serving, settings_for

PHOTO = {"image": angle_png(20)}
READS: list[tuple[str, str, dict[str, Any]]] = [
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


@pytest.fixture(scope="module")
def stores(postgres: Any) -> Iterator[tuple[str, Standby]]:
    """URL of a store with the current schema, and a standby of it."""
    url = create_database(postgres, "replicated", "current")
    with standby_of(postgres, "replicated") as standby:
        yield url, Standby(standby)


@pytest.fixture
def service(stores: tuple[str, Standby], tmp_path: Path, angle_models: Path) -> Iterator[TestClient]:
    """A service that writes to the store and searches the standby, which follows and then stops."""
    url, standby = stores
    settings = settings_for(
        tmp_path,
        angle_models,
        ("angles",),
        database_url=url,
        search_database_url=standby.url,
        revision_timeout_s=0.3,
    )
    with serving(settings) as opened:
        yield opened
        standby.follow()


def test_place(service: TestClient) -> None:
    assert service
