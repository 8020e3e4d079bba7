"""Doing something in one process at a time, kept apart by an advisory lock of the database.

The lock is that of a transaction, on a connection that does nothing else: it ends with the process
or its connection, whatever happens, and works through PgBouncer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Engine, text

from leveret.store.engine import engine as make_engine

__all__ = ["alone"]

_TRY = text("SELECT pg_try_advisory_xact_lock(:key)")


@contextmanager
def alone(engine: Engine, key: int, *, patience: timedelta = timedelta(0)) -> Iterator[bool]:
    """Enter with True when nobody else is inside; with False when somebody still is.

    The connection is one beside those of ``engine``.
    """
    deadline = time.monotonic() + patience.total_seconds()
    url = engine.url.render_as_string(hide_password=False)
    own = make_engine(url, pool_size=1, application="leveret lock")
    try:
        with own.begin() as connection:
            while not (got := bool(connection.scalar(_TRY, {"key": key}))):
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.05)
            # It idles for as long as the others work. And as long as a SELECT is the last thing it
            # did, it keeps the snapshot of that, for which DETACH and the like would wait.
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            yield got
    finally:
        own.dispose()
