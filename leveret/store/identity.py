"""From a job's id to its time, which is half of its key.

An id that Leveret made is a UUIDv7 and carries its time. Any other string is a valid id, too; for
these, and for an id whose time has no partition (it was made long ago, or by a clock that is
wrong), the table ``job_ids`` remembers when it was first seen. What ``job_ids`` says comes first:
a partition that appears later does not move a job.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime

from sqlalchemy import text
from sqlalchemy.engine import Connection

from leveret.message import job_time

__all__ = ["find_times", "is_storable", "own_time", "resolve_times"]

_KNOWN = text("SELECT id, created_at FROM job_ids WHERE id = ANY(:ids)")
_REMEMBER = text(
    "INSERT INTO job_ids (id, created_at) SELECT unnest(CAST(:ids AS text[])), :now"
    " ON CONFLICT (id) DO NOTHING"
)


def is_storable(job_id: str) -> bool:
    """Tell whether a text can be the id of a job in the ledger, where PostgreSQL keeps it."""
    try:
        return 0 < len(job_id.encode()) <= 255 and "\0" not in job_id
    except UnicodeEncodeError:
        return False


def own_time(job_id: str) -> datetime | None:
    """Return the time that an id carries; None for ids of others."""
    seconds = job_time(job_id)
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def find_times(connection: Connection, ids: Iterable[str]) -> dict[str, datetime]:
    """Return the times of jobs as far as they are known; a row may still be missing."""
    wanted = list(dict.fromkeys(ids))
    times = {job_id: time for job_id in wanted if (time := own_time(job_id)) is not None}
    if wanted:
        times |= {row.id: row.created_at for row in connection.execute(_KNOWN, {"ids": wanted})}
    return times


def resolve_times(
    connection: Connection, ids: Collection[str], *, now: datetime, partitions: Collection[date]
) -> Mapping[str, datetime]:
    """Return the time of every job, and remember it for those whose id does not tell.

    ``partitions`` are the days that there are partitions for. In the caller's transaction; ids are
    taken in order, so that two callers do not wait for each other in a circle.
    """
    times = {}
    strangers = []
    known = {}
    if ids:
        known = {row.id: row.created_at for row in connection.execute(_KNOWN, {"ids": list(ids)})}
    for job_id in ids:
        if job_id in known:
            times[job_id] = known[job_id]
            continue
        time = own_time(job_id)
        if time is not None and time.date() in partitions:
            times[job_id] = time
        else:
            strangers.append(job_id)
    if strangers:
        strangers.sort()
        connection.execute(_REMEMBER, {"ids": strangers, "now": now})
        # What another process has remembered meanwhile counts, not what this one wanted.
        rows = connection.execute(_KNOWN, {"ids": strangers})
        times |= {row.id: row.created_at for row in rows}
    return times
