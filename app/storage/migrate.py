"""Apply and check the Alembic migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.errors import StartupError
from app.resources import resource_dir
from app.storage.database import Database, DatabaseUnavailableError, Session, reason

_LOCK = 8210471
"""Number of the advisory lock that migrations of PostgreSQL hold; any that others do not use."""


def alembic_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for this installation, bound to an open connection if given."""
    config = Config()
    config.set_main_option("script_location", str(resource_dir("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def prepare(database: Database) -> None:
    """Bring a SQLite store to the current schema; any other must be there already.

    Raises:
        StartupError: The store cannot be opened or its schema is not current; the message says what to do.
    """
    current, head = current_and_head(database)
    if current != head and database.is_sqlite:
        upgrade(database)
    require_current(database)


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision; waits for another process that is doing the same.

    Raises:
        StartupError: The store cannot be written, or its schema is one that this version does not know.
    """
    with explained(database), _alone(database) as connection:
        command.upgrade(alembic_config(connection), revision)


def downgrade(database: Database, revision: str) -> None:
    """Take the schema back to a revision; ``base`` drops every table.

    Raises:
        StartupError: As ``upgrade``.
    """
    with explained(database), _alone(database) as connection:
        command.downgrade(alembic_config(connection), revision)


def current_and_head(database: Database) -> tuple[str | None, str | None]:
    """Return the schema's revision in the database and the newest one of this installation.

    Raises:
        StartupError: The store cannot be opened.
    """
    with explained(database):
        current = database.read_now(_current)
    return current, ScriptDirectory.from_config(alembic_config()).get_current_head()


def require_current(database: Database) -> None:
    """Refuse to go on with another schema than the code's.

    Raises:
        StartupError: The schema is older or newer; the message says what to do.
    """
    current, head = current_and_head(database)
    if current != head:
        raise StartupError(
            f"the database schema is at {current or 'nothing'}, this version needs {head}: "
            "run 'visavis db upgrade'"
        )


@contextmanager
def explained(database: Database) -> Iterator[None]:
    """Turn a failure of the store, while starting, into one message that names it and says why.

    Raises:
        StartupError: Instead of whatever the driver or Alembic raised.
    """
    try:
        yield
    except DatabaseUnavailableError as error:
        cause = reason(error.__cause__ or error)
        raise StartupError(_unusable(database, cause)) from error
    except SQLAlchemyError as error:
        raise StartupError(_unusable(database, reason(error))) from error
    except CommandError as error:
        raise StartupError(
            f"the schema of the database {database.name} was made by another version of visavis ({error}); "
            "run that version, or restore a backup"
        ) from error


def _unusable(database: Database, cause: str) -> str:
    return f"the database {database.name} cannot be used: {cause} (setting {database.setting})"


def _current(session: Session) -> str | None:
    return MigrationContext.configure(session.connection()).get_current_revision()


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """Yield a connection beside which no other migration runs."""
    with database.writer.connect() as connection:
        try:
            if database.is_sqlite:
                # Alembic copies tables that SQLite cannot alter, and dropping the old one would cascade.
                # The pragma does nothing inside a transaction, so it goes to the driver.
                connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
                with connection.begin():
                    yield connection
            else:
                # The others wait here as long as it takes, and then find nothing to do.
                for statement in (
                    "SET statement_timeout = 0",
                    "SET lock_timeout = 0",
                    f"SELECT pg_advisory_lock({_LOCK})",
                    # A table in use must not keep every later request waiting behind the migration.
                    "SET lock_timeout = '10s'",
                ):
                    connection.exec_driver_sql(statement)
                connection.commit()
                yield connection
        finally:
            connection.invalidate()  # its settings and lock must not go back into the pool
