"""Bringing a database to the schema of this release.

Migrations only go forward, and run while older processes still work on the same tables: they add,
and wait for no lock longer than `LOCK_SECONDS`. Whoever waits for a lock makes those behind wait,
too, so a migration that is in somebody's way gives up, lets them pass, and tries again.

One process migrates at a time; the others wait for it, and then find nothing to do. What keeps them
apart is an advisory lock in a transaction of its own, so all of this works through PgBouncer, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import errors
from sqlalchemy import Engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from leveret.errors import ConfigurationError, LeveretError
from leveret.store import partition
from leveret.store.exclusive import alone

__all__ = ["LOCK_SECONDS", "MigrationError", "config", "current", "head", "require", "upgrade"]

#: How long a migration waits for a lock on a table, and whoever comes after it waits, too.
LOCK_SECONDS = 2.0
#: How long it tries altogether, and how long another migration may take.
_PATIENCE_SECONDS = 300.0
#: The advisory lock under which one process migrates.
_LOCK = 0x6C65766D  # "levm"

T = TypeVar("T")


class MigrationError(LeveretError):
    """The database was not brought to the schema of this release; it may be on the way."""


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
        return _revision(connection)


def require(engine: Engine) -> None:
    """Raise `ConfigurationError` unless the database has the schema of this release, or a newer."""
    found = current(engine)
    if found is None or (found in _known() and found != head()):
        raise ConfigurationError(
            f"the database is at revision {found or 'none'}, and this release needs {head()}; "
            "run `leveret migrate`"
        )


def upgrade(
    engine: Engine, revision: str = "head", *, patience_seconds: float = _PATIENCE_SECONDS
) -> tuple[str | None, str | None]:
    """Bring a database to ``revision``, with partitions; return its revision before and after.

    Raises `ConfigurationError` when the database is of a newer release, and
    `MigrationError` when somebody is in the way for longer than ``patience_seconds``.
    """
    deadline = time.monotonic() + patience_seconds
    patience = timedelta(seconds=patience_seconds)
    with alone(engine, _LOCK, patience=patience) as lucky, engine.connect() as connection:
        if not lucky:
            raise MigrationError("another process migrates the database, and does not end")
        before = _revision(connection)
        connection.rollback()
        if before is not None and before not in _known():
            raise ConfigurationError(
                f"the database is at revision {before}, which this release does not know "
                f"(its own is {head()}): a newer release has migrated it, so use that one"
            )
        event.listen(connection, "begin", _be_brief)

        def migrate() -> None:
            settings = config()
            settings.attributes["connection"] = connection
            command.upgrade(settings, revision)

        def make_partitions() -> None:
            partition.ensure(connection)
            connection.commit()

        _persist(connection, migrate, deadline)
        after = _revision(connection)
        connection.rollback()
        _persist(connection, make_partitions, deadline)
    return before, after


def _be_brief(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS * 1000:.0f}ms'")


def _persist(connection: Connection, step: Callable[[], T], deadline: float) -> T:
    """Take a step, again and again while it cannot have its locks.

    Each migration is a transaction, so that those before the one in trouble are not repeated.
    """
    while True:
        try:
            return step()
        except DBAPIError as error:
            connection.rollback()
            if not isinstance(error.orig, errors.LockNotAvailable | errors.DeadlockDetected):
                raise
            if time.monotonic() > deadline:
                reason = " ".join(str(error.orig).split())
                raise MigrationError(
                    f"a table that the migration changes stays locked ({reason}); look for long "
                    "transactions in pg_stat_activity, then run it again"
                ) from error
        time.sleep(LOCK_SECONDS / 2)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}
