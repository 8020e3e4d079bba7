"""``/v1/jobs``: publish, look, cancel, retry."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from leveret import tracing
from leveret.ledger import query
from leveret.message.trace import read_trace
from leveret.store.api_keys import Scope
from services.api.again import REPLAYED, Again, IdempotencyKey, say_replayed
from services.api.catalogue import Prepared
from services.api.context import Caller, Context, Shared, caller_of
from services.api.models import Accepted, AcceptedBatch, Batch, NewJob
from services.api.problem import Fault, Kind, Problem, answers
from services.api.publishing import Answer, accept
from services.api.route import ScopedRoute, Size, needs
from services.api.views import Attempt, AttemptList, Job, JobLine, JobPage, JobQuery

__all__ = ["MAX_WAIT_SECONDS", "is_job_id", "router", "unknown"]

#: How long a request may wait for a job.
MAX_WAIT_SECONDS = 60.0

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=ScopedRoute)

Who = Annotated[Caller, Depends(caller_of)]
_LOCATION = {"Location": {"description": "Where the job is.", "schema": {"type": "string"}}}
_MOST_FAULTS = 100


@router.post(
    "",
    name="job.publish",
    status_code=202,
    openapi_extra=needs(Scope.PUBLISH, body=Size.JOB),
    responses={
        202: {"description": "The job is kept.", "headers": _LOCATION | REPLAYED},
        **answers(400, 409, 413, 415, 422),
    },
)
async def publish(
    wanted: NewJob,
    request: Request,
    response: Response,
    context: Shared,
    caller: Who,
    *,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Publish a job.

    The answer comes when the job is kept, in the database and on its way to RabbitMQ: it survives
    whatever happens next, and is found at its `Location` at once. Its arguments are checked against
    the actor's schema.
    """
    prepared = _prepared(context, caller, request, [wanted], [""])
    again = Again.of(idempotency_key, "/v1/jobs", wanted.model_dump(mode="json"))
    answer = await _accept(context, caller, prepared, again, [""])
    if answer.replayed:
        say_replayed(response)
    job = answer.jobs[0]
    response.headers["Location"] = f"/v1/jobs/{quote(job.id, safe='')}"
    return job


@router.post(
    "/batch",
    name="job.publish_batch",
    status_code=202,
    openapi_extra=needs(Scope.PUBLISH, body=Size.BATCH),
    responses={
        202: {"description": "All jobs are kept.", "headers": REPLAYED},
        **answers(400, 409, 413, 415, 422),
    },
)
async def publish_batch(
    wanted: Batch,
    request: Request,
    response: Response,
    context: Shared,
    caller: Who,
    *,
    idempotency_key: IdempotencyKey = None,
) -> AcceptedBatch:
    """Publish up to 1,000 jobs: all of them, or none.

    When one is wrong, none is published, and `errors` names what is wrong with each by a pointer
    such as `/jobs/3/arguments/to`.
    """
    pointers = [f"/jobs/{number}" for number in range(len(wanted.jobs))]
    prepared = _prepared(context, caller, request, wanted.jobs, pointers)
    again = Again.of(idempotency_key, "/v1/jobs/batch", wanted.model_dump(mode="json"))
    answer = await _accept(context, caller, prepared, again, pointers)
    if answer.replayed:
        say_replayed(response)
    return AcceptedBatch(jobs=answer.jobs)


@router.get("", name="job.list", openapi_extra=needs(Scope.READ), responses=answers(422))
async def list_jobs(wanted: Annotated[JobQuery, Query()], context: Shared) -> JobPage:
    """List jobs, the newest first."""
    which = query.JobFilter(
        states=frozenset(wanted.state),
        actor=wanted.actor,
        queue=wanted.queue,
        since=wanted.since,
        until=wanted.until,
        correlation_id=wanted.correlation_id,
        idempotency_key=wanted.idempotency_key,
        q=wanted.q,
    )
    page = await context.run(query.jobs, which, limit=wanted.limit, after=wanted.cursor)
    return JobPage(jobs=[JobLine.model_validate(job) for job in page.items], next=page.next)


@router.get(
    "/{job_id:path}/attempts",
    name="job.attempts",
    openapi_extra=needs(Scope.READ),
    responses=answers(404, 422),
)
async def list_attempts(job_id: str, context: Shared) -> AttemptList:
    """List what was tried for a job, the oldest first."""

    def read(connection: Connection) -> tuple[query.AttemptEntry, ...] | None:
        job = query.job(connection, job_id)
        return None if job is None else query.attempts(connection, job)

    found = await context.run(read) if is_job_id(job_id) else None
    if found is None:
        raise unknown(job_id)
    return AttemptList(attempts=[Attempt.model_validate(entry) for entry in found])


@router.get(
    "/{job_id:path}",
    name="job.show",
    openapi_extra=needs(Scope.READ),
    responses=answers(404, 422),
)
async def show_job(
    job_id: str,
    context: Shared,
    wait: Annotated[
        float | None,
        Query(
            ge=0,
            le=MAX_WAIT_SECONDS,
            allow_inf_nan=False,
            description="Answer when the job has ended, or after so many seconds.",
        ),
    ] = None,
) -> Job:
    """Show a job with its arguments and, when it has succeeded, its result.

    With `wait` the answer comes as soon as the job has ended: how it is then is for `state` to say.
    """
    if wait and is_job_id(job_id):
        await context.wait_for(job_id, wait)
    found = await context.run(query.job, job_id) if is_job_id(job_id) else None
    if found is None:
        raise unknown(job_id)
    return Job.of(found)


def is_job_id(text: str) -> bool:
    """Tell whether a text can be the id of a job in the ledger."""
    return 0 < len(text.encode(errors="replace")) <= 255 and "\0" not in text


def unknown(job_id: str) -> Problem:
    """Return the problem with a job that is not there."""
    return Problem(Kind.NOT_FOUND, f"the ledger does not know a job {job_id[:300]!r}")


def _prepared(
    context: Context,
    caller: Caller,
    request: Request,
    wanted: Sequence[NewJob],
    pointers: Sequence[str],
) -> list[Prepared]:
    now = time.time()
    trace = _trace(request)
    found: list[Prepared] = []
    faults: list[Fault] = []
    ids: set[str] = set()
    for job, pointer in zip(wanted, pointers, strict=True):
        prepared, wrong = context.catalogue.prepare(
            job, now=now, app_id=caller.key.name, trace=trace, pointer=pointer
        )
        faults += wrong
        if prepared is None:
            continue
        if prepared.job.id in ids:
            detail = f"the id {prepared.job.id!r} is given twice"
            faults.append(Fault(pointer=f"{pointer}/id", reason="id-taken", detail=detail))
        ids.add(prepared.job.id)
        found.append(prepared)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise Problem(
            Kind.INVALID_JOB,
            f"{faults[0].pointer or '/'}: {faults[0].detail}{more}",
            errors=faults[:_MOST_FAULTS],
        )
    return found


async def _accept(
    context: Context,
    caller: Caller,
    prepared: list[Prepared],
    again: Again | None,
    pointers: Sequence[str],
) -> Answer:
    async def attempt(*, anew: bool) -> Answer:
        return await context.run(
            accept,
            prepared,
            caller=caller,
            again=again,
            partitions=await context.partitions(anew=anew),
            pointers=pointers,
        )

    try:
        return await attempt(anew=False)
    except IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) != _NO_PARTITION:
            raise
        return await attempt(anew=True)  # one was dropped since the last look


#: check_violation, of which a missing partition is one.
_NO_PARTITION = "23514"


def _trace(request: Request) -> dict[str, str]:
    """Return the W3C trace context of a request, as far as a job can carry it."""
    return tracing.current() or read_trace(request.headers)
