"""Setting jobs back to the start of their next run, beside the message that was published for it.

Nothing of the run before stays in the job's row, and whatever may still be said of that run is
older than the new one (`leveret.ledger.fold`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.engine import Connection

__all__ = ["Rerun", "requeue"]

_REQUEUE = text(
    "UPDATE jobs AS j SET state = CASE WHEN w.due_at IS NULL THEN 'queued' ELSE 'scheduled' END,"
    " due_at = w.due_at, run = w.run, attempt = 1, settled = 0, event_at = '-infinity', kind = 0,"
    " started_at = NULL, finished_at = NULL, worker = NULL, reason = NULL, error_type = NULL,"
    " error = NULL, result = NULL, result_ref = NULL, result_lost = NULL, progress = NULL,"
    " progress_note = NULL, progress_at = NULL, cancel_requested_at = NULL, updated_at = now()"
    " FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[]), CAST(:runs AS int[]),"
    " CAST(:dues AS timestamptz[])) AS w(id, created_at, run, due_at)"
    " WHERE j.id = w.id AND j.created_at = w.created_at"
)


class Rerun(NamedTuple):
    """One job, and the run that begins."""

    job_id: str
    #: The time of the job.
    created_at: datetime
    run: int
    #: Not before this time; None for at once.
    due_at: datetime | None = None


def requeue(connection: Connection, reruns: Sequence[Rerun]) -> None:
    """Write that jobs are queued again, or scheduled, in the caller's transaction.

    The caller holds the locks of their rows, and has decided that they may run.
    """
    connection.execute(
        _REQUEUE,
        {
            "ids": [rerun.job_id for rerun in reruns],
            "times": [rerun.created_at for rerun in reruns],
            "runs": [rerun.run for rerun in reruns],
            "dues": [rerun.due_at for rerun in reruns],
        },
    )
