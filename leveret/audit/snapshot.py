"""Reading both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from leveret import names
from leveret.audit.verdict import Kind, LiveJob, Snapshot, Subject
from leveret.ledger.state import State
from leveret.schedules import gaps
from leveret.schedules.definition import job_id
from leveret.store.retention import KEEP

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from leveret.management import Management

__all__ = ["WORKER_SILENCE", "look"]

#: A worker that has said nothing for so long is gone.
WORKER_SILENCE = timedelta(seconds=20)
#: Findings of one kind that are named.
_MAX_NAMED = 10_000

_STATES = "SELECT state, count(*) FROM jobs GROUP BY state"
_LIVE = (
    "SELECT id, state, actor, queue, due_at, worker, updated_at FROM jobs"
    " WHERE state IN ('scheduled', 'queued', 'running', 'retrying')"
)
_OUTBOX = (
    "SELECT o.job_id, j.id IS NULL AS unknown FROM leveret_outbox o"
    " LEFT JOIN jobs j ON j.id = o.job_id"
)
_WORKERS = "SELECT id FROM workers WHERE gone_at IS NULL AND seen_at > now() - :silence"
_LETTERS = "SELECT state, count(*) AS n FROM dead_letters GROUP BY state"

#: What can be seen in the rows alone: the subject, and what there is to say of it.
_ROWS: Mapping[Kind, str] = {
    Kind.NO_DEAD_LETTER: (
        "SELECT j.id, 'dead of ' || coalesce(j.reason, 'an unknown reason') FROM jobs j"
        " WHERE j.state IN ('dead', 'expired') AND NOT EXISTS"
        " (SELECT FROM dead_letters d WHERE d.job_id = j.id AND d.run >= j.run)"
    ),
    Kind.NOT_DEAD: (
        "SELECT DISTINCT ON (j.id) j.id, j.state || ', with dead letter ' || d.id || ', '"
        " || d.reason FROM dead_letters d"
        " JOIN jobs j ON j.id = d.job_id AND j.run = d.run"
        " WHERE d.state = 'open' AND j.state NOT IN ('dead', 'expired', 'succeeded', 'cancelled')"
        " ORDER BY j.id, d.id"
    ),
    Kind.NOT_SUPERSEDED: (
        "SELECT j.id, 'dead letter ' || d.id FROM dead_letters d"
        " JOIN jobs j ON j.id = d.job_id AND j.run >= d.run"
        " WHERE d.state = 'open' AND j.state = 'succeeded'"
    ),
    Kind.CLAIM_HELD: (
        "SELECT c.job_id, c.actor || ', key ' || c.key || ', held by ' || coalesce(c.worker, '?')"
        " FROM claims c JOIN jobs j ON j.id = c.job_id"
        " WHERE c.state = 'running' AND c.lease_until < now()"
        " AND j.state IN ('succeeded', 'dead', 'cancelled', 'expired')"
    ),
    Kind.OUTBOX_FAILED: "SELECT job_id, error FROM leveret_outbox WHERE error IS NOT NULL",
    Kind.OUTBOX_STALE: (
        "SELECT o.job_id, 'it is ' || j.state FROM leveret_outbox o"
        " JOIN jobs j ON j.id = o.job_id"
        " WHERE j.state = 'cancelled'"
    ),
    Kind.NO_ROW: (
        "SELECT DISTINCT ON (d.job_id) d.job_id, 'dead letter ' || d.id FROM dead_letters d"
        " WHERE d.job_id IS NOT NULL AND d.state = 'open'"
        " AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = d.job_id)"
        " AND d.stored_at > now() - interval '1 day'"
    ),
}


def look(
    connection: Connection,
    management: Management,
    vhost: str,
    *,
    queues: Sequence[str],
    actors: Mapping[str, str],
    keep: timedelta = KEEP,
    grace: timedelta = gaps.GRACE,
) -> Snapshot:
    """Read the ledger in one snapshot of the database, and the broker's counts right after it.

    ``keep`` is for how long retention keeps rows, ``grace`` how long a slot may be undecided.
    """
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    taken_at = connection.execute(text("SELECT now()")).scalar_one()
    states = {State(state): count for state, count in connection.execute(text(_STATES)).all()}
    live = [
        LiveJob(
            id=row.id,
            state=State(row.state),
            actor=row.actor,
            queue=row.queue,
            due_at=row.due_at,
            since=row.updated_at,
            worker=row.worker,
        )
        for row in connection.execute(text(_LIVE))
    ]
    outbox = connection.execute(text(_OUTBOX)).all()
    workers = connection.execute(text(_WORKERS), {"silence": WORKER_SILENCE}).scalars().all()
    letters = {row.state: int(row.n) for row in connection.execute(text(_LETTERS))}
    found = {
        kind: [
            Subject(id=subject, detail=detail or "")
            for subject, detail in connection.execute(text(f"{query} LIMIT {_MAX_NAMED}")).all()
        ]
        for kind, query in _ROWS.items()
    }
    found |= _schedules(gaps.find(connection, keep=keep, grace=grace))
    connection.rollback()
    depths = _depths(management, vhost)
    return Snapshot(
        taken_at=taken_at,
        states=states,
        live=live,
        outbox=frozenset(row.job_id for row in outbox),
        outbox_unknown=frozenset(row.job_id for row in outbox if row.unknown),
        queues={
            queue: depths.get(names.work_queue(queue), 0)
            + depths.get(names.quarantine_queue(queue), 0)
            for queue in queues
        },
        wheel=sum(n for queue, n in depths.items() if queue.startswith(f"{names.DELAY}.")),
        unread=depths.get(names.LEDGER, 0)
        + depths.get(names.UNROUTABLE, 0)
        + sum(depths.get(names.dead_queue(queue), 0) for queue in queues),
        workers=frozenset(workers),
        letters=letters,
        actors=actors,
        found=found,
    )


def _schedules(found: gaps.Gaps) -> dict[Kind, list[Subject]]:
    """Say what is wrong with schedules as findings."""
    leads = f"{found.leader} leads" if found.leader else "no scheduler leads"
    return {
        Kind.SCHEDULE_GAP: [
            Subject(
                id=job_id(gap.schedule, gap.slot),
                detail=f"{gap.schedule}: nothing was decided on its slot {_moment(gap.slot)}",
                schedule=gap.schedule,
                slot=gap.slot,
            )
            for gap in found.gaps
        ],
        Kind.SLOT_WITHOUT_JOB: [
            Subject(
                id=lost.job_id,
                detail=f"{lost.schedule}: its slot {_moment(lost.slot)} was fired at"
                f" {_moment(lost.fired_at)}; neither the outbox nor the ledger knows the job",
                schedule=lost.schedule,
                slot=lost.slot,
            )
            for lost in found.without_job
        ],
        Kind.SCHEDULE_OVERDUE: [
            Subject(
                id=late.schedule,
                detail=f"{late.count:,} slots since {_moment(late.slot)} are undecided; {leads}",
                schedule=late.schedule,
            )
            for late in found.overdue
        ],
        Kind.SCHEDULE_UNREADABLE: [
            Subject(id=known.schedule, detail=known.detail, schedule=known.schedule)
            for known in found.unreadable
        ],
    }


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _depths(management: Management, vhost: str) -> dict[str, int]:
    """Return the messages of every queue, ready or not."""
    found: list[dict[str, Any]] = management.get(
        "queues", vhost, disable_stats="true", enable_queue_totals="true"
    )
    return {queue["name"]: int(queue.get("messages", 0)) for queue in found}
