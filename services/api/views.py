"""What the API shows of jobs, dead letters, replays and workers, and how lists are asked for."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from leveret.deadletters import LetterState, ReplayState, Results, Selection
from leveret.deadletters import Replay as ReplayLine
from leveret.deadletters.query import Letter
from leveret.errors import InvalidJob
from leveret.ledger import State
from leveret.ledger.cancel import CancelOutcome
from leveret.ledger.query import JobDetail
from leveret.ledger.retry import RetryOutcome
from leveret.message import read_json
from services.api.models import Time, Word, kept

__all__ = [
    "Attempt",
    "AttemptList",
    "Cancelled",
    "DeadLetter",
    "DeadLetterLine",
    "DeadLetterPage",
    "DeadLetterQuery",
    "Discard",
    "Discarded",
    "GroupPage",
    "GroupQuery",
    "GroupView",
    "Job",
    "JobLine",
    "JobPage",
    "JobQuery",
    "NewReplay",
    "PageQuery",
    "Replay",
    "ReplayPage",
    "ReplayResults",
    "Retried",
    "Worker",
    "WorkerList",
    "WorkerQuery",
]

MAX_PAGE = 200
_MAX_CURSOR = 2000


class PageQuery(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=MAX_PAGE)
    cursor: str | None = Field(
        default=None, max_length=_MAX_CURSOR, description="`next` of the page before."
    )


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


# --------------------------------------------------------------------------------------------- jobs


class JobQuery(PageQuery):
    """Which jobs to list; all that is given must hold."""

    state: list[State] = Field(default=[], max_length=8, description="Any of these.")
    actor: Word | None = None
    queue: Word | None = None
    since: Time | None = Field(default=None, description="Created at or after this time.")
    until: Time | None = Field(default=None, description="Created before this time.")
    correlation_id: Word | None = None
    idempotency_key: Word | None = None
    q: Word | None = Field(
        default=None,
        description="An id as somebody pasted it: of a job, a correlation id, an idempotency key.",
    )


class JobLine(_Shown):
    """A job in a list."""

    id: str
    state: State
    actor: str | None = Field(
        description="Null, like all that was published, while only an outcome has been seen."
    )
    queue: str | None
    created_at: datetime
    published_at: datetime | None
    due_at: datetime | None = Field(description="Not before this time: scheduled or retrying.")
    expires_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    run: int = Field(description="How often the job has been replayed.")
    attempt: int = Field(description="1 for the first attempt of a run.")
    priority: int | None
    worker: str | None
    reason: str | None
    error_type: str | None
    error: str | None
    progress: float | None = Field(description="From 0 to 1.")
    progress_note: str | None
    correlation_id: str | None
    idempotency_key: str | None
    cancel_requested_at: datetime | None
    updated_at: datetime


class Job(JobLine):
    """A job, with all that is known of it."""

    arguments: Any = Field(default=None, description="As published; null if they are no JSON.")
    body_base64: str | None = Field(
        default=None, description="The bytes that were published, if they are no JSON."
    )
    headers: dict[str, Any] | None
    routing_key: str | None
    app_id: str | None
    traceparent: str | None
    result: Any = Field(default=None, description="What the actor returned.")
    result_ref: str | None = Field(
        description="Where a large result is, below the workers' LEVERET_RESULT_STORE."
    )
    result_lost: str | None = Field(description="Why the result was not kept.")

    @classmethod
    def of(cls, found: JobDetail) -> Self:
        """Show a job of the ledger."""
        arguments, raw = _document(found.body)
        result, _ = _document(found.result)
        line = JobLine.model_validate(found)
        return cls(
            **line.model_dump(),
            arguments=arguments,
            body_base64=raw,
            headers=_mapping(found.headers),
            routing_key=found.routing_key,
            app_id=found.app_id,
            traceparent=found.traceparent,
            result=result,
            result_ref=found.result_ref,
            result_lost=found.result_lost,
        )


class JobPage(BaseModel):
    """A page of jobs, the newest first."""

    jobs: list[JobLine]
    next: str | None = Field(description="The `cursor` of the next page; null at the end.")


class Attempt(_Shown):
    """One run of an actor for a job, or a delivery that ended without one."""

    run: int
    attempt: int
    outcome: str = Field(
        description="running, succeeded, retrying, snoozed, dead, expired, cancelled, "
        "quarantined or abandoned"
    )
    started_at: datetime
    ended_at: datetime | None
    worker: str | None
    queue: str | None
    due_at: datetime | None = Field(description="When the next attempt was due.")
    reason: str | None
    error_type: str | None
    error: str | None
    traceback: str | None


class AttemptList(BaseModel):
    """What was tried for a job, the oldest first."""

    attempts: list[Attempt]


class Cancelled(BaseModel):
    """What came of calling a job off."""

    id: str
    outcome: CancelOutcome = Field(description="cancelled or requested")
    state: State | None = Field(description="Where it stands now.")
    detail: str
    told: bool = Field(
        description="Whether the workers have been told. Those that have not been read it in the "
        "database when they next connect."
    )


class Retried(BaseModel):
    """What came of running a job again."""

    id: str
    outcome: RetryOutcome = Field(description="queued or replaying")
    detail: str
    replay_id: int | None = Field(description="The replay that runs its dead letter again.")


# ------------------------------------------------------------------------------------- dead letters


class _Filter(BaseModel):
    fingerprint: Word | None = None
    job_id: Word | None = None
    actor: Word | None = None
    queue: Word | None = None
    reason: Word | None = None
    error: Annotated[str, Field(max_length=255), AfterValidator(kept)] | None = Field(
        default=None, description="Words of the error, in any case."
    )
    since: Time | None = Field(default=None, description="Dead at this time or later.")
    until: Time | None = Field(default=None, description="Dead before this time.")

    def selection(self, **more: Any) -> Selection:
        """Return it as the library has it."""
        return Selection(**{name: getattr(self, name) for name in _Filter.model_fields}, **more)


class DeadLetterQuery(PageQuery, _Filter):
    """Which dead letters to list; all that is given must hold."""

    state: Literal["open", "replaying", "replayed", "discarded", "superseded", "all"] = "open"


class Which(_Filter):
    """Which open dead letters are meant; all that is given must hold."""

    model_config = ConfigDict(strict=True, extra="forbid")

    ids: (
        Annotated[list[Annotated[int, Field(ge=1, lt=2**63)]], Field(min_length=1, max_length=1000)]
        | None
    ) = None
    all: bool = Field(default=False, description="All of them, if nothing else is given.")

    def selected(self) -> Selection:
        """Return it as the library has it."""
        return self.selection(ids=None if self.ids is None else tuple(self.ids))


class DeadLetterLine(_Shown):
    """A dead letter in a list."""

    id: int
    state: LetterState
    job_id: str | None
    run: int
    attempt: int
    actor: str | None
    queue: str | None = Field(description="Where it died; null for what no queue wanted.")
    routing_key: str
    reason: str
    error_type: str | None
    error: str | None
    fingerprint: str = Field(description="Of its group.")
    dead_at: datetime
    died_again: bool = Field(description="Whether its job had been replayed before.")
    replay_id: int | None
    new_job_id: str | None = Field(description="The job that an edited replay made of it.")
    refusal: str | None = Field(description="Why the last replay did not publish it.")
    size: int = Field(description="Bytes of its body.")


class DeadLetter(DeadLetterLine):
    """A dead letter, with its original bytes."""

    traceback: str | None
    arguments: Any = Field(default=None, description="Null if the body is no JSON.")
    body_base64: str = Field(description="The original bytes.")
    headers: dict[str, Any] | None
    exchange: str | None
    stored_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None

    @classmethod
    def of(cls, found: Letter) -> Self:
        """Show a dead letter."""
        arguments, _ = _document(found.body)
        return cls(
            **DeadLetterLine.model_validate(found).model_dump(),
            traceback=found.traceback,
            arguments=arguments,
            body_base64=base64.b64encode(found.body).decode(),
            headers=_mapping(found.headers),
            exchange=found.exchange,
            stored_at=found.stored_at,
            resolved_at=found.resolved_at,
            resolved_by=found.resolved_by,
        )


class DeadLetterPage(BaseModel):
    """A page of dead letters, the latest first."""

    dead_letters: list[DeadLetterLine]
    next: str | None = Field(description="The `cursor` of the next page; null at the end.")


class GroupQuery(PageQuery):
    """Which groups to list."""

    order: Literal["latest", "open"] = Field(
        default="latest", description="The latest first, or those with the most open letters."
    )
    only_open: bool = False
    actor: Word | None = None
    reason: Word | None = None
    since: Time | None = Field(default=None, description="Seen for the first time since then.")


class GroupView(_Shown):
    """Dead letters that have died of the same."""

    fingerprint: str
    actor: str | None
    reason: str
    error_type: str | None
    error: str | None = Field(description="Of the latest.")
    traceback: str | None = Field(description="Of the latest.")
    first_at: datetime
    last_at: datetime
    total: int
    open: int
    replayed: int
    discarded: int
    superseded: int
    died_again: int = Field(description="Of jobs that had been replayed before.")


class GroupPage(BaseModel):
    """A page of groups."""

    groups: list[GroupView]
    next: str | None = Field(description="The `cursor` of the next page; null at the end.")


class Discard(BaseModel):
    """Which dead letters to set aside for good."""

    model_config = ConfigDict(strict=True, extra="forbid")

    which: Which
    note: Word | None = Field(default=None, description="Why; kept in the audit log.")


class Discarded(BaseModel):
    """How many were set aside."""

    discarded: int


# ------------------------------------------------------------------------------------------ replays


class NewReplay(BaseModel):
    """Which dead letters to publish again, and how fast."""

    model_config = ConfigDict(strict=True, extra="forbid")

    which: Which
    rate: float | None = Field(
        default=None, ge=0.001, le=1e6, allow_inf_nan=False, description="Jobs per second."
    )
    edits: dict[str, Any] | None = Field(
        default=None,
        description="A JSON merge patch (RFC 7396) of the arguments. It makes new jobs, and is "
        "refused unless the server allows it.",
    )


class ReplayResults(_Shown):
    """What became of the jobs that a replay has published."""

    succeeded: int
    died_again: int
    live: int
    other: int


class Replay(BaseModel):
    """A replay, and how far it is."""

    id: int
    state: ReplayState
    created_at: datetime
    finished_at: datetime | None
    requested_by: str
    which: dict[str, Any]
    rate: float | None
    edited: bool
    total: int
    published: int
    refused: int
    left: int
    results: ReplayResults | None = None

    @classmethod
    def of(cls, found: ReplayLine, results: Results | None = None) -> Self:
        """Show a replay."""
        return cls(
            id=found.id,
            state=found.state,
            created_at=found.created_at,
            finished_at=found.finished_at,
            requested_by=found.requested_by,
            which=found.selection.to_dict(),
            rate=found.rate,
            edited=found.edits is not None,
            total=found.total,
            published=found.published,
            refused=found.refused,
            left=found.left,
            results=None if results is None else ReplayResults.model_validate(results),
        )


class ReplayPage(BaseModel):
    """A page of replays, the latest first."""

    replays: list[Replay]
    next: str | None = Field(description="The `cursor` of the next page; null at the end.")


# ------------------------------------------------------------------------------------------ workers


class Worker(_Shown):
    """A worker process, as its heartbeats describe it."""

    id: str
    queues: list[str]
    threads: int
    running: list[str] = Field(description="Ids of the jobs that it runs.")
    first_seen_at: datetime
    seen_at: datetime
    gone_at: datetime | None


class WorkerQuery(BaseModel):
    """Which workers to list."""

    model_config = ConfigDict(extra="forbid")

    gone: bool = Field(default=False, description="Also those that are gone.")


class WorkerList(BaseModel):
    """The workers."""

    workers: list[Worker]


# ------------------------------------------------------------------------------------------- values


def _document(body: bytes | None) -> tuple[Any, str | None]:
    """Return a body as a document, or else in base64."""
    if body is None:
        return None, None
    try:
        return _writable(read_json(body)), None
    except InvalidJob:
        return None, base64.b64encode(body).decode()


def _mapping(headers: Mapping[str, Any] | None) -> dict[str, Any] | None:
    found = _writable(headers)
    return found if isinstance(found, dict) else None


def _writable(value: Any) -> Any:
    """Copy what JSON may have said so that strict JSON can say it: no NaN, no half characters."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case float() if not math.isfinite(value):
            return str(value)
        case Mapping():
            return {_writable(str(name)): _writable(part) for name, part in value.items()}
        case list():
            return [_writable(part) for part in value]
    return value
