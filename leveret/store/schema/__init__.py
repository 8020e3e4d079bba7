"""The tables.

Times are ``timestamptz``. What came from outside as bytes is kept as bytes: ``json`` and ``text``
columns cannot hold everything that a job's body may hold (U+0000, for one), and would lose how it
was written.

**Partitions.** ``jobs`` and ``attempts`` are partitioned by ``created_at``, the time of the job, a
day each (`leveret.store.partition`). A row is found by its id although the key has the time in it,
because the time is a function of the id: an id made by Leveret (UUIDv7) carries its time; for any
other, and for one whose time has no partition, ``job_ids`` remembers when it was first seen.
"""

from leveret.store.schema.api import ApiKey, AuditEntry, IdempotentRequest
from leveret.store.schema.base import Base, metadata
from leveret.store.schema.claim import Checkpoint, Claim, UniqueJob
from leveret.store.schema.dead_letter import DeadLetter, DeadLetterGroup, Replay
from leveret.store.schema.job import QUEUE, Attempt, JobId, JobRow, Reject
from leveret.store.schema.outbox import OutboxRow
from leveret.store.schema.rollup import JobRollup, RollupMark
from leveret.store.schema.schedule import Lease, Schedule, ScheduleSlot
from leveret.store.schema.wish import Cancellation, Watch
from leveret.store.schema.worker import WorkerRow

__all__ = [
    "QUEUE",
    "ApiKey",
    "Attempt",
    "AuditEntry",
    "Base",
    "Cancellation",
    "Checkpoint",
    "Claim",
    "DeadLetter",
    "DeadLetterGroup",
    "IdempotentRequest",
    "JobId",
    "JobRollup",
    "JobRow",
    "Lease",
    "OutboxRow",
    "Reject",
    "Replay",
    "RollupMark",
    "Schedule",
    "ScheduleSlot",
    "UniqueJob",
    "Watch",
    "WorkerRow",
    "metadata",
]
