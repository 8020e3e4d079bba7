"""The demonstration's own database beside the stack's, new for every run."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from compose.demo.errors import DemoError
from leveret.errors import LeveretError
from leveret.store import engine
from leveret.store.engine import conninfo
from leveret.store.migrate import upgrade

__all__ = ["DATABASE", "create_database"]

DATABASE = "leveret_demo"


def create_database(url: str) -> str:
    """Make the database anew next to the one at ``url``, with its tables; return its URL."""
    name = sql.Identifier(DATABASE)
    own = urlsplit(url)._replace(path=f"/{DATABASE}").geturl()
    try:
        with psycopg.connect(conninfo(url), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        database = engine(own, pool_size=1)
        try:
            upgrade(database)
        finally:
            database.dispose()
    except (psycopg.Error, LeveretError) as error:
        raise DemoError(
            f"cannot make the database {DATABASE!r}: {' '.join(str(error).split())}. "
            "Does the stack run? `make demo` starts it"
        ) from error
    return own
