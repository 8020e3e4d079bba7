"""A private PostgreSQL for the benchmarks alone; it starts when first asked for."""

import secrets
from typing import Self

import psycopg
from psycopg import sql

from compose.native.paths import Checkout
from compose.native.postgres import PostgresServer


class Database:
    """One server with everybody's default settings, and a new database whenever one is asked for.

    Commits wait for the disk, as they do in production.
    """

    def __init__(self) -> None:
        self._server: PostgresServer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.destroy()

    def create(self, name: str) -> str:
        """Return the URL of an empty database of that name; what was in it is gone."""
        if self._server is None:
            data = Checkout.here().new_scratch("bench-postgres")
            self._server = PostgresServer(data, password=secrets.token_urlsafe(18))
            self._server.start()
        url = self._server.url()
        identifier = sql.Identifier(name)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier)
            )
            connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        return f"{url.rpartition('/')[0]}/{name}"
