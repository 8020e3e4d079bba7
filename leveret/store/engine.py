"""Connections to PostgreSQL: psycopg 3 under SQLAlchemy, pooled.

Everything here works through PgBouncer in transaction mode: no prepared statements are kept on the
server, and nothing relies on the session between transactions. The two things that do (``LISTEN``
and session-level advisory locks) use a connection of their own, to `listen_url`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from leveret.errors import ConfigurationError

__all__ = ["async_engine", "connect_options", "conninfo", "engine", "labels_of"]

#: Seconds to wait for a connection to be made.
_CONNECT_SECONDS = 5


def engine(url: str, *, pool_size: int = 5, application: str = "leveret", **options: Any) -> Engine:
    """Return an engine with a pool of at most ``pool_size`` connections; it connects when used."""
    return sqlalchemy.create_engine(
        _parse(url), **_options(application, pool_size), **options, future=True
    )


def async_engine(
    url: str, *, pool_size: int = 10, application: str = "leveret", **options: Any
) -> AsyncEngine:
    """Return the same as `engine`, for asyncio."""
    return create_async_engine(_parse(url), **_options(application, pool_size), **options)


def conninfo(url: str, *, variable: str = "LEVERET_DATABASE_URL") -> str:
    """Return a database's URL as libpq and psycopg read it.

    Raises `ConfigurationError` naming the ``variable`` that it came from when it cannot be read.
    """
    return _parse(url, variable).set(drivername="postgresql").render_as_string(hide_password=False)


def connect_options(application: str) -> dict[str, Any]:
    """Return how psycopg connects: as ``application``, patient for seconds, fit for PgBouncer."""
    return {
        "application_name": application,
        "connect_timeout": _CONNECT_SECONDS,
        "prepare_threshold": None,
        # A peer that is gone without a word is noticed within half a minute.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }


def labels_of(urls: Sequence[str]) -> list[str]:
    """Name databases for logs and metrics: by their name, and their host where names repeat."""
    parsed = [make_url(url) for url in urls]
    names = [url.database or "" for url in parsed]
    return [
        name if names.count(name) == 1 else f"{url.host}:{url.port or 5432}/{name}"
        for name, url in zip(names, parsed, strict=True)
    ]


def _parse(url: str, variable: str = "LEVERET_DATABASE_URL") -> URL:
    try:
        parsed = make_url(url.strip())
        scheme = urlsplit(url.strip()).scheme
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"{variable} cannot be read; write it as "
            "postgresql://user:password@host:5432/database, percent-encoded"
        ) from None
    if scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"{variable} must look like postgresql://user:password@host:5432/database, "
            f"but its scheme is {scheme!r}"
        )
    return parsed.set(drivername="postgresql+psycopg")


def _options(application: str, pool_size: int) -> dict[str, Any]:
    return {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "connect_args": connect_options(application),
    }
