"""Databases for tests, on the server that `make up` started."""

from __future__ import annotations

import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from compose.native import envfile
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compose.native.paths import Checkout


@contextmanager
def temporary_database(checkout: Checkout, label: str) -> Iterator[str]:
    """Create an empty database, yield its URL, and drop it with whatever is connected to it."""
    url = envfile.read(checkout.env_d / "owner.env")["LEVERET_DATABASE_URL"]
    name = f"test_{label}_{secrets.token_hex(4)}"
    _run(url, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlsplit(url)._replace(path=f"/{name}").geturl()
    finally:
        _drop(url, sql.Identifier(name))


def _drop(url: str, name: sql.Identifier) -> None:
    def gone() -> bool:
        try:
            _run(url, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        except psycopg.errors.InsufficientPrivilege:
            # An autovacuum worker is in it, whom only a plain DROP sends away.
            with suppress(psycopg.errors.ObjectInUse):
                _run(url, sql.SQL("DROP DATABASE IF EXISTS {}").format(name))
            return False
        return True

    wait_until(gone, timeout=60, what="the database is dropped", every=0.2)


def _run(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)
