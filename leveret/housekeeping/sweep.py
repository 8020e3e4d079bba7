"""Deleting every hour what retention would delete once a day, where that is cheap."""

from __future__ import annotations

import structlog
from sqlalchemy import Engine

from leveret.store import engine as make_engine
from leveret.store import partition, retention

__all__ = ["sweep"]

log = structlog.get_logger("leveret.housekeeping")


def sweep(database: Engine, *, claims_url: str | None = None) -> dict[str, int]:
    """Delete what says itself when it may be forgotten; return how many rows of which tables.

    The partitions of the days to come are made, too, if they are missing. Claims are deleted where
    they are: in the database of ``claims_url``, if they have one of their own.
    """
    with database.begin() as connection:
        partition.ensure(connection)
    deleted = retention.sweep(database)
    if claims_url is not None:
        claims = make_engine(claims_url, pool_size=1, application="leveret.sweep")
        try:
            deleted["claims"] += retention.sweep(claims, tables=("claims",))["claims"]
        finally:
            claims.dispose()
    if any(deleted.values()):
        log.info("housekeeping.swept", **{t: count for t, count in deleted.items() if count})
    return deleted
