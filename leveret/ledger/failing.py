"""What the jobs fail of that are to be tried again: those with the same cause are one.

The counterpart of the groups of dead letters, before it comes to that. Dead letters are counted as
they are stored; of retries there are too many for that, and they are of interest for as long as the
job waits only. So this reads the jobs that wait for another attempt, as many as `LIMIT`, and
groups them as dead letters are (`leveret.ledger.fingerprint.normalise`), but for the traceback.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection

from leveret.ledger.fingerprint import normalise
from leveret.ledger.query import JobFilter, JobSummary, page_statement
from leveret.ledger.state import State

__all__ = ["LIMIT", "Failing", "failing"]

#: Jobs that are read, the newest. A storm shows in them, too.
LIMIT = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Failing:
    """Jobs of one actor and queue that are to be tried again, and failed of the same."""

    actor: str | None
    queue: str | None
    error_type: str | None
    #: Of the one that failed last.
    error: str | None
    jobs: int
    #: Attempts that one of them has failed, at the most.
    attempts: int
    last_at: datetime
    #: When the next of them is due.
    next_at: datetime | None
    #: The one that failed last.
    job_id: str


def failing(
    connection: Connection, *, actor: str | None = None, queue: str | None = None
) -> tuple[Failing, ...]:
    """Return what the retried jobs fail of, the most frequent first."""
    which = JobFilter(states=frozenset({State.RETRYING}), actor=actor, queue=queue)
    groups: defaultdict[tuple[str | None, ...], list[JobSummary]] = defaultdict(list)
    for row in connection.execute(page_statement(which, limit=LIMIT)):
        values = {**row._mapping, "state": State(row.state)}  # noqa: SLF001 - its public name
        job = JobSummary(**values)
        cause = normalise(job.error or "")
        groups[job.actor, job.queue, job.error_type, cause].append(job)
    found = [_group(jobs) for jobs in groups.values()]
    return tuple(sorted(found, key=lambda group: (-group.jobs, group.actor or "", group.job_id)))


def _group(jobs: list[JobSummary]) -> Failing:
    last = max(jobs, key=lambda job: job.updated_at)
    return Failing(
        actor=last.actor,
        queue=last.queue,
        error_type=last.error_type,
        error=last.error,
        jobs=len(jobs),
        attempts=max(job.attempt for job in jobs),
        last_at=last.updated_at,
        next_at=min((job.due_at for job in jobs if job.due_at is not None), default=None),
        job_id=last.id,
    )
