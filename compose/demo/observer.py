"""Reading the ledger of the demonstration: what PostgreSQL remembers, as it comes to be known.

It looks for what is new a few times a second, the way an operator's page does, and hands it over as
notes. The counts of what waits come from the broker.
"""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pika
import pika.exceptions
import psycopg
from psycopg.rows import namedtuple_row

from compose.demo.book import Letter, Note, Record
from leveret.names import DEFAULT_QUEUES, quarantine_queue, work_queue
from leveret.store.engine import conninfo

__all__ = ["Observer"]

_LOOK_SECONDS = 0.1
_COUNT_SECONDS = 0.25

_JOBS = (
    "SELECT id, state, attempt, worker, due_at, reason, error, result, body IS NOT NULL AS tapped,"
    " updated_at FROM jobs WHERE updated_at >= %s - interval '2 s' ORDER BY updated_at"
)
_ATTEMPTS = (
    "SELECT a.job_id, a.attempt, a.outcome, a.worker, a.due_at, a.error FROM attempts a"
    " JOIN jobs j ON j.id = a.job_id AND j.created_at = a.created_at"
    " WHERE j.updated_at >= %s - interval '2 s' ORDER BY a.started_at"
)
_LETTERS = (
    "SELECT id, job_id, queue, routing_key, reason, error, fingerprint, headers, body"
    " FROM dead_letters WHERE id > %s ORDER BY id"
)


class Observer:
    """Looks on a thread of its own; `notes` is what it has found, in order."""

    def __init__(self, database: str, broker: str, letters: Path) -> None:
        letters.mkdir(parents=True)
        self._database = conninfo(database)
        self._broker = broker
        self._letters = letters
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self._told: set[tuple[Any, ...]] = set()
        self.notes: SimpleQueue[Note] = SimpleQueue()
        #: Jobs that wait in each work queue, and in the quarantine lane, as the broker counts them.
        self.waiting: dict[str, int] = dict.fromkeys((*DEFAULT_QUEUES, "quarantine"), 0)
        #: Why it has ended, when it should not have.
        self.failure: Exception | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        try:
            self._watch()
        except (pika.exceptions.AMQPError, psycopg.Error, OSError, ValueError) as error:
            self.failure = error

    def _watch(self) -> None:
        broker = pika.BlockingConnection(pika.URLParameters(self._broker.split(",")[0]))
        with psycopg.connect(self._database, autocommit=True, row_factory=namedtuple_row) as ledger:
            try:
                channel = broker.channel()
                since: Any = datetime(2000, 1, 1, tzinfo=UTC)
                letter, next_count = 0, 0.0
                while not self._stopping.wait(_LOOK_SECONDS):
                    # First what belongs to a job, then the job: its end is the last that is told.
                    jobs = ledger.execute(_JOBS, [since]).fetchall()
                    for row in ledger.execute(_ATTEMPTS, [since]):
                        self._attempt(row)
                    for row in ledger.execute(_LETTERS, [letter]):
                        letter = self._letter(row)
                    for row in jobs:
                        since = self._job(row)
                    if time.monotonic() >= next_count:
                        self._count(channel)
                        next_count = time.monotonic() + _COUNT_SECONDS
                    broker.process_data_events(time_limit=0)
            finally:
                if broker.is_open:
                    broker.close()

    def _tell(self, key: tuple[Any, ...], note: Note) -> None:
        if key not in self._told:
            self._told.add(key)
            self.notes.put(note)

    def _job(self, row: Any) -> datetime:
        if row.tapped:
            self._tell((row.id,), row.id)
        event = "started" if row.state == "running" else row.state
        self._tell(
            (row.id, event, row.worker),
            Record(
                job=row.id,
                event=event,
                attempt=row.attempt,
                worker=row.worker or "",
                reason=row.reason,
                error=row.error,
                result=None if row.result is None else json.loads(row.result),
            ),
        )
        changed: datetime = row.updated_at
        return changed

    def _attempt(self, row: Any) -> None:
        if row.outcome in ("retrying", "quarantined"):
            self._tell(
                (row.job_id, row.outcome, row.attempt),
                Record(
                    job=row.job_id,
                    event=row.outcome,
                    attempt=row.attempt,
                    worker=row.worker or "",
                    due_at=None if row.due_at is None else row.due_at.timestamp(),
                    error=row.error,
                ),
            )

    def _letter(self, row: Any) -> int:
        letter = Letter(
            job=row.job_id or "",
            queue=row.queue or "leveret.unroutable",
            reason=row.reason,
            error=row.error or f"no queue wants {row.routing_key!r}",
        )
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in letter.job) or "no-id"
        (self._letters / f"{name}.body").write_bytes(row.body)
        document = {
            "id": row.job_id,
            "queue": row.queue,
            "routing_key": row.routing_key,
            "reason": row.reason,
            "error": row.error,
            "group": row.fingerprint,
            "headers": row.headers,
        }
        text = json.dumps(document, indent=2, default=str)
        (self._letters / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        self._tell(("letter", row.id), letter)
        return int(row.id)

    def _count(self, channel: Any) -> None:
        def ready(name: str) -> int:
            return int(channel.queue_declare(name, passive=True).method.message_count)

        for queue in DEFAULT_QUEUES:
            self.waiting[queue] = ready(work_queue(queue))
        self.waiting["quarantine"] = sum(ready(quarantine_queue(queue)) for queue in DEFAULT_QUEUES)
