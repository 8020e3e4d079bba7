"""Writing jobs into the outbox."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Unpack

from leveret import tracing
from leveret.message import MAX_BODY_BYTES, Job
from leveret.outbox.row import Entry, entry_of
from leveret.outbox.transaction import execute, execute_async
from leveret.request import Named, Options, make_job

__all__ = ["enqueue", "enqueue_async", "enqueue_many", "enqueue_many_async"]

#: What one statement inserts at most.
_MOST_ROWS = 1000
_MOST_BYTES = 8 * 1024 * 1024

# One statement for any number of jobs; ids are given out in their order. Each column has its type
# written out, since drivers guess differently.
_INSERT = """\
INSERT INTO leveret_outbox (job_id, actor, queue, body, options, due_at, hold_until)
SELECT job_id, actor, queue, body, CAST(options AS json), due_at, COALESCE(hold_until, '-infinity')
FROM unnest(
    CAST(:job_ids AS text[]), CAST(:actors AS text[]), CAST(:queues AS text[]),
    CAST(:bodies AS bytea[]), CAST(:options AS text[]),
    CAST(:due_at AS timestamptz[]), CAST(:hold_until AS timestamptz[])
) WITH ORDINALITY
AS job (job_id, actor, queue, body, options, due_at, hold_until, position)
ORDER BY position"""


class Written(Options, total=False):
    """The options of `enqueue`: those of a job, and those of its writer."""

    #: The name of the publishing service, carried by the job.
    app_id: str | None
    #: The largest body; by default that of the wire contract.
    max_body_bytes: int


def enqueue(
    connection: object,
    actor: str | Named,
    arguments: Mapping[str, Any] | None = None,
    **options: Unpack[Written],
) -> str:
    """Write a job for ``actor`` into the transaction of ``connection``; return the job's id.

    The job is published by a relay once that transaction has committed, and never if it is rolled
    back. ``connection`` is a `Session` or `Connection` of SQLAlchemy 2, or a `Connection` or
    `Cursor` of psycopg 3; for their asyncio twins there is `enqueue_async`. The other arguments are
    those of `leveret.publisher.Publisher.publish` (delay, at, queue, priority, correlation_id,
    expires, max_retries, idempotency_key, job_id, traceparent, tracestate), and ``app_id``. A job
    may be due later than the publisher takes one: beyond 310 days it waits in the table.

    Raises `InvalidJob` for what breaks the wire contract, as the publisher does, and
    `OutboxError` when ``connection`` is something else or has no transaction; nothing is written
    then. As thread-safe as the connection is.
    """
    entry = _entry(actor, arguments, **options)
    execute(connection, _INSERT, _values([entry]))
    return entry.job_id


async def enqueue_async(
    connection: object,
    actor: str | Named,
    arguments: Mapping[str, Any] | None = None,
    **options: Unpack[Written],
) -> str:
    """Do the same as `enqueue` on SQLAlchemy's or psycopg's objects for asyncio."""
    entry = _entry(actor, arguments, **options)
    await execute_async(connection, _INSERT, _values([entry]))
    return entry.job_id


def enqueue_many(
    connection: object,
    jobs: Iterable[Job | tuple[str | Named, Mapping[str, Any]]],
    **options: Unpack[Written],
) -> list[str]:
    """Write many jobs into the transaction of ``connection``; return their ids.

    Each is a `Job`, or a pair of an actor and its arguments, to which ``options`` apply as in
    `enqueue`. They leave in this order. A thousand at a time are checked and then inserted with
    one statement: roll back when it raises, or those before stay in the transaction.
    """
    ids = []
    for entries in _batches(_entries(jobs, options)):
        execute(connection, _INSERT, _values(entries))
        ids += [entry.job_id for entry in entries]
    return ids


async def enqueue_many_async(
    connection: object,
    jobs: Iterable[Job | tuple[str | Named, Mapping[str, Any]]],
    **options: Unpack[Written],
) -> list[str]:
    """Do the same as `enqueue_many` on SQLAlchemy's or psycopg's objects for asyncio."""
    ids = []
    for entries in _batches(_entries(jobs, options)):
        await execute_async(connection, _INSERT, _values(entries))
        ids += [entry.job_id for entry in entries]
    return ids


def _entry(
    actor: str | Named,
    arguments: Mapping[str, Any] | None,
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    **options: Any,
) -> Entry:
    now = time.time()
    job = tracing.inherit(make_job(actor, arguments, now=now, **options))
    return entry_of(job, now=now, limit=max_body_bytes)


def _entries(
    jobs: Iterable[Job | tuple[str | Named, Mapping[str, Any]]], options: Written
) -> Iterator[Entry]:
    limit = options.get("max_body_bytes", MAX_BODY_BYTES)
    for job in jobs:
        if isinstance(job, Job):
            yield entry_of(tracing.inherit(job), now=time.time(), limit=limit)
        else:
            yield _entry(job[0], job[1], **options)


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    for first in entries:
        batch, size = [first], len(first.body)
        while len(batch) < _MOST_ROWS and size < _MOST_BYTES:
            entry = next(entries, None)
            if entry is None:
                break
            batch.append(entry)
            size += len(entry.body)
        yield batch


def _values(entries: list[Entry]) -> dict[str, object]:
    return {
        "job_ids": [entry.job_id for entry in entries],
        "actors": [entry.actor for entry in entries],
        "queues": [entry.queue for entry in entries],
        "bodies": [entry.body for entry in entries],
        "options": [entry.options for entry in entries],
        "due_at": [entry.due_at for entry in entries],
        "hold_until": [entry.hold_until for entry in entries],
    }
