"""The migrations and the tables agree, on both stores, and a store that cannot be used says so."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import inspect, text

from app.context import open_context, opened_database
from app.errors import StartupError
from app.storage import collections, migrate
from app.storage.database import Database
from tests.support.postgres import create_database
from tests.support.service import settings_for


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    with closing(Database(empty_url, timeout_s=5, pool_size=2)) as opened:
        yield opened


def test_upgraded_schema_is_the_schema_of_the_tables(empty: Database) -> None:
    migrate.upgrade(empty)
    with empty.engine.connect() as connection:
        command.check(migrate.alembic_config(connection))


def test_downgrade_leaves_no_table_and_upgrade_works_again(empty: Database) -> None:
    migrate.upgrade(empty)
    migrate.downgrade(empty, "base")
    assert inspect(empty.engine).get_table_names() == ["alembic_version"]
    migrate.upgrade(empty)
    migrate.require_current(empty)


def test_upgrade_of_a_current_schema_keeps_its_rows(database: Database) -> None:
    columns = "id, name, secret_sha256, role, created_at"
    insert = f"INSERT INTO api_keys ({columns}) VALUES ('a', 'b', 'c', 'full', '2026-01-01')"
    with database.engine.begin() as connection:
        connection.execute(text(insert))
    migrate.upgrade(database)
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM api_keys")) == 1


def test_processes_that_upgrade_at_once_all_succeed(empty_url: str) -> None:
    def start(_: int) -> None:
        with closing(Database(empty_url, timeout_s=10, pool_size=1)) as database:
            migrate.upgrade(database)
            migrate.require_current(database)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(start, range(6))) == [None] * 6


def test_services_that_start_at_once_on_a_new_store_all_start(
    empty_url: str, tmp_path: Path, angle_models: Path
) -> None:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=empty_url)
    if not empty_url.startswith("sqlite"):
        with closing(Database(empty_url, timeout_s=5, pool_size=1)) as database:
            migrate.upgrade(database)

    def start(_: int) -> int:
        with open_context(settings) as context:
            return len(context.database.read_now(collections.page, after=0, limit=9))

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(start, range(6))) == [1] * 6


def test_failed_upgrade_leaves_the_next_one_free_to_run(empty: Database) -> None:
    with pytest.raises(StartupError, match=r"Can't locate revision"):
        migrate.upgrade(empty, "no_such_revision")
    migrate.upgrade(empty)
    migrate.require_current(empty)


def test_connections_after_an_upgrade_enforce_references_and_time_limits(empty: Database) -> None:
    migrate.upgrade(empty)
    with empty.engine.connect() as connection:
        if empty.is_sqlite:
            assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        else:
            assert connection.scalar(text("SHOW statement_timeout")) == "5s"
            assert connection.scalar(text("SHOW lock_timeout")) == "5s"


def test_schema_of_a_later_version_is_refused_in_words(
    spare_url: str, tmp_path: Path, angle_models: Path
) -> None:
    with (
        closing(Database(spare_url, timeout_s=5, pool_size=1)) as database,
        database.engine.begin() as connection,
    ):
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=spare_url)
    with pytest.raises(StartupError, match="9999"), opened_database(settings):
        pass


def test_empty_postgresql_asks_for_the_upgrade(postgres: Any, tmp_path: Path, angle_models: Path) -> None:
    settings = settings_for(
        tmp_path, angle_models, ("angles",), database_url=create_database(postgres, "never_upgraded")
    )
    with pytest.raises(StartupError, match="visavis db upgrade"), opened_database(settings):
        pass


def _no_database(folder: Path) -> str:
    (folder / "visavis.db").write_bytes(b"this is a text file, and long enough to be looked at" * 40)
    return f"sqlite:///{folder / 'visavis.db'}"


def _locked(folder: Path) -> str:
    (folder / "visavis.db").mkdir()
    return f"sqlite:///{folder / 'visavis.db'}"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: f"sqlite:///{folder / 'missing' / 'visavis.db'}", "unable to open database file"),
        (_locked, "unable to open database file"),
        (_no_database, "file is not a database"),
        (lambda _: "sqlite:////proc/visavis.db", "unable to open database file"),
        (lambda _: "postgresql+psycopg://ada:hunter2@127.0.0.1:1/visavis", "refused"),
        (lambda _: "postgresql+psycopg://ada:hunter2@/visavis?host=/nonexistent", "No such file"),
    ],
    ids=["no folder", "a folder", "no database", "no permission", "no server", "no socket"],
)  # fmt: skip
def test_store_that_cannot_be_used_stops_the_start_with_its_name_and_the_reason(
    tmp_path: Path, angle_models: Path, make: Any, why: str
) -> None:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=make(tmp_path))
    with pytest.raises(StartupError, match=why) as caught, open_context(settings):
        pass
    assert "VISAVIS_DATABASE_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:a.db?uri=true",
        "postgresql+psycopg://host:port/name",
        "postgresql+psycopg://[/",
    ],
)
def test_address_that_cannot_work_is_refused_in_words(
    tmp_path: Path, angle_models: Path, address: str
) -> None:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=address)
    with pytest.raises(StartupError, match="VISAVIS_DATABASE_URL"), opened_database(settings):
        pass
