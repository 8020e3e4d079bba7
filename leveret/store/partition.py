"""Partitions of ``jobs`` and ``attempts``: a day each, created ahead, dropped by retention.

Names say the day in UTC: ``jobs_p20260131``. There is no default partition, so that one can be
detached ``CONCURRENTLY``; a job whose time has no partition is filed under the day on which it was
first seen (see `leveret.store.identity`).

A partition is made as a table of its own and then attached, and detached before it is dropped:
neither holds a lock that readers or writers of the parent would wait for.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import text
from sqlalchemy.engine import Connection

__all__ = [
    "AHEAD",
    "BEHIND",
    "PARTITIONED",
    "day_of",
    "days",
    "ensure",
    "is_partition",
    "name_of",
]

PARTITIONED = ("jobs", "attempts")
#: Partitions that are made before their time.
AHEAD = timedelta(days=7)
#: Jobs are published with some delay after their id was made.
BEHIND = timedelta(days=1)
#: The advisory lock (of the transaction) under which partitions are made and dropped.
_LOCK = 0x6C657670  # "levp"

_NAME = re.compile(r"(?:jobs|attempts)_p(\d{8})")


def name_of(table: str, day: date) -> str:
    """Return the name of the partition of a table for a day."""
    return f"{table}_p{day:%Y%m%d}"


def day_of(name: str) -> date | None:
    """Return the day of a partition, by its name; None for other tables."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        return datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def is_partition(table: str) -> bool:
    """Tell whether a table is a partition, by its name."""
    return _NAME.fullmatch(table) is not None


def days(connection: Connection) -> set[date]:
    """Return the days (UTC) for which there are partitions."""
    names = connection.execute(
        text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = to_regclass('jobs') AND NOT i.inhdetachpending"
        )
    ).scalars()
    return {day for name in names if (day := day_of(name)) is not None}


def ensure(connection: Connection, *, now: datetime | None = None) -> set[date]:
    """Make the partitions from a day ago to a week ahead that are missing; return all days.

    Idempotent, and safe from several processes. In the caller's transaction, which should be short.
    """
    today = (now or datetime.now(UTC)).astimezone(UTC).date()
    wanted = {today + timedelta(days=offset) for offset in range(-BEHIND.days, AHEAD.days + 1)}
    if not wanted - days(connection):
        return days(connection)
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    present = days(connection)
    for day in sorted(wanted - present):
        for table in PARTITIONED:
            _create(connection, table, day)
    return present | wanted


def _create(connection: Connection, table: str, day: date) -> None:
    name = name_of(table, day)
    start = datetime.combine(day, time.min, UTC)
    end = start + timedelta(days=1)
    connection.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"))
    connection.execute(
        text(
            f"ALTER TABLE {table} ATTACH PARTITION {name}"
            f" FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"
        )
    )
