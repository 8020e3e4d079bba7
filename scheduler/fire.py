"""The fire: what has been decided about some schedules, made true by one statement, or refused.

The statement does, for up to 500 schedules at once,

1. the lease: it must be this process's, of this epoch, and not expired (`leveret.store.lease`).
   Otherwise nothing is done at all;
2. the schedule: its row must be as it was read (`version`, `since`, `last_slot`), not paused, and
   not locked by somebody who is changing it right now; and what is fired must be due by the
   database's clock. Then its ``last_slot`` and ``next_due_at`` move on;
3. the slot: a row in ``schedule_slots``, whose key is the schedule and the slot. Where one is
   already, nothing follows: the slot has had its job;
4. the job: a row in the outbox, with an id derived from the schedule and the slot.

As it is one statement in autocommit mode, no process can be stopped in the middle of it, holding
locks: either the database has not got it yet, and then judges it by the lease when it does, or the
database carries it out by itself. When the answer is lost nobody need know what became of it: if it
was carried out, the row's ``last_slot`` has moved, and the same statement again is refused.
"""

# ruff: noqa: S608 - the statement is put together from constants

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from leveret.outbox.row import Entry
from leveret.store.lease import FENCE, Runner
from scheduler.spans import Firing

__all__ = ["Decided", "Fired", "Plan", "Verdict", "fire"]


class Verdict(StrEnum):
    """What became of a plan."""

    DONE = "done"
    #: The lease is not ours any more; nothing was done for any plan.
    STALE = "stale"
    #: The schedule was changed, paused or removed after it was read, or another has fired it.
    CHANGED = "changed"
    #: By the database's clock it is not due yet.
    EARLY = "early"
    #: Somebody has locked the schedule's row.
    BUSY = "busy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """A slot that has been decided on, or many that are skipped for one reason."""

    slot: datetime
    until: datetime | None = None
    count: int | None = 1
    #: fired, skipped or queued.
    outcome: str
    reason: str | None = None
    due_at: datetime
    #: The job, of a slot that is fired.
    job: Entry | None = None
    #: Its span, if it is traced.
    span: Firing | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to become of one schedule, as it was read."""

    name: str
    version: int
    since: datetime
    last_slot: datetime | None
    #: What the row's ``last_slot`` and ``next_due_at`` become.
    new_last_slot: datetime | None
    next_due_at: datetime | None
    slots: tuple[Decided, ...]

    @property
    def due_at(self) -> datetime | None:
        """When the last of what is fired or queued is due."""
        due = [decided.due_at for decided in self.slots if decided.outcome != "skipped"]
        return max(due, default=None)


@dataclass(kw_only=True, slots=True)
class Fired:
    """What became of plans."""

    #: By the schedule's name.
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    #: Schedule, outcome, reason, number, and seconds from due to decided, of each row written.
    slots: list[tuple[str, str, str | None, int, float]] = field(default_factory=list)


_FIRE = f"""\
WITH {FENCE},
plan AS MATERIALIZED (
    SELECT * FROM unnest(
        %(names)s::text[], %(versions)s::bigint[], %(sinces)s::timestamptz[],
        %(read)s::timestamptz[], %(last)s::timestamptz[], %(next)s::timestamptz[],
        %(due)s::timestamptz[]
    ) WITH ORDINALITY AS p (name, version, since, read, last_slot, next_due_at, due_at, number)
),
chosen AS MATERIALIZED (
    SELECT p.* FROM plan AS p JOIN schedules AS s ON s.name = p.name
    WHERE EXISTS (SELECT FROM lease)
      AND s.version = p.version AND s.since = p.since AND s.last_slot IS NOT DISTINCT FROM p.read
      AND s.paused_at IS NULL
      AND (p.due_at IS NULL OR p.due_at <= clock_timestamp())
    FOR UPDATE OF s SKIP LOCKED
),
moved AS (
    UPDATE schedules AS s SET last_slot = chosen.last_slot, next_due_at = chosen.next_due_at
    FROM chosen WHERE s.name = chosen.name
    RETURNING s.name
),
slot AS MATERIALIZED (
    SELECT * FROM unnest(
        %(slot_plans)s::bigint[], %(slots)s::timestamptz[], %(untils)s::timestamptz[],
        %(counts)s::integer[], %(outcomes)s::text[], %(reasons)s::text[],
        %(slot_dues)s::timestamptz[], %(job_ids)s::text[], %(actors)s::text[],
        %(queues)s::text[], %(bodies)s::bytea[], %(options)s::text[]
    ) WITH ORDINALITY AS s (
        plan, slot, until, count, outcome, reason, due_at, job_id, actor, queue, body, options,
        number
    ) JOIN (SELECT name, number AS plan FROM plan) AS p USING (plan)
),
decided AS (
    INSERT INTO schedule_slots
        (schedule, slot, until, count, outcome, reason, job_id, epoch, due_at)
    SELECT name, slot, until, count, outcome, reason, job_id, %(epoch)s, due_at
    FROM slot WHERE name IN (SELECT name FROM moved)
    ON CONFLICT DO NOTHING
    RETURNING schedule, slot, outcome, reason, count, extract(epoch FROM fired_at - due_at) AS late
),
published AS (
    INSERT INTO leveret_outbox (job_id, actor, queue, body, options)
    SELECT s.job_id, s.actor, s.queue, s.body, CAST(s.options AS json)
    FROM slot AS s JOIN decided AS d ON d.schedule = s.name AND d.slot = s.slot
    WHERE d.outcome = 'fired' ORDER BY s.number
)
SELECT p.number, 0, CASE
        WHEN moved.name IS NOT NULL THEN 'done'
        WHEN NOT EXISTS (SELECT FROM lease) THEN 'stale'
        WHEN s.name IS NULL OR s.paused_at IS NOT NULL OR s.version <> p.version
            OR s.since <> p.since OR s.last_slot IS DISTINCT FROM p.read THEN 'changed'
        WHEN p.due_at > clock_timestamp() THEN 'early'
        ELSE 'busy'
    END, NULL, NULL, NULL::float8
FROM plan AS p LEFT JOIN moved ON moved.name = p.name LEFT JOIN schedules AS s ON s.name = p.name
UNION ALL
SELECT p.number, 1, d.outcome, d.reason, d.count, d.late::float8
FROM decided AS d JOIN plan AS p ON p.name = d.schedule"""


def fire(runner: Runner, fence: Mapping[str, Any], plans: Sequence[Plan]) -> Fired:
    """Make plans true, each wholly or not at all; no two are of one schedule.

    ``fence`` says under which lease. Raises what the ``runner`` raises; what was done is not known
    then, and need not be.
    """
    slots = [(number, s) for number, plan in enumerate(plans, 1) for s in plan.slots]
    jobs = [s.job for _, s in slots]
    rows = runner.run(
        _FIRE,
        {
            **fence,
            "names": [plan.name for plan in plans],
            "versions": [plan.version for plan in plans],
            "sinces": [plan.since for plan in plans],
            "read": [plan.last_slot for plan in plans],
            "last": [plan.new_last_slot for plan in plans],
            "next": [plan.next_due_at for plan in plans],
            "due": [plan.due_at for plan in plans],
            "slot_plans": [number for number, _ in slots],
            "slots": [s.slot for _, s in slots],
            "untils": [s.until for _, s in slots],
            "counts": [s.count for _, s in slots],
            "outcomes": [s.outcome for _, s in slots],
            "reasons": [s.reason for _, s in slots],
            "slot_dues": [s.due_at for _, s in slots],
            "job_ids": [job and job.job_id for job in jobs],
            "actors": [job and job.actor for job in jobs],
            "queues": [job and job.queue for job in jobs],
            "bodies": [job and job.body for job in jobs],
            "options": [job and job.options for job in jobs],
        },
    )
    fired = Fired()
    for number, kind, word, reason, count, late in rows:
        name = plans[number - 1].name
        if kind == 0:
            fired.verdicts[name] = Verdict(word)
        else:
            fired.slots.append((name, word, reason, 1 if count is None else count, late))
    return fired
