"""``/v1/jobs/{id}/cancel``, ``retry`` and ``events``: acting on one job, and following it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from leveret.errors import LeveretError, PublishError
from leveret.ledger import query
from leveret.ledger.cancel import CancelOutcome, cancel
from leveret.ledger.retry import RetryOutcome, retry
from leveret.results import Changes, Standing
from leveret.store.api_keys import Scope
from services.api.context import Caller, Context, Shared, caller_of
from services.api.problem import Kind, Problem, answers
from services.api.route import ScopedRoute, needs
from services.api.routes.jobs import is_job_id, unknown
from services.api.streams import EventStream
from services.api.views import Cancelled, Retried

__all__ = ["router"]

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=ScopedRoute)

Who = Annotated[Caller, Depends(caller_of)]
#: How long the workers may take to hear of a cancellation before the answer says they have not.
_TELL_SECONDS = 5.0
#: A stream says that it lives this often, and is looked at for whether its key still does.
_PULSE_SECONDS = 15.0


@router.post(
    "/{job_id:path}/cancel",
    name="job.cancel",
    openapi_extra=needs(Scope.OPERATE),
    responses=answers(404, 409, 422),
)
async def cancel_job(job_id: str, context: Shared, caller: Who) -> Cancelled:
    """Call off a job that has not started.

    `cancelled`: it will not run. `requested`: it is about to be started, and no worker starts it
    any more unless one just has. A job that runs, or has ended, is refused with 409.
    """
    if not is_job_id(job_id):
        raise unknown(job_id)
    result = await context.run(cancel, job_id, by=caller.who, address=caller.address)
    if result.outcome is CancelOutcome.UNKNOWN:
        raise unknown(job_id)
    if not result.is_accepted:
        raise Problem(Kind.CONFLICT, f"job {job_id!r} cannot be cancelled: {result.detail}")
    told = await _tell(context, dict(result.runs))
    return Cancelled(
        id=job_id, outcome=result.outcome, state=result.state, detail=result.detail, told=told
    )


async def _tell(context: Context, runs: dict[str, int]) -> bool:
    """Tell the workers; those that cannot be reached read it when they next connect."""
    if context.control is None:
        return False
    try:
        await asyncio.wrap_future(context.control.cancel(runs, timeout=_TELL_SECONDS))
    except PublishError:
        return False
    return True


@router.post(
    "/{job_id:path}/retry",
    name="job.retry",
    status_code=202,
    openapi_extra=needs(Scope.OPERATE),
    responses=answers(404, 409, 422),
)
async def retry_job(job_id: str, context: Shared, caller: Who) -> Retried:
    """Run a job again that is dead, expired or cancelled: under its id, as its next `run`."""
    if not is_job_id(job_id):
        raise unknown(job_id)
    result = await context.run(retry, job_id, by=caller.who, address=caller.address)
    if result.outcome is RetryOutcome.UNKNOWN:
        raise unknown(job_id)
    if not result.is_accepted:
        raise Problem(Kind.CONFLICT, f"job {job_id!r} cannot be retried: {result.detail}")
    return Retried(
        id=job_id, outcome=result.outcome, detail=result.detail, replay_id=result.replay_id
    )


@router.get(
    "/{job_id:path}/events",
    name="job.events",
    openapi_extra=needs(Scope.READ),
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: one `state` now and at every change, then `end`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **answers(404, 422, 429, 503),
    },
)
async def follow_job(job_id: str, request: Request, context: Shared, caller: Who) -> EventStream:
    """Follow a job until it has ended, as server-sent events.

    The data of a `state` is an object with `state`, `run`, `attempt`, `progress` and more. A client
    that was cut off connects again, and gets the state as it is then. A key may have 100 streams.
    """
    found = await context.run(query.job, job_id) if is_job_id(job_id) else None
    if found is None:
        raise unknown(job_id)
    return EventStream(
        _events(context, job_id, request.headers.get("authorization"), caller.address),
        streams=context.streams,
        key=caller.key.id,
    )


async def _events(
    context: Context, job_id: str, authorization: str | None, address: str
) -> AsyncIterator[bytes]:
    try:
        async with context.watcher.watching(job_id) as changes:
            async for event in _changes(context, changes, authorization, address):
                yield event
    except (LeveretError, HTTPException):
        # The server stops, the key was revoked, or the database has gone: the client comes back.
        yield b"event: cut\ndata: {}\n\n"


async def _changes(
    context: Context, changes: Changes, authorization: str | None, address: str
) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    while True:
        standing = await changes.next(_PULSE_SECONDS)
        if standing is None:
            await context.authenticator.authenticate(authorization, address)
            yield b": still here\n\n"
            continue
        yield _event(standing)
        if standing.is_terminal:
            yield b"event: end\ndata: {}\n\n"
            return


def _event(standing: Standing) -> bytes:
    def moment(value: Any) -> str | None:
        return None if value is None else value.isoformat()

    data = {
        "id": standing.job_id,
        "state": standing.state,
        "run": standing.run,
        "attempt": standing.attempt,
        "queue": standing.queue,
        "due_at": moment(standing.due_at),
        "started_at": moment(standing.started_at),
        "finished_at": moment(standing.finished_at),
        "progress": standing.progress,
        "progress_note": standing.progress_note,
        "cancel_requested_at": moment(standing.cancel_requested_at),
    }
    return f"event: state\ndata: {json.dumps(data)}\n\n".encode()
