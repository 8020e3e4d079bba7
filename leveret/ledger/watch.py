"""News of jobs for those who wait: ``NOTIFY leveret_jobs`` for the jobs in ``watches``."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.engine import Connection

__all__ = ["CHANNEL", "notify"]

CHANNEL = "leveret_jobs"

_NOTIFY = text(
    "SELECT pg_notify('leveret_jobs', job_id)"
    " FROM (SELECT DISTINCT job_id FROM watches WHERE job_id = ANY(:ids)) AS watched"
)


def notify(connection: Connection, ids: Collection[str]) -> None:
    """Tell whoever watches these jobs that they have changed, when the transaction commits."""
    if ids:
        connection.execute(_NOTIFY, {"ids": list(ids)})
