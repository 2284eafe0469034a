"""Apply and check the Alembic migrations."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from app.errors import StartupError
from app.resources import resource_dir
from app.storage.database import Database


def alembic_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for this installation, bound to an open connection if given."""
    config = Config()
    config.set_main_option("script_location", str(resource_dir("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision; waits for another process that is doing the same."""
    with database.engine.connect() as connection:
        if not database.is_sqlite:
            # One migration at a time: the others wait here and then find nothing to do.
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("SET lock_timeout = 0")
            connection.exec_driver_sql("SELECT pg_advisory_lock(8210471)")
            connection.commit()
        command.upgrade(alembic_config(connection), revision)
        if not database.is_sqlite:
            connection.exec_driver_sql("SELECT pg_advisory_unlock(8210471)")
            connection.commit()
            connection.invalidate()  # its session settings differ from the pool's


def current_and_head(database: Database) -> tuple[str | None, str | None]:
    """Return the schema's revision in the database and the newest one of this installation."""
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
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
