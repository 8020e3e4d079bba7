"""Bringing a database to the schema of this release.

Migrations only go forward, and run while older processes still work on the same tables: they add,
and take no lock that waits long. An advisory lock lets one process migrate at a time.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from leveret.errors import ConfigurationError
from leveret.store import partition

__all__ = ["config", "current", "head", "require", "upgrade"]

#: The advisory lock under which one process migrates.
_LOCK = 0x6C65766D  # "levm"


def config() -> Config:
    """Return Alembic's configuration; the migrations are part of the package."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return made


def head() -> str:
    """Return the revision of this release."""
    found = ScriptDirectory.from_config(config()).get_current_head()
    if found is None:
        raise ConfigurationError("the package has no migrations; install it anew")
    return found


def current(engine: Engine) -> str | None:
    """Return the revision of a database; None for one that has none of our tables."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def require(engine: Engine) -> None:
    """Raise `ConfigurationError` unless the database has the schema of this release, or a newer."""
    found = current(engine)
    known = {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}
    if found is None or (found in known and found != head()):
        raise ConfigurationError(
            f"the database is at revision {found or 'none'}, and this release needs {head()}; "
            "run `leveret migrate`"
        )


def upgrade(engine: Engine, revision: str = "head") -> tuple[str | None, str | None]:
    """Bring a database to ``revision``, with partitions; return its revision before and after."""
    with engine.connect() as connection:
        # A lock of the session, since each migration is a transaction: not through PgBouncer.
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        try:
            before = MigrationContext.configure(connection).get_current_revision()
            connection.commit()
            settings = config()
            settings.attributes["connection"] = connection
            command.upgrade(settings, revision)
            after = MigrationContext.configure(connection).get_current_revision()
            partition.ensure(connection)
            connection.commit()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            connection.commit()
    return before, after
