"""Transactions that the store gave up, cut off or could not take: run again, refused, or honestly unknown."""

from __future__ import annotations

import asyncio
import itertools
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from app.errors import OutcomeUnknownError
from app.storage import collections, migrate
from app.storage import database as database_module
from app.storage.database import Database, DatabaseUnavailableError, Session
from tests.support.postgres import create_database

_numbers = itertools.count()


@pytest.fixture
def address(postgres: Any) -> str:
    """URL of a PostgreSQL store with the current schema that the test may spoil."""
    return create_database(postgres, f"transactions_{next(_numbers)}", "current")


@pytest.fixture
def store(address: str) -> Iterator[Database]:
    with closing(Database(address, timeout_s=5, pool_size=4)) as opened:
        yield opened


def add(session: Session, name: str) -> None:
    collections.add(session, name, "angles", "d" * 64, {})


def names(store: Database) -> list[str]:
    return [found.name for found, _ in store.read_now(collections.page, after=0, limit=100)]


def failing_at_first(
    trouble: str, times: int = 1, *, writes: bool = True
) -> tuple[Callable[[Session], int], list[int]]:
    """Return work that adds a collection and then meets SQL trouble the first few times, and its attempts."""
    attempts: list[int] = []

    def work(session: Session) -> int:
        attempts.append(len(attempts) + 1)
        if writes:
            add(session, f"made-{len(attempts)}")
        if len(attempts) <= times:
            session.execute(text(trouble))
        return len(attempts)

    return work, attempts


def raising(state: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{state}'; END $$"


CUT_OFF = "SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.mark.parametrize("trouble", [raising("40001"), raising("40P01"), CUT_OFF])
def test_transaction_given_up_or_cut_off_runs_again_and_is_committed_once(
    store: Database, trouble: str
) -> None:
    work, attempts = failing_at_first(trouble)
    assert store.write_now(work) == 2
    assert (attempts, names(store)) == ([1, 2], ["made-2"])
    work, attempts = failing_at_first(trouble, writes=False)
    assert store.read_now(work) == 2


def test_other_failures_are_not_tried_again(store: Database) -> None:
    work, attempts = failing_at_first(raising("23514"))
    with pytest.raises(Exception, match="as asked"):
        store.write_now(work)
    assert (attempts, names(store)) == ([1], [])


def test_transaction_that_is_always_given_up_is_refused_after_a_few_attempts(store: Database) -> None:
    work, attempts = failing_at_first(raising("40001"), times=1000)
    with pytest.raises(DatabaseUnavailableError, match="try again"):
        store.write_now(work)
    assert (len(attempts), names(store)) == (database_module.ATTEMPTS, [])


def test_transaction_is_not_begun_again_when_its_time_is_up(address: str) -> None:
    work, attempts = failing_at_first(raising("40001"), times=1000)

    def slow(session: Session) -> int:
        time.sleep(0.3)
        return work(session)

    with closing(Database(address, timeout_s=0.2, pool_size=1)) as store:
        with pytest.raises(DatabaseUnavailableError):
            store.write_now(slow)
        assert len(attempts) == 1


def test_two_transactions_in_each_others_way_both_succeed(store: Database) -> None:
    for name in ("one", "other"):
        store.write_now(add, name)
    both_hold_one = threading.Barrier(2)
    attempts: list[str] = []

    def rename(session: Session, first: str, second: str) -> None:
        attempts.append(first)
        touch = text("UPDATE collections SET revision = revision + 1 WHERE name = :name")
        session.execute(touch, {"name": first})
        if len(attempts) <= 2:
            both_hold_one.wait(5)
        session.execute(touch, {"name": second})

    with ThreadPoolExecutor(2) as pool:
        tasks = [
            pool.submit(lambda: store.write_now(rename, "one", "other")),
            pool.submit(lambda: store.write_now(rename, "other", "one")),
        ]
        for task in tasks:
            task.result()
    assert len(attempts) == 3
    assert [found.revision for found, _ in store.read_now(collections.page, after=0, limit=9)] == [2, 2]


def test_connection_cut_off_inside_a_savepoint_is_an_outage_like_any_other(store: Database) -> None:
    attempts: list[int] = []

    def work(session: Session) -> int:
        attempts.append(1)
        with session.begin_nested():
            if len(attempts) == 1:
                session.execute(text(CUT_OFF))
        add(session, "made")
        return len(attempts)

    assert store.write_now(work) == 2
    assert names(store) == ["made"]


def test_commit_cut_off_before_it_was_made_is_unknown_and_nothing_is_there(store: Database) -> None:
    store.write_now(
        lambda session: [
            session.execute(text(statement))
            for statement in (
                f"CREATE FUNCTION cut_off() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN PERFORM {CUT_OFF.removeprefix('SELECT ')}; RETURN NULL; END $$",
                "CREATE CONSTRAINT TRIGGER cut_off AFTER INSERT ON collections "
                "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut_off()",
            )
        ]
    )
    with pytest.raises(OutcomeUnknownError, match="Idempotency-Key"):
        store.write_now(add, "new")
    assert names(store) == []


def test_commit_cut_off_after_it_was_made_is_unknown_and_all_is_there(store: Database) -> None:
    store.write_now(add, "before")

    def commit_and_hang_up(connection: Any) -> None:
        driver = connection.connection.driver_connection
        driver.execute("COMMIT")
        driver.close()

    event.listen(store.engine, "commit", commit_and_hang_up)
    with pytest.raises(OutcomeUnknownError):
        store.write_now(add, "new")
    event.remove(store.engine, "commit", commit_and_hang_up)
    assert names(store) == ["before", "new"]


def test_commit_that_the_disk_did_not_confirm_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "visavis.db"
    with closing(Database(f"sqlite:///{file}", timeout_s=5, pool_size=1)) as store:
        migrate.upgrade(store)
        store.write_now(add, "before")
        journal = file.with_name("visavis.db-wal").stat().st_size
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        def add_on_a_full_disk(session: Session) -> None:
            add(session, "new")
            session.flush()
            resource.setrlimit(resource.RLIMIT_FSIZE, (journal, hard))

        try:
            with pytest.raises(OutcomeUnknownError):
                store.write_now(add_on_a_full_disk)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert names(store) == ["before"]
        store.write_now(add, "after")
        assert names(store) == ["before", "after"]


def test_work_that_waited_too_long_for_a_thread_is_refused_undone(url: str) -> None:
    ran: list[str] = []

    async def both(store: Database) -> None:
        slow = asyncio.create_task(store.write(lambda _: time.sleep(0.6)))
        await asyncio.sleep(0.05)
        with pytest.raises(DatabaseUnavailableError, match="too much is waiting"):
            await store.write(lambda _: ran.append("late"))
        await slow
        await store.write(lambda _: ran.append("in time"))

    with closing(Database(url, timeout_s=0.2, pool_size=2)) as store:
        asyncio.run(both(store))
    assert ran == ["in time"]


def test_server_that_takes_no_writes_is_away_and_the_next_connection_looks_anew(
    store: Database, address: str
) -> None:
    name = address.rpartition("/")[2].partition("?")[0]
    with closing(Database(address, timeout_s=5, pool_size=1)) as before:
        switch = f"ALTER DATABASE {name} SET default_transaction_read_only = "
        before.write_now(lambda session: session.execute(text(switch + "on")))
        with pytest.raises(DatabaseUnavailableError):
            store.write_now(add, "refused")
        assert names(store) == []
        before.write_now(lambda session: session.execute(text(switch + "off")))
    with pytest.raises(DatabaseUnavailableError):
        store.write_now(add, "refused, on the connection of the last read")
    store.write_now(add, "made")
    assert names(store) == ["made"]


def test_transaction_of_a_process_that_hangs_is_ended_and_its_lock_is_free(address: str) -> None:
    attempts: list[int] = []

    def hang_at_first(session: Session) -> None:
        attempts.append(1)
        session.execute(text("UPDATE collections SET revision = revision + 1"))
        if len(attempts) == 1:
            time.sleep(1)

    with (
        closing(Database(address, timeout_s=5, pool_size=2, idle_timeout_s=0.2)) as hanging,
        closing(Database(address, timeout_s=0.9, pool_size=2)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        other.write_now(add, "one")
        task = pool.submit(hanging.write_now, hang_at_first)
        while not attempts:
            time.sleep(0.01)
        other.write_now(lambda s: s.execute(text("UPDATE collections SET revision = 10")))
        task.result()
        assert len(attempts) == 2
        (found,) = [found for found, _ in other.read_now(collections.page, after=0, limit=9)]
        assert found.revision == 11
