"""Reading dead letters, their groups, and replays: lists, one, and its history.

As in `leveret.ledger.query`, every function takes a synchronous SQLAlchemy connection (from asyncio
``await connection.run_sync(query.letters, Selection(actor="email.send"), limit=50)``), and lists
are pages whose cursor is the key of the last row. No list reads a body.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Row, Select, and_, case, func, or_, select, tuple_, union_all
from sqlalchemy.engine import Connection

from leveret.deadletters.selection import Selection
from leveret.deadletters.state import LetterState, ReplayState
from leveret.ledger import query as ledger
from leveret.ledger.query import AttemptEntry, InvalidCursor, JobSummary, Page
from leveret.ledger.state import LIVE, State
from leveret.store.schema import DeadLetter, DeadLetterGroup, JobRow
from leveret.store.schema import Replay as ReplayRow

__all__ = [
    "MAX_PAGE",
    "Group",
    "History",
    "Letter",
    "LetterLine",
    "Replay",
    "Results",
    "count",
    "fingerprints",
    "group",
    "groups",
    "history",
    "letter",
    "letters",
    "page_statement",
    "replay",
    "replays",
    "results",
]

#: The most rows of a page.
MAX_PAGE = 500
#: So long may it take until the ledger knows the new job of an edited replay.
_ON_ITS_WAY = timedelta(days=1)


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
class Replay:
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
    #: Waiting or running, or so new that the ledger does not know it yet.
    live: int
    #: Cancelled, or no longer in the ledger.
    other: int


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What else there is to know about the job of a dead letter."""

    #: None when the ledger does not know it (any more).
    job: JobSummary | None
    #: Of all its runs, oldest first.
    attempts: tuple[AttemptEntry, ...]
    #: All dead letters of the job, this one among them, oldest first.
    letters: tuple[LetterLine, ...]
    #: The replays that took any of them.
    replays: tuple[Replay, ...]
    #: The job that an edited replay has made of this dead letter.
    new_job: JobSummary | None


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


# ------------------------------------------------------------------------------------- the letters


def letters(
    connection: Connection, which: Selection, *, limit: int = 50, after: str | None = None
) -> Page[LetterLine]:
    """Return a page of dead letters, the latest first.

    ``limit`` is cut to `MAX_PAGE`. Raises `InvalidCursor`.
    """
    limit = max(1, min(limit, MAX_PAGE))
    statement = page_statement(which, limit=limit + 1, after=after)
    shown = [_line(row) for row in connection.execute(statement)]
    following = None
    if len(shown) > limit:
        last = shown[limit - 1]
        following = _cursor((last.dead_at - _EPOCH) // _MICROSECOND, last.id)
    return Page(items=tuple(shown[:limit]), next=following)


def page_statement(which: Selection, *, limit: int, after: str | None = None) -> Select[Any]:
    """Return the statement that lists dead letters."""
    order = (DeadLetter.dead_at.desc(), DeadLetter.id.desc())
    # The keys of the page first: whatever the filter, an index has all that it looks at, and the
    # letters themselves, which are large, are read only for those that are shown.
    keys = select(DeadLetter.id).where(*which.conditions())
    if after is not None:
        micros, letter_id = _read_cursor(after, int, int)
        key = tuple_(_EPOCH + micros * _MICROSECOND, letter_id)
        keys = keys.where(tuple_(DeadLetter.dead_at, DeadLetter.id) < key)
    page = keys.order_by(*order).limit(limit).subquery("page")
    return select(*_LINE).join(page, page.c.id == DeadLetter.id).order_by(*order)


def count(connection: Connection, which: Selection) -> int:
    """Count dead letters."""
    statement = select(func.count()).select_from(DeadLetter).where(*which.conditions())
    return connection.execute(statement).scalar_one()


def letter(connection: Connection, letter_id: int) -> Letter | None:
    """Return a dead letter with everything; None when there is none."""
    row = connection.execute(select(*_LINE, *_REST).where(DeadLetter.id == letter_id)).first()
    if row is None:
        return None
    return Letter(**{**row._mapping, "state": LetterState(row.state)})  # noqa: SLF001 - its public name


def history(connection: Connection, of: LetterLine) -> History:
    """Return what else there is to know about the job of a dead letter."""
    job = None if of.job_id is None else ledger.job(connection, of.job_id)
    others: tuple[LetterLine, ...] = (of,)
    if of.job_id is not None:
        statement = select(*_LINE).where(DeadLetter.job_id == of.job_id)
        rows = connection.execute(statement.order_by(DeadLetter.id).limit(MAX_PAGE))
        others = tuple(_line(row) for row in rows)
    ids = sorted({other.replay_id for other in others if other.replay_id is not None})
    rows = connection.execute(select(*_REPLAY).where(ReplayRow.id.in_(ids)).order_by(ReplayRow.id))
    return History(
        job=job,
        attempts=() if job is None else ledger.attempts(connection, job),
        letters=others,
        replays=tuple(_replay(row) for row in rows),
        new_job=None if of.new_job_id is None else ledger.job(connection, of.new_job_id),
    )


def _line(row: Row[Any]) -> LetterLine:
    return LetterLine(**{**row._mapping, "state": LetterState(row.state)})  # noqa: SLF001 - its public name


# -------------------------------------------------------------------------------------- the groups


def groups(
    connection: Connection,
    *,
    order: Literal["latest", "open"] = "latest",
    only_open: bool = False,
    actor: str | None = None,
    reason: str | None = None,
    since: datetime | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Group]:
    """Return a page of groups: those with the latest dead letters first, or with the most open.

    ``since`` leaves out what was known before it; ``limit`` is cut to `MAX_PAGE`. Raises
    `InvalidCursor`.
    """
    limit = max(1, min(limit, MAX_PAGE))
    key = [DeadLetterGroup.last_at, DeadLetterGroup.fingerprint]
    statement = select(*_GROUP)
    if order == "open":
        key.insert(0, DeadLetterGroup.open)
    if only_open:
        statement = statement.where(DeadLetterGroup.open > 0)
    if actor is not None:
        statement = statement.where(DeadLetterGroup.actor == actor)
    if reason is not None:
        statement = statement.where(DeadLetterGroup.reason == reason)
    if since is not None:
        # The first condition says nothing new, but an index has it.
        statement = statement.where(
            DeadLetterGroup.last_at >= since, DeadLetterGroup.first_at >= since
        )
    if after is not None:
        amount, micros, fingerprint = _read_cursor(after, int, int, str)
        last = [_EPOCH + micros * _MICROSECOND, fingerprint]
        if order == "open":
            last.insert(0, amount)
        statement = statement.where(tuple_(*key) < tuple_(*last))
    statement = statement.order_by(*(column.desc() for column in key)).limit(limit + 1)
    shown = [_group(row) for row in connection.execute(statement)]
    following = None
    if len(shown) > limit:
        end = shown[limit - 1]
        following = _cursor(end.open, (end.last_at - _EPOCH) // _MICROSECOND, end.fingerprint)
    return Page(items=tuple(shown[:limit]), next=following)


def group(connection: Connection, fingerprint: str) -> Group | None:
    """Return a group; None when there is none."""
    row = connection.execute(
        select(*_GROUP).where(DeadLetterGroup.fingerprint == fingerprint)
    ).first()
    return None if row is None else _group(row)


def fingerprints(connection: Connection, prefix: str, *, limit: int = 2) -> list[str]:
    """Return the fingerprints that begin like this, or the one that is this."""
    if not prefix.isalnum():
        return []
    column = DeadLetterGroup.fingerprint
    found = connection.execute(
        select(column).where(column.startswith(prefix, autoescape=True)).order_by(column)
    )
    matching = list(found.scalars())
    return [prefix] if prefix in matching else matching[:limit]


def _group(row: Row[Any]) -> Group:
    return Group(**row._mapping)  # noqa: SLF001 - its public name


# ------------------------------------------------------------------------------------- the replays


def replay(connection: Connection, replay_id: int) -> Replay | None:
    """Return a replay and how far it is; None when there is none."""
    row = connection.execute(select(*_REPLAY).where(ReplayRow.id == replay_id)).first()
    return None if row is None else _replay(row)


def replays(connection: Connection, *, limit: int = 50, after: str | None = None) -> Page[Replay]:
    """Return a page of replays, the latest first. Raises `InvalidCursor`."""
    limit = max(1, min(limit, MAX_PAGE))
    statement = select(*_REPLAY)
    if after is not None:
        (last,) = _read_cursor(after, int)
        statement = statement.where(ReplayRow.id < last)
    rows = connection.execute(statement.order_by(ReplayRow.id.desc()).limit(limit + 1))
    shown = [_replay(row) for row in rows]
    following = _cursor(shown[limit - 1].id) if len(shown) > limit else None
    return Page(items=tuple(shown[:limit]), next=following)


def results(connection: Connection, replay_id: int) -> Results:
    """Count what became of the jobs that a replay has published; reads each, so not for a loop."""
    row = connection.execute(_results_statement(replay_id)).one()
    return Results(**row._mapping)  # noqa: SLF001 - its public name


def _replay(row: Row[Any]) -> Replay:
    values = dict(row._mapping)  # noqa: SLF001 - its public name
    values["selection"] = Selection.from_dict(values["selection"])
    values["state"] = ReplayState(values["state"])
    return Replay(**values)


def _results_statement(replay_id: int) -> Select[Any]:
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
    # The ledger may not have heard of it yet; retention takes no job that is younger than a day.
    expected = and_(JobRow.state.is_(None), DeadLetter.resolved_at > func.now() - _ON_ITS_WAY)
    new = (
        select(case((expected, State.QUEUED), else_=JobRow.state).label("state"))
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


# ------------------------------------------------------------------------------------- the cursors


def _cursor(*key: int | str) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _read_cursor(cursor: str, *kinds: type) -> list[Any]:
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        key = None
    if (
        not isinstance(key, list)
        or [type(part) for part in key] != list(kinds)
        or any(isinstance(part, int) and not 0 <= part < 2**57 for part in key)
    ):
        raise InvalidCursor("the cursor is not one that a page has ended with")
    return key


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.resolution
