"""Runs that nobody is running any more, although no outcome was told.

A worker that dies says nothing. The broker delivers its jobs again at once; what is left is what
the ledger believes: a job that runs, and a worker that is there. Both follow from heartbeats, in
which a worker names what it runs:

- A worker that has not been heard of for three heartbeats is gone, and so are its runs. A run of a
  worker that nobody has heard of at all has as long, from its start.
- A run that its worker, alive, does not name is over: its connection was lost, so its outcome went
  nowhere. Two looks in a row must find that, each in another heartbeat after the start: one that
  was put together just before the job began may be sent just after.

Such a run is *abandoned*, and its job is queued again, where the broker has it. That is an event
like any other, older than every outcome of the run: if one comes after all, it counts.

None of this can be told while the ledger is behind, since the heartbeats are then in the queue.
Whoever calls `Abandonments.find` has been up to date for as long as `SILENCE`.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.engine import Connection, Row

from leveret.ledger.event import LONG_AGO, AttemptEvent, JobEvent, Kind, Standing
from leveret.ledger.state import State

__all__ = ["SILENCE", "Abandonments"]

#: How long a worker may be silent: three heartbeats of 5 s.
SILENCE = timedelta(seconds=15)

#: The advisory lock (of the transaction) under which one recorder looks at a time.
_LOCK = 0x6C657661  # "leva"

_GONE = text(
    "UPDATE workers SET gone_at = now() WHERE gone_at IS NULL AND seen_at < now() - :silence"
)
# What is running by the book, and what its worker says. Of a job whose start was not told there is
# no attempt; then the job itself says who has it.
_RUNNING = text("""
WITH running AS (
    SELECT job_id, run, attempt, started_at, worker, queue FROM attempts WHERE outcome = 'running'
    UNION ALL
    SELECT id, run, attempt, NULL, worker, queue FROM jobs
    WHERE state = 'running' AND started_at IS NULL AND updated_at < now() - :silence
)
SELECT r.job_id, r.run, r.attempt, r.started_at, r.worker, r.queue,
    w.id IS NULL OR w.gone_at IS NOT NULL AS is_gone, w.beat_at
FROM running AS r LEFT JOIN workers AS w ON w.id = r.worker
WHERE CASE
    WHEN w.id IS NULL THEN r.started_at IS NULL OR r.started_at < now() - :silence
    WHEN w.gone_at IS NOT NULL THEN true
    ELSE w.beat_at > COALESCE(r.started_at, '-infinity') AND NOT r.job_id = ANY (w.running)
END
""")

_Run = tuple[str, int, int, float | None]


class Abandonments:
    """Finds abandoned runs; for one thread. It remembers from one look to the next."""

    def __init__(self, silence: timedelta = SILENCE) -> None:
        self._silence = silence
        #: Runs that a worker has not named, and the heartbeat in which that was first seen.
        self._unnamed: dict[_Run, float] = {}

    def find(self, connection: Connection) -> list[JobEvent]:
        """Mark workers that are gone, and return the events of runs that are abandoned.

        In a transaction of its own; empty while another process looks.
        """
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}):
            return []
        connection.execute(_GONE, {"silence": self._silence})
        unnamed: dict[_Run, float] = {}
        events = []
        for row in connection.execute(_RUNNING, {"silence": self._silence}):
            started_at = None if row.started_at is None else row.started_at.timestamp()
            run = (row.job_id, row.run, row.attempt, started_at)
            if not row.is_gone:
                beat_at = row.beat_at.timestamp()
                unnamed[run] = first = self._unnamed.get(run, beat_at)
                if beat_at <= first:
                    continue
            events.append(_abandoned(row, started_at))
        self._unnamed = unnamed
        return events


def _abandoned(row: Row[tuple[object, ...]], started_at: float | None) -> JobEvent:
    beat_at = LONG_AGO if row.beat_at is None else row.beat_at.timestamp()
    attempt = None
    if started_at is not None:
        attempt = AttemptEvent(
            run=row.run,
            attempt=row.attempt,
            started_at=started_at,
            rank=Kind.ABANDONED,
            # It was last known to run when its worker was last heard of.
            ended_at=max(started_at, beat_at),
            outcome="abandoned",
            worker=row.worker,
            queue=row.queue,
            reason="worker-gone" if row.is_gone else "not-running",
        )
    return JobEvent(
        row.job_id,
        "abandoned",
        Standing(
            run=row.run,
            settled=0,
            attempt=row.attempt,
            event_at=LONG_AGO if started_at is None else started_at,
            kind=Kind.ABANDONED,
            state=State.QUEUED,
        ),
        attempt=attempt,
    )
