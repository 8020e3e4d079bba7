"""Databases for tests, on the server that `make up` started."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from compose.native import envfile

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
        _run(url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _run(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)
