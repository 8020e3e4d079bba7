"""Writing a batch of events: one transaction, whatever it says.

1. ``COPY`` into temporary tables. They are made when they are missing and emptied by the commit, so
   it does not matter on which of PgBouncer's connections a transaction lands.
2. One merge for each table: ``INSERT … ON CONFLICT DO UPDATE``, comparing events as
   `leveret.ledger.fold` does. What is not newer changes nothing, so writing a batch twice is
   writing it once.
3. What follows: dead letters and their groups, letters that a success has made superfluous.

Any number of recorders may write at once. Rows are locked in the order of their keys, jobs before
attempts before dead letters before groups; where that does not prevent a deadlock, the transaction
is repeated. A dead letter and the success of its job may come to different recorders at the same
time: both change the job's row first, so the second one waits there and then sees the other.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import structlog
from psycopg import errors
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from leveret.ledger import late, merge, watch
from leveret.ledger.batch import Batch, StoredLetters
from leveret.store import partition
from leveret.store.identity import resolve_times

__all__ = ["BadData", "Writer"]

log = structlog.get_logger("leveret.ledger")

_ATTEMPTS_AT_CONFLICTS = 8
_PARTITIONS_SECONDS = 3600.0

_ANYBODY_WAITS = text("SELECT EXISTS (SELECT 1 FROM watches)")

#: What only another batch can mend.
_BAD_DATA = (
    psycopg.DataError,
    psycopg.IntegrityError,
    errors.ProgramLimitExceeded,
    errors.StatementTooComplex,
)

_Cursor = psycopg.Cursor[Any]


class BadData(Exception):  # noqa: N818 - says what was found
    """The database cannot store something in the batch."""


def _copy(cursor: _Cursor, stage: merge.Stage, lines: Iterable[str]) -> None:
    data = "".join(lines).encode(errors="backslashreplace")
    with cursor.copy(stage.copy) as copy:
        copy.write(data)


def _any(cursor: _Cursor, question: str) -> bool:
    row = cursor.execute(question).fetchone()
    return row is not None and bool(row[0])


class Writer:
    """Writes batches to the ledger of one database; for one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._partitions: set[date] = set()
        self._partitions_due = 0.0

    def write(self, batch: Batch, *, again: bool = False) -> None:
        """Write a batch in one transaction.

        ``again`` says that it may have been written before. Raises `BadData` when the database
        cannot store something in it; whatever else is raised may pass, and the same batch can be
        written again then.
        """
        for number in range(_ATTEMPTS_AT_CONFLICTS):
            try:
                with self._engine.connect() as connection:
                    self._write(connection, batch, again=again)
                    return self._tell(connection, batch)
            except (psycopg.Error, DBAPIError) as error:
                cause = error.orig if isinstance(error, DBAPIError) else error
                if not self._may_pass(cause, number):
                    raise
                time.sleep(random.uniform(0, 0.01 * 2**number))  # noqa: S311 - jitter
            except (ValueError, TypeError, LookupError) as error:
                raise BadData(f"it cannot be written: {error!r}") from error
        raise errors.SerializationFailure("other writers were in the way each time")

    def _may_pass(self, cause: BaseException | None, number: int) -> bool:
        """Tell whether to try again at once; raises `BadData` when that is hopeless."""
        if isinstance(cause, errors.DeadlockDetected | errors.SerializationFailure):
            return True
        if isinstance(cause, errors.CheckViolation) and "no partition" in str(cause) and not number:
            self._partitions_due = 0.0  # it was there, and retention has dropped it
            return True
        if isinstance(cause, _BAD_DATA):
            raise BadData(str(cause).strip()) from cause
        return False

    def _write(self, connection: Connection, batch: Batch, *, again: bool) -> None:
        now = datetime.now(UTC)
        with connection.begin():
            if time.monotonic() >= self._partitions_due:
                self._partitions = partition.ensure(connection, now=now)
                self._partitions_due = time.monotonic() + _PARTITIONS_SECONDS
            cursor: _Cursor = connection.connection.cursor()  # type: ignore[assignment]
            try:
                times = self._write_jobs(connection, cursor, batch, now)
                if batch.letters:
                    self._write_letters(cursor, batch, times, again=again)
                if batch.beats:
                    cursor.executemany(
                        merge.BEAT, [batch.beats[key] for key in sorted(batch.beats)]
                    )
                if batch.rejects:
                    cursor.executemany(merge.REJECT, batch.rejects)
            finally:
                cursor.close()

    def _write_jobs(
        self, connection: Connection, cursor: _Cursor, batch: Batch, now: datetime
    ) -> dict[str, float]:
        jobs = batch.jobs
        ids = jobs.keys()
        found = resolve_times(connection, ids, now=now, partitions=self._partitions)
        times = {job_id: moment.timestamp() for job_id, moment in found.items()}
        if not jobs:
            return times
        cursor.execute(merge.JOBS.create + merge.ATTEMPTS.create)
        _copy(cursor, merge.JOBS, [merge.job_line(job, times[job.id]) for job in jobs.values()])
        attempts = [
            merge.attempt_line(job.id, times[job.id], attempt)
            for job in jobs.values()
            if job.attempts is not None
            for attempt in job.attempts.values()
        ]
        cursor.execute(merge.MERGE_JOBS)
        late.mark(
            cursor,
            late.buckets_of((job.standing.finished_at for job in jobs.values()), now.timestamp()),
        )
        if _any(cursor, merge.ANY_CANCELLATION):
            cursor.execute(merge.CLOSE_CANCELLATIONS)
        if attempts:
            _copy(cursor, merge.ATTEMPTS, attempts)
            cursor.execute(merge.MERGE_ATTEMPTS)
            if _any(cursor, merge.ANY_OPEN):
                cursor.execute(merge.SUPERSEDE)
        return times

    def _write_letters(
        self, cursor: _Cursor, batch: Batch, times: dict[str, float], *, again: bool
    ) -> None:
        cursor.execute(merge.LETTERS.create)
        lines = []
        keys: set[str] = set()
        for letter in batch.letters:
            may_repeat = letter.key_is_digest and not letter.redelivered and not again
            if letter.key in keys:
                if not may_repeat:
                    continue
                letter = letter.with_another_key()  # noqa: PLW2901
            keys.add(letter.key)
            created_at = None if letter.job_id is None else times.get(letter.job_id)
            lines.append(merge.letter_line(letter, created_at, may_repeat=may_repeat))
        _copy(cursor, merge.LETTERS, lines)
        cursor.execute(merge.INSERT_LETTERS)
        found = cursor.fetchall()
        batch.stored_letters = [StoredLetters(*row[:4]) for row in found]
        batch.new_groups = found[0][4] if found else 0

    def _tell(self, connection: Connection, batch: Batch) -> None:
        """Notify who waits for these jobs; what fails here is not tried again.

        After the commit, not in it: who began to wait meanwhile, and has read the old row, is then
        told all the same.
        """
        try:
            with connection.begin():
                if batch.jobs and connection.scalar(_ANYBODY_WAITS):
                    watch.notify(connection, batch.jobs)
        except (psycopg.Error, DBAPIError) as error:
            log.warning("ledger.not_notified", error=str(error).strip()[:200])
