"""Dead letters as rows, as the recorder would have written them."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pika
from sqlalchemy import insert, select, text

from leveret.deadletters import Replay, ReplayState, get_replay
from leveret.message import encode_arguments, job_time, new_id
from leveret.store import engine as make_engine
from leveret.store import partition
from leveret.store.migrate import upgrade
from leveret.store.schema import DeadLetter, DeadLetterGroup, JobRow, OutboxRow
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

WHO = "cli:tess@test"
#: Properties with a header that pika cannot read: a time beyond the calendar.
UNREADABLE = b"\x20\x00" + b"\0\0\0\x0b\x01tT" + b"\xff" * 8


@contextmanager
def ledger(url: str) -> Iterator[Engine]:
    """Bring a database to the schema, and yield an engine to it."""
    found = make_engine(url, pool_size=4)
    try:
        upgrade(found)
        yield found
    finally:
        found.dispose()


def clear(engine: Engine) -> None:
    """Empty the tables that tests of dead letters write."""
    with engine.begin() as connection:
        partition.ensure(connection)
        connection.execute(
            text(
                "TRUNCATE jobs, attempts, job_ids, dead_letters, dead_letter_groups, replays,"
                " leveret_outbox, audit_log, watches, cancellations CASCADE"
            )
        )


def wire(**properties: Any) -> bytes:
    """Encode properties."""
    return b"".join(pika.BasicProperties(**properties).encode())


def put(
    connection: Connection,
    arguments: Any = None,
    *,
    body: bytes | None = None,
    actor: str | None = "mail.send",
    queue: str | None = "default",
    reason: str = "exhausted",
    error: str = "no mail server",
    fingerprint: str = "f1",
    headers: dict[str, Any] | None = None,
    job_id: str | None = "",
    run: int = 0,
    routing_key: str = "any.mail.send",
    properties: bytes | None = None,
    job_state: str | None = "dead",
    dead_at: datetime | None = None,
    **columns: Any,
) -> int:
    """Store a dead letter with its group and its job; return its id."""
    job_id = new_id() if job_id == "" else job_id
    now = dead_at or datetime.now(UTC)
    created = None
    if job_id is not None:
        seconds = job_time(job_id)
        created = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    kept = {
        "x-leveret-attempt": 6,
        **({"x-leveret-run": run} if run else {}),
        **(headers or {}),
    }
    if properties is None:
        properties = wire(
            content_type="application/json",
            delivery_mode=2,
            message_id=job_id,
            type=actor,
            headers=kept,
        )
    group = {"open": 1, "total": 1, "died_again": int(run > 0)}
    connection.execute(
        text(
            "INSERT INTO dead_letter_groups (fingerprint, actor, reason, error_type, error,"
            " first_at, last_at, total, open, died_again) VALUES (:fingerprint, :actor, :reason,"
            " 'OSError', :error, :now, :now, :total, :open, :died_again)"
            " ON CONFLICT (fingerprint) DO UPDATE SET total = dead_letter_groups.total + 1,"
            " open = dead_letter_groups.open + 1, last_at = :now,"
            " died_again = dead_letter_groups.died_again + :died_again"
        ),
        {"fingerprint": fingerprint, "actor": actor, "reason": reason, "error": error, "now": now}
        | group,
    )
    if job_state is not None and job_id is not None:
        connection.execute(
            text("DELETE FROM jobs WHERE id = :id AND created_at = :at"),
            {"id": job_id, "at": created},
        )
        connection.execute(
            insert(JobRow).values(
                id=job_id,
                created_at=created,
                actor=actor,
                queue=queue,
                state=job_state,
                run=run,
                attempt=6,
                settled=1,
                event_at=now,
                reason=reason,
                error=error,
                finished_at=now,
            )
        )
    return connection.execute(
        insert(DeadLetter)
        .values(
            key=secrets.token_hex(8),
            job_id=job_id,
            job_created_at=created,
            run=run,
            attempt=6,
            actor=actor,
            queue=queue,
            routing_key=routing_key,
            reason=reason,
            error_type="OSError",
            error=error,
            fingerprint=fingerprint,
            body=encode_arguments({"n": 1} if arguments is None else arguments)
            if body is None
            else body,
            properties=properties,
            headers=json.loads(json.dumps(kept, default=repr)),
            dead_at=now,
            **columns,
        )
        .returning(DeadLetter.id)
    ).scalar_one()


def outbox(connection: Connection) -> list[Any]:
    """Return the rows of the outbox, in their order."""
    columns = [column for column in OutboxRow.__table__.columns if column.name != "hold_until"]
    return list(connection.execute(select(*columns).order_by(OutboxRow.id)))


def read_properties(row: Any) -> pika.BasicProperties:
    """Decode the properties of a row."""
    return pika.BasicProperties().decode(row.properties)


def letter(connection: Connection, letter_id: int) -> Any:
    """Return the row of a dead letter."""
    return connection.execute(select(DeadLetter.__table__).where(DeadLetter.id == letter_id)).one()


def group(connection: Connection, fingerprint: str = "f1") -> Any:
    """Return the row of a group."""
    return connection.execute(
        select(DeadLetterGroup.__table__).where(DeadLetterGroup.fingerprint == fingerprint)
    ).one()


def job(connection: Connection, job_id: str) -> Any:
    """Return the row of a job, without the times that may be infinite."""
    columns = [column for column in JobRow.__table__.columns if column.name != "event_at"]
    return connection.execute(select(*columns).where(JobRow.id == job_id)).one()


def wait_done(engine: Engine, replay_id: int, timeout: float = 60.0) -> Replay:
    """Wait until a replay is no longer running; return it."""

    def done() -> Replay | None:
        with engine.connect() as connection:
            found = get_replay(connection, replay_id)
        return None if found is None or found.state is ReplayState.RUNNING else found

    found = wait_until(done, timeout=timeout, what=f"replay {replay_id} has come to its end")
    assert found is not None
    return found
