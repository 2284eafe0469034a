"""The connection to the SQL store, and the transactions around it.

Work runs as functions of a session inside ``read`` or ``write``, on a small pool of threads, so that the
event loop never waits for the database and a transaction never spans an encoding.

A transaction that the database gave up for another one's sake (a deadlock, a conflict with what a replica
replays), or that lost its connection before its commit, has changed nothing and is run again a few times. So
a work function may run more than once: it begins from its arguments each time, uses up none of them (an
iterator would be empty the second time), and what it changes beside the session bears being changed twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import BusyError, OutcomeUnknownError, StartupError

__all__ = ["Database", "DatabaseUnavailableError", "Session"]

logger = logging.getLogger("visavis.storage")

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS: Final = 5
"""How often a transaction is begun before its caller is told to try again."""
PAUSE_S: Final = 0.02
"""Longest pause before the second attempt; it doubles each time, and its length is drawn at random."""

_GIVEN_UP: Final = {"40001", "40P01"}
"""SQLSTATE of a serialization failure and of a deadlock: the other transaction went on, this one may try."""
_IDLE: Final = "25P03"
"""SQLSTATE of a connection that was closed because its transaction waited: no commit had arrived."""
_READ_ONLY: Final = "25006"
"""SQLSTATE of a write to a server that takes none: the connection leads to what is a standby now."""


class DatabaseUnavailableError(BusyError):
    """The database cannot be reached or did not answer in time; nothing was changed."""


class Database:
    """An engine and the threads that use it."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        pool_size: int,
        idle_timeout_s: float = 60.0,
        setting: str = "VISAVIS_DATABASE_URL",
    ) -> None:
        """Open nothing yet.

        Args:
            url: SQLAlchemy URL.
            timeout_s: Longest wait for a connection, a lock or a statement, and for a free thread.
            pool_size: Most connections.
            idle_timeout_s: Longest that PostgreSQL lets a transaction wait for this process.
            setting: Where the URL comes from, for messages.

        Raises:
            StartupError: The URL is none, or names a kind of store that is not supported.
        """
        self.setting = setting
        self._timeout_s = timeout_s
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError) as error:  # a port that is no number is the latter
            raise StartupError(
                f"{setting} is not a SQLAlchemy URL such as sqlite:///visavis.db or "
                "postgresql+psycopg://user:password@host:5432/name"
            ) from error
        self.name = parsed.render_as_string(hide_password=True)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.file: Path | None = None
        """Of a SQLite store."""
        options: dict[str, Any]
        if self.is_sqlite:
            if parsed.database in {None, "", ":memory:"} or str(parsed.database).startswith("file:"):
                raise StartupError(
                    f"{setting}: SQLite in memory or by URI is not supported, name a file such as "
                    "sqlite:///visavis.db"
                )
            self.file = Path(str(parsed.database)).absolute()
            self.name = f"sqlite:///{self.file}"
            options = {"connect_args": {"timeout": timeout_s, "check_same_thread": False}}
        else:
            options = {
                "connect_args": _postgresql_arguments(timeout_s, idle_timeout_s),
                "pool_pre_ping": True,
            }
        try:
            self.engine: Engine = create_engine(
                url,
                pool_size=pool_size,
                max_overflow=0,
                pool_timeout=timeout_s,
                hide_parameters=True,  # an error's message would quote names and templates into the log
                **options,
            )
        except ImportError as error:
            raise StartupError("PostgreSQL needs the extra: pip install 'visavis[postgres]'") from error
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        # Writers follow one another by the lock of the collection's row, and must then see what came before.
        self.writer = self.engine.execution_options(
            visavis_write=True, **({} if self.is_sqlite else {"isolation_level": "READ COMMITTED"})
        )
        # Every statement of a read sees one state, so that a revision and its rows belong together.
        self._reader = (
            self.engine
            if self.is_sqlite
            else self.engine.execution_options(isolation_level="REPEATABLE READ")
        )
        # Reads never wait behind writes that wait for a lock; SQLite has one writer at a time anyway.
        writers = 1 if self.is_sqlite else max(1, pool_size // 2)
        self._reading = ThreadPoolExecutor(max(1, pool_size - writers), thread_name_prefix="reading")
        self._writing = ThreadPoolExecutor(writers, thread_name_prefix="writing")

    def read_now(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run reads in one transaction, on this thread; more than once if need be (see the module).

        Raises:
            DatabaseUnavailableError: The store is locked or unreachable.
        """
        return self._run(self._reader, work, *args, **kwargs)

    def write_now(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run reads and writes in one transaction, on this thread, and commit before returning.

        It runs more than once if need be (see the module), but is committed once.

        Raises:
            DatabaseUnavailableError: The store is locked or unreachable. Nothing was changed.
            OutcomeUnknownError: The connection broke during the commit: the change may be there.
        """
        return self._run(self.writer, work, *args, **kwargs)

    async def read(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``read_now`` on a thread of the pool."""
        return await self._on_thread(self._reading, self.read_now, work, *args, **kwargs)

    async def write(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``write_now`` on a thread of the pool, to its end even if the caller goes away."""
        return await self._on_thread(self._writing, self.write_now, work, *args, **kwargs)

    def make_file(self) -> None:
        """Make the file of a SQLite store, readable to its owner only; one that is there stays as it is."""
        # What stands in the way of making it is told, with its reason, when the store is opened.
        if self.file is not None:
            with contextlib.suppress(OSError):
                os.close(os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def require_file(self) -> None:
        """Refuse to go on without the file of a SQLite store.

        Raises:
            StartupError: It is not there.
        """
        if self.file is not None and not self.file.is_file():
            raise StartupError(
                f"there is no store at {self.file}; go to the folder where it is, or name it with "
                "--database-url or VISAVIS_DATABASE_URL"
            )

    def ping(self) -> None:
        """Ask the database for an answer.

        Raises:
            DatabaseUnavailableError: None came.
        """
        self.read_now(lambda session: session.execute(text("SELECT 1")).scalar_one())

    def close(self) -> None:
        """Finish running work and close every connection."""
        self._reading.shutdown(wait=True)
        self._writing.shutdown(wait=True)
        self.engine.dispose()

    def _run(self, engine: Engine, work: Callable[..., T], *args: object, **kwargs: object) -> T:
        deadline = time.monotonic() + self._timeout_s
        for attempt in range(ATTEMPTS):
            try:
                return _once(engine, work, *args, **kwargs)
            except (DBAPIError, PendingRollbackError, PoolTimeoutError) as error:
                failure = _cause(error)
                if not _is_outage(failure):
                    raise
                logger.warning("the database did not answer: %s", reason(failure))
                pause = random.uniform(0, PAUSE_S * 2**attempt)  # noqa: S311 - no secret
                last = attempt == ATTEMPTS - 1 or time.monotonic() + pause > deadline
                if last or not _may_run_again(failure):
                    if _sqlstate(failure) == _READ_ONLY:
                        self.engine.dispose()  # the next connection may find the server that takes writes
                    raise DatabaseUnavailableError(
                        "the database is locked or cannot be reached; try again"
                    ) from failure
            time.sleep(pause)
        raise AssertionError("the last attempt has returned or raised")

    async def _on_thread(
        self, pool: ThreadPoolExecutor, call: Callable[..., T], *args: object, **kwargs: object
    ) -> T:
        future = pool.submit(call, *args, **kwargs)
        answer = asyncio.wrap_future(future)
        await asyncio.wait([answer], timeout=self._timeout_s)
        # While the database hangs, those who wait for a thread are told so in time, whatever their number.
        if future.cancel():
            raise DatabaseUnavailableError("too much is waiting for the database; try again")
        return await answer


def _once(engine: Engine, work: Callable[..., T], *args: object, **kwargs: object) -> T:
    with Session(engine, expire_on_commit=False) as session:
        session.begin()
        result = work(session, *args, **kwargs)
        session.flush()
        try:
            session.commit()
        except DBAPIError as error:
            if engine.get_execution_options().get("visavis_write") and _is_undecided(error):
                logger.warning("the outcome of a commit is unknown: %s", reason(error))
                raise OutcomeUnknownError(
                    "the connection to the database broke during the commit: the change was made or was not; "
                    "look, or send the request again with the Idempotency-Key that it had"
                ) from error
            raise
        return result


def _cause(error: BaseException) -> BaseException:
    """Return what went wrong first, where SQLAlchemy complains of a session that broke inside a savepoint."""
    while isinstance(error, PendingRollbackError) and error.__context__ is not None:
        error = error.__context__
    return error


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, OperationalError | PoolTimeoutError):
        return True
    return isinstance(error, DBAPIError) and (error.connection_invalidated or _sqlstate(error) == _READ_ONLY)


def _may_run_again(error: BaseException) -> bool:
    """Return whether the transaction, not committed for certain, might succeed on a second attempt."""
    return isinstance(error, DBAPIError) and (error.connection_invalidated or _sqlstate(error) in _GIVEN_UP)


def _is_undecided(error: DBAPIError) -> bool:
    """Return whether a commit that failed may have been made nevertheless."""
    if isinstance(error.orig, sqlite3.Error):
        # The frames of the commit may be in the file although the disk did not confirm them.
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR
    return error.connection_invalidated and _sqlstate(error) != _IDLE


def _sqlstate(error: BaseException) -> str | None:
    state: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state


def reason(error: BaseException) -> str:
    """Return what the database itself says of an error, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _postgresql_arguments(timeout_s: float, idle_timeout_s: float) -> dict[str, Any]:
    milliseconds = int(timeout_s * 1000)
    seconds = max(1, round(timeout_s))
    limits = {
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds,
        # A process that hangs between two statements must not keep the lock of a collection.
        "idle_in_transaction_session_timeout": int(idle_timeout_s * 1000),
    }
    return {
        "connect_timeout": max(2, seconds),
        "options": " ".join(f"-c {name}={value}" for name, value in limits.items()),
        # A host that has vanished answers no statement; without these the system waits a quarter of an hour.
        "keepalives_idle": seconds,
        "keepalives_interval": seconds,
        "keepalives_count": 3,
        "tcp_user_timeout": milliseconds,
    }


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # Python's sqlite3 would open transactions by itself and late; "begin" below does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    # WAL: readers never wait for the writer. FULL: a commit survives a power cut, not only a crash.
    _enter_wal(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _enter_wal(cursor: Any) -> None:  # noqa: ANN401 - sqlite3.Cursor, through SQLAlchemy's protocol
    """Ask for WAL until it is granted: while others open a new file, SQLite refuses at once, not in time."""
    for attempt in range(100):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if attempt == 99 or "locked" not in str(error):
                raise
            time.sleep(0.05)
        else:
            return


def _begin_sqlite(connection: Any) -> None:  # noqa: ANN401 - sqlalchemy.Connection, of an untyped event
    # A transaction that reads first and writes later cannot take the lock if another wrote in between,
    # whatever the timeout; so writers ask for it at once.
    immediate = connection.get_execution_options().get("visavis_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
