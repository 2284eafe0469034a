"""The connection to the SQL store, and the transactions around it.

Work runs as functions of a session inside ``read`` or ``write``, on a small pool of threads, so that the
event loop never waits for the database and a transaction never spans an encoding.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import BusyError, StartupError

__all__ = ["Database", "DatabaseUnavailableError", "Session"]

logger = logging.getLogger("visavis.storage")

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseUnavailableError(BusyError):
    """The database cannot be reached or did not answer in time; nothing was changed."""


class Database:
    """An engine and the threads that use it."""

    def __init__(self, url: str, *, timeout_s: float, pool_size: int) -> None:
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError) as error:  # a port that is no number is the latter
            raise StartupError(
                "VISAVIS_DATABASE_URL is not a SQLAlchemy URL such as sqlite:///visavis.db or "
                "postgresql+psycopg://user:password@host:5432/name"
            ) from error
        self.name = parsed.render_as_string(hide_password=True)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        options: dict[str, Any]
        if self.is_sqlite:
            if parsed.database in {None, "", ":memory:"} or str(parsed.database).startswith("file:"):
                raise StartupError(
                    "VISAVIS_DATABASE_URL: SQLite in memory or by URI is not supported, name a file such as "
                    "sqlite:///visavis.db"
                )
            self._file = Path(str(parsed.database)).absolute()
            self.name = f"sqlite:///{self._file}"
            options = {"connect_args": {"timeout": timeout_s, "check_same_thread": False}}
        else:
            milliseconds = int(timeout_s * 1000)
            options = {
                "connect_args": {
                    "connect_timeout": max(2, round(timeout_s)),
                    "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
                },
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
        """Run reads in one transaction, on this thread."""
        return self._run(self._reader, work, *args, **kwargs)

    def write_now(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run reads and writes in one transaction, on this thread, and commit before returning.

        Raises:
            DatabaseUnavailableError: The store is locked or unreachable. Nothing was changed, unless the
                connection broke during the commit itself, in which case the change may be there.
        """
        return self._run(self.writer, work, *args, **kwargs)

    async def read(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``read_now`` on a thread of the pool."""
        return await _on_thread(self._reading, self.read_now, work, *args, **kwargs)

    async def write(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``write_now`` on a thread of the pool, to its end even if the caller goes away."""
        return await _on_thread(self._writing, self.write_now, work, *args, **kwargs)

    def make_file(self) -> None:
        """Make the file of a SQLite store, readable to its owner only; one that is there stays as it is."""
        # What stands in the way of making it is told, with its reason, when the store is opened.
        if self.is_sqlite:
            with contextlib.suppress(OSError):
                os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def require_file(self) -> None:
        """Refuse to go on without the file of a SQLite store.

        Raises:
            StartupError: It is not there.
        """
        if self.is_sqlite and not self._file.is_file():
            raise StartupError(
                f"there is no store at {self._file}; go to the folder where it is, or name it with "
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

    @staticmethod
    def _run(engine: Engine, work: Callable[..., T], *args: object, **kwargs: object) -> T:
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                return work(session, *args, **kwargs)
        except (OperationalError, PoolTimeoutError) as error:
            logger.warning("the database did not answer: %s", reason(error))
            raise DatabaseUnavailableError(
                "the database is locked or cannot be reached; try again"
            ) from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseUnavailableError("the connection to the database broke; try again") from error
            raise


def reason(error: BaseException) -> str:
    """Return what the database itself says of an error, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


async def _on_thread(pool: ThreadPoolExecutor, call: Callable[..., T], *args: object, **kwargs: object) -> T:
    return await asyncio.wrap_future(pool.submit(call, *args, **kwargs))


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
