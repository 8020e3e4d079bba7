"""Overlap: what becomes of a slot while the job of an earlier one has not ended.

As the ledger says, which hears of a job a little after it happens; and nothing that is judged here
is locked. A job that the ledger has not heard of yet is taken to live, for a day: it was put into
the outbox, and the relay or the broker may be away.

Slots that wait (`Overlap.QUEUE`) are rows of ``schedule_slots`` whose outcome is ``queued``. The
leader looks every second, while there are any, and fires the oldest of each schedule whose job has
ended.
"""

# ruff: noqa: S608 - statements are put together from constants

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from leveret.ledger.state import LIVE
from leveret.outbox.row import Entry
from leveret.schedules.policy import Overlap
from leveret.store.lease import FENCE, Runner
from scheduler.fire import Decided

__all__ = ["MOST_QUEUED", "Ahead", "ahead", "fire_queued", "forget_removed", "judge", "waiting"]

#: So many slots of a schedule wait at most; those that follow are skipped.
MOST_QUEUED = 100

# The last fired slot of each, and what is known of its job. The outbox has no index by job, so it
# is asked only about a job that should have left it long ago.
_AHEAD = """\
SELECT wanted.name, fired.slot IS NOT NULL AND CASE
        WHEN job.state IS NOT NULL THEN job.state = ANY(%(live)s)
        WHEN fired.fired_at > clock_timestamp() - interval '1 day' THEN true
        ELSE EXISTS (SELECT FROM leveret_outbox WHERE leveret_outbox.job_id = fired.job_id)
    END, (
        SELECT count(*) FROM (
            SELECT FROM schedule_slots AS s
            WHERE s.schedule = wanted.name AND s.outcome = 'queued' LIMIT %(most)s
        ) AS waits
    )
FROM unnest(%(names)s::text[]) AS wanted (name)
LEFT JOIN LATERAL (
    SELECT slot, job_id, fired_at FROM schedule_slots AS s
    WHERE s.schedule = wanted.name AND s.outcome = 'fired' ORDER BY slot DESC LIMIT 1
) AS fired ON true
LEFT JOIN LATERAL (
    SELECT state FROM jobs WHERE id = fired.job_id AND created_at = COALESCE(
        (SELECT created_at FROM job_ids WHERE job_ids.id = fired.job_id),
        date_trunc('milliseconds', fired.slot)
    )
) AS job ON true"""
_WAITING = """\
SELECT schedule, min(slot) FROM schedule_slots WHERE outcome = 'queued' GROUP BY schedule"""
_FIRE_QUEUED = f"""\
WITH {FENCE},
slot AS MATERIALIZED (
    SELECT * FROM unnest(
        %(names)s::text[], %(slots)s::timestamptz[], %(job_ids)s::text[], %(actors)s::text[],
        %(queues)s::text[], %(bodies)s::bytea[], %(options)s::text[]
    ) AS s (schedule, slot, job_id, actor, queue, body, options)
),
fired AS (
    UPDATE schedule_slots AS s
    SET outcome = 'fired', job_id = slot.job_id, epoch = %(epoch)s, fired_at = clock_timestamp()
    FROM slot
    WHERE s.schedule = slot.schedule AND s.slot = slot.slot AND s.outcome = 'queued'
      AND EXISTS (SELECT FROM lease)
      AND EXISTS (SELECT FROM schedules WHERE name = s.schedule AND paused_at IS NULL)
    RETURNING s.schedule
),
published AS (
    INSERT INTO leveret_outbox (job_id, actor, queue, body, options)
    SELECT job_id, actor, queue, body, CAST(options AS json)
    FROM slot WHERE schedule IN (SELECT schedule FROM fired)
)
SELECT schedule FROM fired"""
_FORGET = f"""\
WITH {FENCE}
UPDATE schedule_slots AS s SET outcome = 'skipped', reason = 'removed'
WHERE s.outcome = 'queued' AND EXISTS (SELECT FROM lease)
  AND NOT EXISTS (SELECT FROM schedules WHERE name = s.schedule)"""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What stands before a schedule's next slot."""

    #: The job of the last fired slot has not ended.
    lives: bool
    #: How many slots wait.
    queued: int


def ahead(runner: Runner, names: Collection[str]) -> Mapping[str, Ahead]:
    """Return what stands before the next slot of each schedule."""
    values = {"names": list(names), "live": [str(state) for state in LIVE], "most": MOST_QUEUED}
    return {name: Ahead(lives, queued) for name, lives, queued in runner.run(_AHEAD, values)}


def judge(slots: Sequence[Decided], overlap: Overlap, before: Ahead) -> tuple[Decided, ...]:
    """Apply a schedule's overlap policy to what would be fired of it, in order. Pure."""
    judged = []
    lives, queued = before.lives, before.queued
    for slot in slots:
        if slot.outcome != "fired" or overlap is Overlap.ALLOW:
            judged.append(slot)
        elif overlap is Overlap.SKIP and lives:
            judged.append(replace(slot, outcome="skipped", reason="overlap", job=None))
        elif overlap is Overlap.QUEUE and queued >= MOST_QUEUED:
            judged.append(replace(slot, outcome="skipped", reason="queue-full", job=None))
        elif overlap is Overlap.QUEUE and (lives or queued):
            judged.append(replace(slot, outcome="queued", job=None))
            queued += 1
        else:
            judged.append(slot)
            lives = True
    return tuple(judged)


def waiting(runner: Runner) -> Mapping[str, datetime]:
    """Return the oldest waiting slot of each schedule that has one."""
    return dict(runner.run(_WAITING, {}))


def fire_queued(
    runner: Runner, fence: Mapping[str, Any], jobs: Mapping[tuple[str, datetime], Entry]
) -> list[str]:
    """Publish the jobs of waiting slots; return the schedules whose slot it was that was fired.

    Nothing is done without the lease, for a schedule that is paused, or for a slot that does not
    wait any more.
    """
    rows = runner.run(
        _FIRE_QUEUED,
        {
            **fence,
            "names": [name for name, _ in jobs],
            "slots": [slot for _, slot in jobs],
            "job_ids": [job.job_id for job in jobs.values()],
            "actors": [job.actor for job in jobs.values()],
            "queues": [job.queue for job in jobs.values()],
            "bodies": [job.body for job in jobs.values()],
            "options": [job.options for job in jobs.values()],
        },
    )
    return [name for (name,) in rows]


def forget_removed(runner: Runner, fence: Mapping[str, Any]) -> None:
    """Skip the waiting slots of schedules that are gone."""
    runner.run(_FORGET, fence)
