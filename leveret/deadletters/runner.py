"""The runner: takes running replays forward, a batch at a time, each at its rate.

Any number of runners may run, in any processes: the row of a replay is locked while one works on
it. The rate is kept by that row, too: ``next_at`` is when the next job is allowed, by the
database's clock, and moves on by ``1 / rate`` for each that was published, so that several runners
together are as fast as one. A quarter of a second's jobs go at once, and are paid for afterwards;
of the time in which nobody ran, no more than that is made up for.

The relay process calls `step` again and again. What a step does, and why it may be killed anywhere,
is told in `leveret.deadletters.replay`.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, insert, select, text, update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from leveret.deadletters import group
from leveret.deadletters.copy import Copy, Unfit, revived, rewritten
from leveret.deadletters.state import LetterState, ReplayState
from leveret.deadletters.text import visible
from leveret.errors import InvalidJob
from leveret.ledger import watch
from leveret.ledger.requeue import Rerun, requeue
from leveret.ledger.state import LIVE, State
from leveret.message import new_id
from leveret.store.schema import DeadLetter, OutboxRow
from leveret.store.schema import Replay as ReplayRow

__all__ = ["step"]

log = logging.getLogger("leveret.deadletters")

#: Dead letters of one transaction.
_BATCH = 500
#: Seconds until somebody looks again, when there is nothing to do.
_IDLE_SECONDS = 2.0
#: Seconds between two batches of a replay with a rate, and what a rate may make up for.
_BURST_SECONDS = 0.25
#: The outbox is not filled further than this: its other jobs have to get through as well.
_MAX_PENDING = 5_000
#: Characters of the reason for which a dead letter was not published.
_LONGEST_REFUSAL = 1000
#: Errors of PostgreSQL that go away when the transaction is tried again.
_TRANSIENT = frozenset({"40001", "40P01", "55P03"})

_NEXT = text(
    "SELECT r.id, r.rate, r.edits, r.next_at, r.requested_by, clock_timestamp() AS now"
    " FROM replays AS r"
    " WHERE r.state = 'running' AND (r.next_at IS NULL OR r.next_at <= clock_timestamp())"
    " ORDER BY r.next_at NULLS FIRST, r.id LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_WAIT = text(
    "SELECT extract(epoch FROM min(next_at) - clock_timestamp())::float8 FROM replays"
    " WHERE state = 'running' AND next_at > clock_timestamp()"
)
_PENDING = text(
    "SELECT count(*) FROM (SELECT 1 FROM leveret_outbox WHERE hold_until = '-infinity'"
    " LIMIT :limit) AS pending"
)
_JOBS = text(
    "SELECT j.id, j.state, j.run FROM jobs AS j"
    " JOIN unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS w(id, created_at)"
    " ON j.id = w.id AND j.created_at = w.created_at ORDER BY j.id FOR UPDATE OF j"
)
_PUBLISH = text(
    "INSERT INTO leveret_outbox (job_id, actor, body, properties, routing_key)"
    " SELECT c.job_id, c.actor, d.body, c.properties, c.routing_key"
    " FROM unnest(CAST(:letters AS bigint[]), CAST(:job_ids AS text[]), CAST(:actors AS text[]),"
    " CAST(:properties AS bytea[]), CAST(:keys AS text[]))"
    " AS c(letter, job_id, actor, properties, routing_key)"
    " JOIN dead_letters AS d ON d.id = c.letter ORDER BY d.id"
)
_RESOLVE = text(
    "UPDATE dead_letters AS d SET state = 'replayed', resolved_at = clock_timestamp(),"
    " resolved_by = :by, new_job_id = c.new_job_id"
    " FROM unnest(CAST(:letters AS bigint[]), CAST(:new_ids AS text[])) AS c(letter, new_job_id)"
    " WHERE d.id = c.letter"
)
_REFUSE = text(
    "UPDATE dead_letters AS d SET state = c.state, refusal = c.refusal"
    " FROM unnest(CAST(:letters AS bigint[]), CAST(:states AS text[]), CAST(:refusals AS text[]))"
    " AS c(letter, state, refusal) WHERE d.id = c.letter"
)
_UNCANCEL = text("DELETE FROM cancellations WHERE job_id = ANY(:ids)")


@dataclass(frozen=True, slots=True)
class _Limits:
    """What the relay can publish."""

    queues: Collection[str] | None
    max_body_bytes: int | None


def step(
    engine: Engine,
    *,
    queues: Collection[str] | None = None,
    max_body_bytes: int | None = None,
    batch: int = _BATCH,
    idle: float = _IDLE_SECONDS,
) -> float:
    """Take one batch of one replay forward; return the seconds until the next step.

    What the relay could not publish is refused: what belongs to none of the work queues
    ``queues``, and what is larger than ``max_body_bytes``; None does not look. Raises what
    SQLAlchemy raises when the database is away; a transaction that lost against another is simply
    tried again. Safe from any number of threads and processes.
    """
    limits = _Limits(queues, max_body_bytes)
    try:
        with engine.begin() as connection:
            seconds, changed = _step(connection, limits, batch, idle)
        if changed:
            with engine.begin() as connection:
                watch.notify(connection, changed)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in _TRANSIENT:
            raise
        log.info("a batch of a replay has to be tried again: %s", error.orig)
        return 0.1
    return seconds


def _step(
    connection: Connection, limits: _Limits, batch: int, idle: float
) -> tuple[float, list[str]]:
    """Do it; return the seconds, and the jobs that have changed."""
    replay = connection.execute(_NEXT).one_or_none()
    if replay is None:
        wait = connection.execute(_WAIT).scalar_one()
        return idle if wait is None else min(idle, max(wait, 0.0)), []
    if connection.execute(_PENDING, {"limit": _MAX_PENDING}).scalar_one() >= _MAX_PENDING:
        return 0.25, []  # the relay is behind
    allowed, since = _allowance(replay, batch)
    letters = _claimed(connection, replay.id, allowed)
    plan = _plan(connection, replay, letters, limits)
    _carry_out(connection, replay, plan)
    left = connection.execute(
        select(DeadLetter.id)
        .where(DeadLetter.replay_id == replay.id, DeadLetter.state == LetterState.REPLAYING)
        .limit(1)
    ).first()
    done = left is None
    changes: dict[str, Any] = {
        "published": ReplayRow.published + len(plan.copies),
        "refused": ReplayRow.refused + len(plan.refusals),
        "next_at": since + timedelta(seconds=len(plan.copies) / (replay.rate or math.inf)),
    }
    if done:
        changes |= {"state": ReplayState.DONE, "finished_at": func.clock_timestamp()}
    connection.execute(update(ReplayRow).where(ReplayRow.id == replay.id).values(**changes))
    return 0.0, [copy.job_id for copy in plan.copies.values()]


def _allowance(replay: Row[Any], batch: int) -> tuple[int, datetime]:
    """Return how many jobs may go now, and the time from which they are paid for."""
    if replay.rate is None:
        return batch, replay.now
    burst = max(1, round(replay.rate * _BURST_SECONDS))
    earliest = replay.now - timedelta(seconds=_BURST_SECONDS)
    since = replay.now if replay.next_at is None else max(replay.next_at, earliest)
    return min(burst, batch), since


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is done with a batch of dead letters; everything by the letter's id."""

    letters: Mapping[int, Row[Any]]
    copies: dict[int, Copy] = field(default_factory=dict)
    #: Why not, and the state that follows.
    refusals: dict[int, tuple[LetterState, str]] = field(default_factory=dict)


def _claimed(connection: Connection, replay_id: int, limit: int) -> list[int]:
    rows = connection.execute(
        select(DeadLetter.id)
        .where(DeadLetter.replay_id == replay_id, DeadLetter.state == LetterState.REPLAYING)
        .order_by(DeadLetter.id)
        .limit(limit)
    )
    return list(rows.scalars())


def _plan(connection: Connection, replay: Row[Any], ids: list[int], limits: _Limits) -> _Plan:
    """Lock the jobs, then the dead letters (in the recorder's order), and decide for each."""
    named = connection.execute(
        select(DeadLetter.job_id, DeadLetter.job_created_at)
        .where(DeadLetter.id == func.any(ids), DeadLetter.job_created_at.is_not(None))
        .distinct()
    ).all()
    jobs = {
        row.id: row
        for row in connection.execute(
            _JOBS,
            {
                "ids": [row.job_id for row in named],
                "times": [row.job_created_at for row in named],
            },
        )
    }
    columns: list[Any] = [
        DeadLetter.id,
        DeadLetter.job_id,
        DeadLetter.job_created_at,
        DeadLetter.run,
        DeadLetter.actor,
        DeadLetter.queue,
        DeadLetter.routing_key,
        DeadLetter.fingerprint,
        DeadLetter.properties,
        func.octet_length(DeadLetter.body).label("size"),
    ]
    if replay.edits is not None:
        columns.append(DeadLetter.body)
    rows = connection.execute(
        select(*columns)
        .where(DeadLetter.id == func.any(ids), DeadLetter.state == LetterState.REPLAYING)
        .order_by(DeadLetter.id)
        .with_for_update(skip_locked=True)
    ).all()
    plan = _Plan({row.id: row for row in rows})
    started: set[str] = set()
    for letter in rows:
        job = jobs.get(letter.job_id)
        try:
            if replay.edits is not None:
                copy = rewritten(
                    letter, replay.edits, job_id=new_id(), now=replay.now, queues=limits.queues
                )
                _check_size(len(copy.body or b""), limits)
                plan.copies[letter.id] = copy
                continue
            if job is not None and job.state == State.SUCCEEDED:
                why = "its job has succeeded all the same"
                plan.refusals[letter.id] = (LetterState.SUPERSEDED, why)
                continue
            _check_job(letter, job, started)
            _check_size(letter.size, limits)
            plan.copies[letter.id] = revived(
                letter, job_id=letter.job_id or new_id(), now=replay.now, queues=limits.queues
            )
        except (Unfit, InvalidJob) as error:
            plan.refusals[letter.id] = (LetterState.OPEN, visible(str(error))[:_LONGEST_REFUSAL])
            continue
        if letter.job_id is not None:
            started.add(letter.job_id)
    return plan


def _check_size(size: int, limits: _Limits) -> None:
    limit = limits.max_body_bytes
    if limit is not None and size > limit:
        raise Unfit(f"its body has {size:,} bytes, and {limit:,} are the limit")


def _check_job(letter: Row[Any], job: Row[Any] | None, started: Collection[str]) -> None:
    """Raise `Unfit` unless the job can run again now, and this is its last death."""
    if letter.job_id in started:
        raise Unfit("its job is queued again already, by another of its dead letters")
    if job is None:
        return  # the ledger has forgotten it, or never knew its id
    if job.state in LIVE:
        raise Unfit(f"its job is {job.state} (run {job.run})")
    if job.run > letter.run:
        raise Unfit(f"its job has been replayed since and is {job.state} (run {job.run})")


def _carry_out(connection: Connection, replay: Row[Any], plan: _Plan) -> None:
    copies, letters = plan.copies, plan.letters
    if copies:
        same = [(key, copy) for key, copy in copies.items() if copy.body is None]
        connection.execute(
            _PUBLISH,
            {
                "letters": [key for key, _ in same],
                "job_ids": [copy.job_id for _, copy in same],
                "actors": [copy.actor for _, copy in same],
                "properties": [copy.properties for _, copy in same],
                "keys": [copy.routing_key for _, copy in same],
            },
        )
        rewritten_rows = [
            {
                "job_id": copy.job_id,
                "actor": copy.actor,
                "body": copy.body,
                "properties": copy.properties,
                "routing_key": copy.routing_key,
            }
            for copy in copies.values()
            if copy.body is not None
        ]
        if rewritten_rows:
            connection.execute(insert(OutboxRow), rewritten_rows)
        connection.execute(
            _RESOLVE,
            {
                "by": replay.requested_by,
                "letters": list(copies),
                "new_ids": [
                    None if copy.job_id == letters[key].job_id else copy.job_id
                    for key, copy in copies.items()
                ],
            },
        )
        _queue_jobs(connection, [letters[key] for key, copy in same if letters[key].job_id])
    if plan.refusals:
        connection.execute(
            _REFUSE,
            {
                "letters": list(plan.refusals),
                "states": [state for state, _ in plan.refusals.values()],
                "refusals": [why for _, why in plan.refusals.values()],
            },
        )
    group.resolved(
        connection, LetterState.REPLAYED, Counter(letters[key].fingerprint for key in copies)
    )
    group.resolved(
        connection,
        LetterState.SUPERSEDED,
        Counter(
            letters[key].fingerprint
            for key, (state, _) in plan.refusals.items()
            if state is LetterState.SUPERSEDED
        ),
    )


def _queue_jobs(connection: Connection, letters: Sequence[Row[Any]]) -> None:
    """Set the jobs back to ``queued``, in their next run."""
    known = [letter for letter in letters if letter.job_created_at is not None]
    ids = [letter.job_id for letter in letters]
    requeue(connection, [Rerun(one.job_id, one.job_created_at, one.run + 1) for one in known])
    connection.execute(_UNCANCEL, {"ids": ids})
