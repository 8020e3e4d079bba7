"""Looking for slots of schedules that nobody accounts for, and logging each new one once.

What was found before is in the result of the check before, in the ledger: no table is needed, and
whichever worker runs the next check knows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection

from leveret.housekeeping.actors import CHECK
from leveret.housekeeping.latest import latest
from leveret.schedules import gaps

__all__ = ["check"]

log = structlog.get_logger("leveret.housekeeping")

#: Findings that are logged, and remembered, by name.
_NAMED = 100
#: A check before that is older is not asked.
_BEFORE = timedelta(hours=6)
_NOW = text("SELECT clock_timestamp()")


def check(database: Engine, *, keep: timedelta, grace: timedelta = gaps.GRACE) -> Mapping[str, Any]:
    """Look, log what is new, and return what the check after this has to know.

    ``gaps`` is the number of slots that are lost: passed over, or fired without a job. ``keep`` is
    for how long retention keeps rows, ``grace`` how long a slot may be undecided.
    """
    with database.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        known = _known(connection)
        found = gaps.find(connection, keep=keep, grace=grace)
    lost: list[tuple[str, datetime, str | None]] = [
        *((gap.schedule, gap.slot, None) for gap in found.gaps),
        *((gap.schedule, gap.slot, gap.job_id) for gap in found.without_job),
    ]
    named = []
    latest_first = sorted(lost, key=lambda one: (one[1], one[0]), reverse=True)
    for schedule, slot, job_id in latest_first[:_NAMED]:
        name = f"{schedule} {slot.isoformat()}"
        named.append(name)
        if name not in known:
            log.warning(
                "schedule.gap",
                schedule=schedule,
                slot=slot.isoformat(),
                job_id=job_id,
                why="it was passed over" if job_id is None else "nobody knows its job",
            )
    for late in found.overdue:
        log.warning(
            "schedule.overdue",
            schedule=late.schedule,
            since=late.slot.isoformat(),
            slots=late.count,
        )
    return {
        "gaps": len(lost),
        "overdue": len(found.overdue),
        "unreadable": [one.schedule for one in found.unreadable][:_NAMED],
        "named": named,
    }


def _known(connection: Connection) -> frozenset[str]:
    now: datetime = connection.execute(_NOW).scalar_one()
    before = latest(connection, CHECK, after=now - _BEFORE)
    if before is None or before.result is None:
        return frozenset()
    try:
        return frozenset(json.loads(before.result)["named"])
    except (ValueError, TypeError, LookupError):
        return frozenset()
