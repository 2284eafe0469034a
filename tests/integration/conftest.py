"""Stores: the same tests run on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.storage import migrate
from app.storage.database import Database
from tests.support.postgres import create_database, postgres_server, url_of
from tests.support.vectors import write_vector_bundle

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server with a migrated database ``current`` to copy from, and a copy to share."""
    with postgres_server() as server:
        with closing(Database(create_database(server, "current"), timeout_s=5, pool_size=1)) as database:
            migrate.upgrade(database)
        create_database(server, "shared", "current")
        yield server


@pytest.fixture(scope="session")
def vector_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the small bundle ``vectors``."""
    folder = tmp_path_factory.mktemp("vectors")
    write_vector_bundle(folder)
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a store without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'visavis.db'}"
    return create_database(request.getfixturevalue("postgres"), f"empty_{next(_numbers)}")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a store with the current schema, which the test leaves as it is, and no rows."""
    if request.param == "postgresql":
        # Emptied and not made anew: each database is some three hundred files.
        address = url_of(request.getfixturevalue("postgres"), "shared")
        with (
            closing(Database(address, timeout_s=5, pool_size=1)) as database,
            database.engine.begin() as connection,
        ):
            connection.execute(text("TRUNCATE collections, api_keys, idempotency_keys CASCADE"))
        return address
    return _new_sqlite(tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def spare_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a store with the current schema and no rows, for a test that spoils it."""
    if request.param == "postgresql":
        return create_database(request.getfixturevalue("postgres"), f"spare_{next(_numbers)}", "current")
    return _new_sqlite(tmp_path)


def _new_sqlite(tmp_path: Path) -> str:
    address = f"sqlite:///{tmp_path / 'visavis.db'}"
    with closing(Database(address, timeout_s=5, pool_size=1)) as database:
        migrate.upgrade(database)
    return address


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """The store, open."""
    with closing(Database(url, timeout_s=5, pool_size=10)) as opened:
        yield opened
