"""The transaction that a job is written into: what the caller has, recognised by its type.

Nothing is imported for it. Who holds a `Session` has loaded SQLAlchemy; what is not loaded cannot
have made the object that was given.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from leveret.errors import OutboxError

__all__ = ["execute", "execute_async"]

#: libpq's word for a connection on which no transaction has begun.
_IDLE = 0


def execute(given: object, statement: str, values: Mapping[str, object]) -> None:
    """Run a statement in the transaction of a connection, cursor or session.

    The statement's parameters are written ``:name``. Raises `OutboxError` for what is none of
    these, has no transaction, or is for asyncio.
    """
    if (psycopg := _psycopg_connection(given, "Connection", "Cursor")) is not None:
        _require_transaction(psycopg)
        _module("psycopg").Cursor(psycopg).execute(_in_psycopg(statement, values), values)
    elif (found := _sqlalchemy(given)) is not None:
        connection = found.connection() if _is(given, _SESSIONS) else found
        _require_postgresql(connection)
        connection.execute(_module("sqlalchemy").text(statement), values)
    elif _is(given, (*_ASYNC_SESSIONS, *_ASYNC_CONNECTIONS)) or _async_psycopg(given) is not None:
        raise OutboxError(
            f"{_name(given)} is for asyncio: use `await outbox.enqueue_async(…)`, "
            "or `enqueue_many_async`"
        )
    else:
        raise OutboxError(_unknown(given))


async def execute_async(given: object, statement: str, values: Mapping[str, object]) -> None:
    """Do the same as `execute` for what is made for asyncio."""
    if (psycopg := _async_psycopg(given)) is not None:
        _require_transaction(psycopg)
        cursor = _module("psycopg").AsyncCursor(psycopg)
        await cursor.execute(_in_psycopg(statement, values), values)
    elif _is(given, _ASYNC_SESSIONS):
        connection = await given.connection()  # type: ignore[attr-defined]
        await _execute_on(connection, statement, values)
    elif _is(given, _ASYNC_CONNECTIONS):
        await _execute_on(given, statement, values)
    elif _sqlalchemy(given) is not None or _psycopg_connection(given, "Connection", "Cursor"):
        raise OutboxError(f"{_name(given)} is not for asyncio: use `outbox.enqueue(…)`")
    else:
        raise OutboxError(_unknown(given))


async def _execute_on(connection: Any, statement: str, values: Mapping[str, object]) -> None:
    await connection.run_sync(_require_postgresql)
    await connection.execute(_module("sqlalchemy").text(statement), values)


# ------------------------------------------------------------------------------------- recognising

_SESSIONS = ("sqlalchemy.orm:Session", "sqlalchemy.orm:scoped_session")
_CONNECTIONS = ("sqlalchemy.engine:Connection",)
_ASYNC_SESSIONS = (
    "sqlalchemy.ext.asyncio:AsyncSession",
    "sqlalchemy.ext.asyncio:async_scoped_session",
)
_ASYNC_CONNECTIONS = ("sqlalchemy.ext.asyncio:AsyncConnection",)


def _module(name: str) -> Any:
    return sys.modules[name]


def _classes(paths: tuple[str, ...]) -> Iterator[type]:
    for path in paths:
        module, _, name = path.partition(":")
        found = getattr(sys.modules.get(module), name, None)
        if found is not None:
            yield found


def _is(given: object, paths: tuple[str, ...]) -> bool:
    return isinstance(given, tuple(_classes(paths)))


def _sqlalchemy(given: object) -> Any:
    return given if _is(given, (*_SESSIONS, *_CONNECTIONS)) else None


def _psycopg_connection(given: object, connection: str, cursor: str) -> Any:
    """Return psycopg's connection, or that of its cursor; None for anything else."""
    if _is(given, (f"psycopg:{connection}",)):
        return given
    if _is(given, (f"psycopg:{cursor}",)):
        return given.connection  # type: ignore[attr-defined]
    return None


def _async_psycopg(given: object) -> Any:
    return _psycopg_connection(given, "AsyncConnection", "AsyncCursor")


def _require_transaction(connection: Any) -> None:
    if connection.autocommit and connection.info.transaction_status == _IDLE:
        raise OutboxError(
            "the connection is in autocommit mode, so the job would not be part of a transaction; "
            "open one with `with connection.transaction():`, or connect without autocommit"
        )


def _require_postgresql(connection: Any) -> None:
    if connection.dialect.name != "postgresql":
        raise OutboxError(
            f"the outbox is a table in PostgreSQL, and this connects to {connection.dialect.name}"
        )
    driver = connection.connection.dbapi_connection
    if getattr(driver, "autocommit", False):
        raise OutboxError(
            "the connection is in autocommit mode, so the job would not be part of a transaction; "
            "take it from an engine without isolation_level='AUTOCOMMIT'"
        )


def _in_psycopg(statement: str, values: Mapping[str, object]) -> str:
    for name in values:
        statement = statement.replace(f":{name}", f"%({name})s")
    return statement


def _name(given: object) -> str:
    return f"{type(given).__module__}.{type(given).__qualname__}"


def _unknown(given: object) -> str:
    return (
        "a job is written through a Session or Connection of SQLAlchemy 2, or a Connection or "
        f"Cursor of psycopg 3, and this is {_name(given)}"
    )
