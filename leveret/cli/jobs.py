"""``leveret jobs list``, ``show``, ``errors``, and ``leveret workers``: what the ledger knows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from leveret.cli.common import AsJson, guarded, moment, print_json, print_table
from leveret.errors import ConfigurationError
from leveret.ledger.state import State
from leveret.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from leveret.ledger.query import AttemptEntry, JobDetail

# What reads the database is imported by the command that does: it costs the others a third of a
# second.

__all__ = ["errors", "list_jobs", "register", "show", "workers"]

T = TypeVar("T")

_SHOWN_BYTES = 4000
_SHOWN_ERROR = 80
_SHOWN_CAUSE = 200


def register(app: typer.Typer) -> None:
    """Add the commands to ``leveret jobs``."""
    app.command("list")(list_jobs)
    app.command()(show)
    app.command()(errors)


@guarded
def list_jobs(
    state: Annotated[list[State] | None, typer.Option(help="Also several.")] = None,
    actor: Annotated[str | None, typer.Option(help="The actor, such as email.send.")] = None,
    queue: Annotated[str | None, typer.Option(help="The pool.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=moment, help="Created since a time, or since 90m, 2h, 3d."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=moment, help="Created before it.")
    ] = None,
    correlation_id: Annotated[str | None, typer.Option(help="What belongs together.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="As it was published with.")] = None,
    q: Annotated[
        str | None, typer.Option("--find", "-q", help="The id of a job, a correlation, or a key.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    after: Annotated[str | None, typer.Option(help="Go on behind this cursor of a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from leveret.ledger import query  # noqa: PLC0415

    which = query.JobFilter(
        states=frozenset(state or ()),
        actor=actor,
        queue=queue,
        since=since,
        until=until,
        correlation_id=correlation_id,
        idempotency_key=idempotency_key,
        q=q,
    )
    page = _read(lambda connection: query.jobs(connection, which, limit=limit, after=after))
    if as_json:
        print_json({"items": [_plain(asdict(job)) for job in page.items], "next": page.next})
        return
    print_table(
        ("id", "created", "actor", "queue", "state", "attempt", "took", "error"),
        [
            (
                job.id,
                _time(job.created_at),
                job.actor or "-",
                job.queue or "-",
                _state(job.state, job.due_at, job.progress),
                job.attempt if not job.run else f"{job.attempt}, replay {job.run}",
                _took(job.started_at, job.finished_at),
                _error(job.error_type, job.error, job.reason),
            )
            for job in page.items
        ],
    )
    if page.next is not None:
        print(f"more: --after {page.next}", file=sys.stderr)


@guarded
def show(
    job_id: Annotated[str, typer.Argument(help="The job's id.")],
    traceback: Annotated[bool, typer.Option(help="Also the tracebacks of attempts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one job: what was published, where it stands, and what was tried; 1 if unknown."""
    from leveret.ledger import query  # noqa: PLC0415

    def read(connection: Connection) -> tuple[JobDetail, tuple[AttemptEntry, ...]] | None:
        job = query.job(connection, job_id)
        return None if job is None else (job, query.attempts(connection, job))

    found = _read(read)
    if found is None:
        print(f"leveret: the ledger knows no job {job_id!r}", file=sys.stderr)
        raise typer.Exit(1)
    job, attempts = found
    if as_json:
        print_json({**_plain(asdict(job)), "attempts": [_plain(asdict(a)) for a in attempts]})
        return
    facts: list[tuple[str, object]] = [
        ("id", job.id),
        ("actor", job.actor),
        ("queue", job.queue),
        ("state", _state(job.state, job.due_at, job.progress)),
        ("reason", job.reason),
        ("error", _error(job.error_type, job.error, None, longest=2000)),
        ("run", job.run or None),
        ("attempt", job.attempt),
        ("published", _time(job.published_at or job.created_at)),
        ("due", _time(job.due_at)),
        ("started", _time(job.started_at)),
        ("finished", _time(job.finished_at)),
        ("took", _took(job.started_at, job.finished_at)),
        ("worker", job.worker),
        ("progress", None if job.progress is None else _progress(job.progress, job.progress_note)),
        ("cancel requested", _time(job.cancel_requested_at)),
        ("expires", _time(job.expires_at)),
        ("correlation id", job.correlation_id),
        ("idempotency key", job.idempotency_key),
        ("published by", job.app_id),
        ("trace", job.traceparent),
        ("arguments", _bytes(job.body)),
        ("result", _bytes(job.result) or job.result_ref),
        ("result lost", job.result_lost),
    ]
    print_table(("", ""), [fact for fact in facts if fact[1] not in {None, "", "-"}])
    if attempts:
        print()
        print_table(
            ("run", "attempt", "started", "took", "outcome", "worker", "next", "error"),
            [
                (
                    attempt.run,
                    attempt.attempt,
                    _time(attempt.started_at),
                    _took(attempt.started_at, attempt.ended_at),
                    attempt.outcome,
                    attempt.worker or "-",
                    _time(attempt.due_at),
                    _error(attempt.error_type, attempt.error, attempt.reason),
                )
                for attempt in attempts
            ],
        )
    for attempt in attempts if traceback else ():
        if attempt.traceback:
            print(f"\nattempt {attempt.attempt} of run {attempt.run}:\n{attempt.traceback}")


@guarded
def errors(
    actor: Annotated[str | None, typer.Option(help="The actor, such as email.send.")] = None,
    queue: Annotated[str | None, typer.Option(help="The pool.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what the jobs fail of that will be tried again: those with the same cause are one line.

    "Attempts" is how many the furthest of them has failed, "next" when the first of them is due
    again. What is out of attempts is in `leveret dead groups`.
    """
    from leveret.ledger.failing import LIMIT, failing  # noqa: PLC0415

    found = _read(lambda connection: failing(connection, actor=actor, queue=queue))
    if as_json:
        print_json([asdict(group) for group in found])
        return
    print_table(
        ("actor", "queue", "jobs", "attempts", "failed last", "next", "job", "error"),
        [
            (
                group.actor or "-",
                group.queue or "-",
                group.jobs,
                group.attempts,
                _time(group.last_at),
                _time(group.next_at),
                group.job_id,
                _error(group.error_type, group.error, None, longest=_SHOWN_CAUSE),
            )
            for group in found
        ],
    )
    if sum(group.jobs for group in found) >= LIMIT:
        print(f"there may be more: only the newest {LIMIT:,} jobs were read", file=sys.stderr)


@guarded
def workers(
    everyone: Annotated[bool, typer.Option("--all", help="Also those that are gone.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the worker processes, what they consume, and what they run."""
    from leveret.ledger import query  # noqa: PLC0415

    found = _read(lambda connection: query.workers(connection, gone=everyone))
    if as_json:
        print_json([asdict(worker) for worker in found])
        return
    print_table(
        ("worker", "queues", "threads", "running", "since", "seen"),
        [
            (
                worker.id,
                ",".join(worker.queues),
                worker.threads,
                len(worker.running),
                _time(worker.first_seen_at),
                _time(worker.seen_at) if worker.gone_at is None else "gone",
            )
            for worker in found
        ],
    )


def _read(question: Callable[[Connection], T]) -> T:
    from leveret.ledger.query import InvalidCursor  # noqa: PLC0415
    from leveret.store import engine  # noqa: PLC0415

    database = engine(Settings.from_env().require_database_url(), pool_size=1, application="cli")
    try:
        with database.connect() as connection:
            return question(connection)
    except InvalidCursor as error:
        raise ConfigurationError(f"--after: {error}") from None
    finally:
        database.dispose()


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Write bytes as text, where they are text, and as hexadecimal digits where not."""
    return {
        name: _bytes(value, all_of_it=True) if isinstance(value, bytes) else value
        for name, value in values.items()
    }


def _bytes(data: bytes | None, *, all_of_it: bool = False) -> str | None:
    if data is None:
        return None
    try:
        shown = data.decode()
    except UnicodeDecodeError:
        shown = data.hex()
    if all_of_it or len(shown) <= _SHOWN_BYTES:
        return shown
    return f"{shown[:_SHOWN_BYTES]}… ({len(data)} bytes)"


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _took(started_at: datetime | None, ended_at: datetime | None) -> str:
    if started_at is None or ended_at is None or ended_at < started_at:
        return "-"
    seconds = (ended_at - started_at).total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _state(state: State, due_at: datetime | None, progress: float | None) -> str:
    if state is State.RUNNING and progress is not None:
        return f"{state}, {_progress(progress, None)}"
    if state in {State.SCHEDULED, State.RETRYING} and due_at is not None:
        seconds = (due_at - datetime.now(UTC)).total_seconds()
        return f"{state}, in {seconds:.0f} s" if seconds > 0 else f"{state}, due"
    return str(state)


def _progress(share: float, note: str | None) -> str:
    return f"{share:.0%}" + (f", {note}" if note else "")


def _error(
    kind: str | None, error: str | None, reason: str | None, *, longest: int = _SHOWN_ERROR
) -> str:
    words: Sequence[str | None] = (kind, error) if kind or error else (reason,)
    shown = _one_line(word for word in words if word)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _one_line(words: Iterable[str]) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in ": ".join(words)).split())
