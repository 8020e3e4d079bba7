"""From a row of ``schedules`` to what is to become of it. Pure, but for spans."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from leveret.errors import InvalidJob
from leveret.outbox.row import entry_of
from leveret.schedules.decision import decide
from leveret.schedules.definition import Definition
from leveret.schedules.job import job_of
from scheduler import spans
from scheduler.fire import Decided, Plan

__all__ = ["REASON_INVALID", "plan_of"]

#: Why a slot is skipped whose job breaks the wire contract.
REASON_INVALID = "invalid-job"


def plan_of(
    row: Mapping[str, Any],
    definition: Definition,
    *,
    now: datetime,
    grace: timedelta,
    max_body_bytes: int,
) -> Plan:
    """Decide what becomes of a schedule at ``now``, the database's time at which it was read.

    ``grace`` is how late a slot may be and not be missed.
    """
    decision = decide(definition, after=row["last_slot"] or row["since"], now=now, grace=grace)
    slots = [
        Decided(
            slot=run.first,
            until=None if run.last == run.first else run.last,
            count=run.count,
            outcome="skipped",
            reason=run.reason,
            due_at=definition.due(run.first),
        )
        for run in decision.skipped
    ]
    slots += [_fired(definition, slot, now, max_body_bytes) for slot in decision.fire]
    return Plan(
        name=row["name"],
        version=row["version"],
        since=row["since"],
        last_slot=row["last_slot"],
        new_last_slot=row["last_slot"] if decision.last is None else decision.last,
        next_due_at=decision.next_due,
        slots=tuple(slots),
    )


def _fired(definition: Definition, slot: datetime, now: datetime, limit: int) -> Decided:
    due = definition.due(slot)
    try:
        job, span = spans.begin(job_of(definition, slot), slot, due)
        entry = entry_of(job, now=now.timestamp(), limit=limit)
    except InvalidJob:
        return Decided(slot=slot, outcome="skipped", reason=REASON_INVALID, due_at=due)
    return Decided(slot=slot, outcome="fired", due_at=due, job=entry, span=span)
