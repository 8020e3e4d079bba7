"""Reading dead letters: statements for any connection, and what their rows say.

Statements are built here and executed by the caller, on a connection of SQLAlchemy's own kind or
of its asyncio kind. Lists are pages by keyset: what follows the last row of a page begins `after`
its key. No list reads a body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, Select, and_, case, func, or_, select, tuple_, union_all

from leveret.deadletters.selection import Selection
from leveret.deadletters.state import LetterState, ReplayState
from leveret.ledger.state import LIVE, State
from leveret.store.schema import Attempt, DeadLetter, DeadLetterGroup, JobRow
from leveret.store.schema import Replay as ReplayRow

__all__ = [
    "AttemptLine",
    "Group",
    "Letter",
    "LetterLine",
    "ReplayLine",
    "Results",
    "count_letters",
    "one_letter",
    "one_replay",
    "page_of_groups",
    "page_of_letters",
    "page_of_replays",
    "read_attempt",
    "read_group",
    "read_letter",
    "read_line",
    "read_replay",
    "read_results",
    "results_of_replay",
    "runs_of_job",
]

#: The most rows of a page.
MAX_PAGE = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterLine:
    """A dead letter, as a list shows it."""

    id: int
    job_id: str | None
    run: int
    attempt: int
    actor: str | None
    #: The pool in which it died; None for what no queue wanted.
    queue: str | None
    routing_key: str
    reason: str
    error_type: str | None
    error: str | None
    fingerprint: str
    dead_at: datetime
    state: LetterState
    replay_id: int | None
    new_job_id: str | None
    #: Why the last replay that wanted it did not publish it.
    refusal: str | None
    #: Bytes of the body.
    size: int

    @property
    def died_again(self) -> bool:
        """Whether its job had been replayed before."""
        return self.run > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter(LetterLine):
    """A dead letter, with everything."""

    key: str
    job_created_at: datetime | None
    exchange: str | None
    traceback: str | None
    body: bytes
    #: AMQP properties as they are encoded on the wire.
    properties: bytes
    headers: Mapping[str, Any] | None
    stored_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """All dead letters with one fingerprint."""

    fingerprint: str
    actor: str | None
    reason: str
    error_type: str | None
    #: Of the latest.
    error: str | None
    traceback: str | None
    first_at: datetime
    last_at: datetime
    total: int
    #: Not resolved; those that a replay has not come to yet are among them.
    open: int
    replayed: int
    discarded: int
    superseded: int
    #: Dead letters of jobs that had been replayed before.
    died_again: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptLine:
    """One attempt of a job."""

    run: int
    attempt: int
    started_at: datetime
    ended_at: datetime | None
    worker: str | None
    outcome: str
    reason: str | None
    error_type: str | None
    error: str | None


_LINE: tuple[Any, ...] = (
    DeadLetter.id,
    DeadLetter.job_id,
    DeadLetter.run,
    DeadLetter.attempt,
    DeadLetter.actor,
    DeadLetter.queue,
    DeadLetter.routing_key,
    DeadLetter.reason,
    DeadLetter.error_type,
    DeadLetter.error,
    DeadLetter.fingerprint,
    DeadLetter.dead_at,
    DeadLetter.state,
    DeadLetter.replay_id,
    DeadLetter.new_job_id,
    DeadLetter.refusal,
    func.octet_length(DeadLetter.body).label("size"),
)
_REST: tuple[Any, ...] = (
    DeadLetter.key,
    DeadLetter.job_created_at,
    DeadLetter.exchange,
    DeadLetter.traceback,
    DeadLetter.body,
    DeadLetter.properties,
    DeadLetter.headers,
    DeadLetter.stored_at,
    DeadLetter.resolved_at,
    DeadLetter.resolved_by,
)
_GROUP: tuple[Any, ...] = (
    DeadLetterGroup.fingerprint,
    DeadLetterGroup.actor,
    DeadLetterGroup.reason,
    DeadLetterGroup.error_type,
    DeadLetterGroup.error,
    DeadLetterGroup.traceback,
    DeadLetterGroup.first_at,
    DeadLetterGroup.last_at,
    DeadLetterGroup.total,
    DeadLetterGroup.open,
    DeadLetterGroup.replayed,
    DeadLetterGroup.discarded,
    DeadLetterGroup.superseded,
    DeadLetterGroup.died_again,
)
_ATTEMPT: tuple[Any, ...] = (
    Attempt.run,
    Attempt.attempt,
    Attempt.started_at,
    Attempt.ended_at,
    Attempt.worker,
    Attempt.outcome,
    Attempt.reason,
    Attempt.error_type,
    Attempt.error,
)


# ------------------------------------------------------------------------------------- the letters


def page_of_letters(
    selection: Selection, *, limit: int = 50, after: tuple[datetime, int] | None = None
) -> Select[Any]:
    """Select a page of dead letters, the latest first; ``after`` is (dead_at, id) of the last."""
    statement = select(*_LINE).where(*selection.conditions())
    if after is not None:
        statement = statement.where(tuple_(DeadLetter.dead_at, DeadLetter.id) < after)
    order = (DeadLetter.dead_at.desc(), DeadLetter.id.desc())
    return statement.order_by(*order).limit(min(limit, MAX_PAGE))


def read_line(row: Row[Any]) -> LetterLine:
    """Read a row of `page_of_letters`."""
    values = dict(row._mapping)  # noqa: SLF001 - a public name of SQLAlchemy's
    return LetterLine(**{**values, "state": LetterState(values["state"])})


def count_letters(selection: Selection) -> Select[Any]:
    """Select how many dead letters there are."""
    return select(func.count()).select_from(DeadLetter).where(*selection.conditions())


def one_letter(letter_id: int) -> Select[Any]:
    """Select a dead letter with everything."""
    return select(*_LINE, *_REST).where(DeadLetter.id == letter_id)


def read_letter(row: Row[Any]) -> Letter:
    """Read a row of `one_letter`."""
    values = dict(row._mapping)  # noqa: SLF001 - a public name of SQLAlchemy's
    return Letter(**{**values, "state": LetterState(values["state"])})


def runs_of_job(job_id: str) -> Select[Any]:
    """Select the attempts of a job, of all its runs, in their order."""
    statement: Select[Any] = select(*_ATTEMPT).where(Attempt.job_id == job_id)
    order = (Attempt.run, Attempt.started_at, Attempt.attempt)
    return statement.order_by(*order).limit(MAX_PAGE)


def read_attempt(row: Row[Any]) -> AttemptLine:
    """Read a row of `runs_of_job`."""
    return AttemptLine(**row._mapping)  # noqa: SLF001 - a public name of SQLAlchemy's


# -------------------------------------------------------------------------------------- the groups


def page_of_groups(
    *,
    order: Literal["latest", "open"] = "latest",
    only_open: bool = False,
    actor: str | None = None,
    reason: str | None = None,
    limit: int = 50,
    after: Group | None = None,
) -> Select[Any]:
    """Select a page of groups: those with the latest dead letters first, or with the most open.

    ``after`` is the last group of the page before.
    """
    statement: Select[Any] = select(*_GROUP)
    latest = tuple_(DeadLetterGroup.last_at, DeadLetterGroup.fingerprint)
    if only_open:
        statement = statement.where(DeadLetterGroup.open > 0)
    if actor is not None:
        statement = statement.where(DeadLetterGroup.actor == actor)
    if reason is not None:
        statement = statement.where(DeadLetterGroup.reason == reason)
    if after is not None:
        follows = latest < (after.last_at, after.fingerprint)
        if order == "open":
            same = and_(DeadLetterGroup.open == after.open, follows)
            follows = or_(DeadLetterGroup.open < after.open, same)
        statement = statement.where(follows)
    if order == "open":
        statement = statement.order_by(DeadLetterGroup.open.desc())
    return statement.order_by(
        DeadLetterGroup.last_at.desc(), DeadLetterGroup.fingerprint.desc()
    ).limit(min(limit, MAX_PAGE))


def read_group(row: Row[Any]) -> Group:
    """Read a row of `page_of_groups`."""
    return Group(**row._mapping)  # noqa: SLF001 - a public name of SQLAlchemy's


# ------------------------------------------------------------------------------------- the replays


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayLine:
    """A replay, and how far it is."""

    id: int
    created_at: datetime
    requested_by: str
    selection: Selection
    #: Jobs per second; None for as fast as it goes.
    rate: float | None
    edits: Mapping[str, Any] | None
    state: ReplayState
    #: Dead letters that it took.
    total: int
    published: int
    refused: int
    finished_at: datetime | None

    @property
    def left(self) -> int:
        """Dead letters that it has not come to yet."""
        running = self.state is ReplayState.RUNNING
        return max(0, self.total - self.published - self.refused) if running else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """What became of the jobs that a replay has published."""

    succeeded: int
    #: Dead or expired once more.
    died_again: int
    #: Waiting or running.
    live: int
    #: Cancelled, or no longer in the ledger.
    other: int


_REPLAY: tuple[Any, ...] = (
    ReplayRow.id,
    ReplayRow.created_at,
    ReplayRow.requested_by,
    ReplayRow.selection,
    ReplayRow.rate,
    ReplayRow.edits,
    ReplayRow.state,
    ReplayRow.total,
    ReplayRow.published,
    ReplayRow.refused,
    ReplayRow.finished_at,
)


def one_replay(replay_id: int) -> Select[Any]:
    """Select a replay."""
    return select(*_REPLAY).where(ReplayRow.id == replay_id)


def page_of_replays(*, limit: int = 50, after: int | None = None) -> Select[Any]:
    """Select a page of replays, the latest first; ``after`` is the id of the last."""
    statement = select(*_REPLAY)
    if after is not None:
        statement = statement.where(ReplayRow.id < after)
    return statement.order_by(ReplayRow.id.desc()).limit(min(limit, MAX_PAGE))


def read_replay(row: Row[Any]) -> ReplayLine:
    """Read a row of `one_replay` or `page_of_replays`."""
    values = dict(row._mapping)  # noqa: SLF001 - a public name of SQLAlchemy's
    values["selection"] = Selection.from_dict(values["selection"])
    values["state"] = ReplayState(values["state"])
    return ReplayLine(**values)


def results_of_replay(replay_id: int) -> Select[Any]:
    """Select what became of a replay's jobs, one row; reads each of them, so not for a loop."""
    mine = and_(DeadLetter.replay_id == replay_id, DeadLetter.state == LetterState.REPLAYED)
    same = (
        select(
            # It is the next run that counts; where there is a later one, that died again, too.
            case((JobRow.run > DeadLetter.run + 1, "dead"), else_=JobRow.state).label("state")
        )
        .select_from(DeadLetter)
        .outerjoin(
            JobRow,
            and_(JobRow.id == DeadLetter.job_id, JobRow.created_at == DeadLetter.job_created_at),
        )
        .where(mine, DeadLetter.new_job_id.is_(None))
    )
    new = (
        select(JobRow.state)
        .select_from(DeadLetter)
        .outerjoin(JobRow, JobRow.id == DeadLetter.new_job_id)
        .where(mine, DeadLetter.new_job_id.is_not(None))
    )
    states = union_all(same, new).subquery()
    dead = states.c.state.in_([State.DEAD, State.EXPIRED])
    live = states.c.state.in_(sorted(LIVE))
    succeeded = states.c.state == State.SUCCEEDED
    other = or_(states.c.state.is_(None), states.c.state == State.CANCELLED)
    counts: tuple[Any, ...] = (
        func.count().filter(succeeded).label("succeeded"),
        func.count().filter(dead).label("died_again"),
        func.count().filter(live).label("live"),
        func.count().filter(other).label("other"),
    )
    return select(*counts).select_from(states)


def read_results(row: Row[Any]) -> Results:
    """Read the row of `results_of_replay`."""
    return Results(**row._mapping)  # noqa: SLF001 - a public name of SQLAlchemy's
