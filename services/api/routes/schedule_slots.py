"""``/v1/schedules/{name}/slots``, ``preview``, ``run`` and more: what is, was and will be fired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import text
from sqlalchemy.engine import Connection

from leveret.errors import BackfillRefused, UnknownSchedule
from leveret.ledger.query import Page
from leveret.schedules import backfill as backfills
from leveret.schedules import gaps, history, preview, run, store
from leveret.schedules.definition import Definition
from leveret.store.api_keys import Scope
from services.api import scheduling
from services.api.again import REPLAYED, Again, IdempotencyKey, answered, remember, say_replayed
from services.api.context import Shared
from services.api.problem import Fault, Kind, Problem, answers
from services.api.route import ScopedRoute, needs
from services.api.routes.schedules import Name, Who, known_now, note_refusal
from services.api.schedule_models import (
    Backfill,
    GapQuery,
    PreviewQuery,
    PreviewRequest,
    SlotQuery,
)
from services.api.schedule_views import (
    Backfilled,
    FiredSlot,
    GapReport,
    Preview,
    SlotLine,
    SlotPage,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1/schedules", tags=["schedules"], route_class=ScopedRoute)

_LOCATION = {"Location": {"description": "Where the job is.", "schema": {"type": "string"}}}


@router.get(
    "/gaps", name="schedule.gaps", openapi_extra=needs(Scope.READ), responses=answers(404, 422)
)
async def find_gaps(wanted: Annotated[GapQuery, Query()], context: Shared) -> GapReport:
    """Find the slots that are missing: named by a schedule, and accounted for by nothing.

    Also those that are overdue because no scheduler leads, and those that were fired and whose job
    nobody knows. Of a dense schedule the end of the period is looked at (`shortened`).
    """

    def look(connection: Connection) -> gaps.Gaps:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        if wanted.schedule is not None and store.get(connection, wanted.schedule) is None:
            raise UnknownSchedule(wanted.schedule)
        return gaps.find(
            connection,
            schedule=wanted.schedule,
            since=wanted.since,
            until=wanted.until,
            keep=timedelta(days=context.settings.retention_days),
            grace=gaps.grace_for(context.settings.scheduler_lease),
        )

    return GapReport.of(await context.run_long(look))


@router.post(
    "/preview",
    name="schedule.preview_new",
    openapi_extra=needs(Scope.READ),
    responses=answers(400, 413, 415, 422),
)
async def preview_timing(wanted: PreviewRequest) -> Preview:
    """Show what a schedule would do in a period, without making it."""
    given = wanted.model_dump(exclude_none=True)
    fields = {name: value for name, value in given.items() if name not in _OF_PREVIEW}
    definition = scheduling.timing(fields)
    begin = wanted.begin or datetime.now(UTC)
    return await _preview(definition, begin, wanted.finish, wanted.limit, in_body=True)


_OF_PREVIEW = ("begin", "finish", "limit")


@router.post(
    "/{name}/run",
    name="schedule.run",
    status_code=202,
    openapi_extra=needs(Scope.OPERATE),
    responses={
        202: {"description": "The job is kept.", "headers": _LOCATION | REPLAYED},
        **answers(404, 422),
    },
)
async def run_schedule(
    name: Name,
    response: Response,
    context: Shared,
    caller: Who,
    *,
    idempotency_key: IdempotencyKey = None,
) -> FiredSlot:
    """Publish its job now, also while it is paused, whatever its slots are; needs no scheduler.

    The ledger finds the job at its `Location` as soon as the outbox has been read.
    """
    again = Again.of(idempotency_key, f"/v1/schedules/{name}/run", None)

    def fire(connection: Connection) -> tuple[FiredSlot, bool]:
        if again is not None:
            before = answered(connection, caller, again, b"", status=202)
            if before is not None:
                return FiredSlot.model_validate_json(before), True
        fired = FiredSlot.model_validate(
            run.run(connection, name, by=caller.who, address=caller.address)
        )
        if again is not None:
            remember(connection, caller, again, fired.model_dump_json().encode())
        return fired, False

    fired, replayed = await context.run(fire)
    if replayed:
        say_replayed(response)
    response.headers["Location"] = f"/v1/jobs/{fired.job_id}"
    return fired


@router.post(
    "/{name}/backfill",
    name="schedule.backfill",
    openapi_extra=needs(Scope.OPERATE),
    responses={
        200: {"description": "What was fired, or would be.", "headers": REPLAYED},
        **answers(400, 404, 409, 413, 415, 422),
    },
)
async def backfill_schedule(
    name: Name,
    wanted: Backfill,
    response: Response,
    context: Shared,
    caller: Who,
    *,
    idempotency_key: IdempotencyKey = None,
) -> Backfilled:
    """Fire the slots of a past range for which nothing was published: skipped, or missing.

    `dry_run` only says which they are. Nothing is fired when they are more than `limit`.
    """
    _check_range(wanted.begin, wanted.end, in_body=True)
    again = Again.of(
        None if wanted.dry_run else idempotency_key,
        f"/v1/schedules/{name}/backfill",
        wanted.model_dump(mode="json"),
    )

    def fill(connection: Connection) -> tuple[Backfilled, bool]:
        if again is not None:
            before = answered(connection, caller, again, b"", status=200)
            if before is not None:
                return Backfilled.model_validate_json(before), True
        plan = backfills.plan(
            connection, name, start=wanted.begin, end=wanted.end, limit=wanted.limit
        )
        if wanted.dry_run:
            return Backfilled.of(plan, None), False
        backfills.refuse_if_more(plan)
        shown = Backfilled.of(
            plan,
            backfills.fire(connection, plan, plan.slots, by=caller.who, address=caller.address),
        )
        if again is not None:
            remember(connection, caller, again, shown.model_dump_json().encode())
        return shown, False

    try:
        shown, replayed = await context.run_long(fill)
    except BackfillRefused as error:
        await note_refusal(context, caller, "schedule.backfill", name, error.reason)
        raise scheduling.problem_of(error) from None
    if replayed:
        say_replayed(response)
    return shown


@router.get(
    "/{name}/slots",
    name="schedule.slots",
    openapi_extra=needs(Scope.READ),
    responses=answers(404, 422),
)
async def list_slots(
    name: Name, wanted: Annotated[SlotQuery, Query()], context: Shared
) -> SlotPage:
    """List what became of its slots, newest first, with their jobs and how late they were.

    The history of a schedule stays when it is removed.
    """

    def read(connection: Connection) -> Page[history.Slot]:
        page = history.slots(
            connection, name, wanted.filter(), limit=wanted.limit, after=wanted.cursor
        )
        if not page.items and not history.has_any(connection, name):
            known_now(connection, name)
        return page

    page = await context.run(read)
    return SlotPage(slots=[SlotLine.of(slot) for slot in page.items], next=page.next)


@router.get(
    "/{name}/preview",
    name="schedule.preview",
    openapi_extra=needs(Scope.READ),
    responses=answers(404, 422),
)
async def preview_schedule(
    name: Name, wanted: Annotated[PreviewQuery, Query()], context: Shared
) -> Preview:
    """Show what a schedule does in a period, to come or past; daylight saving is marked."""
    known, now = await context.run(known_now, name)
    begin = wanted.begin or now
    return await _preview(known.definition, begin, wanted.finish, wanted.limit, in_body=False)


async def _preview(
    definition: Definition, begin: datetime, end: datetime | None, limit: int, *, in_body: bool
) -> Preview:
    if end is not None:
        _check_range(begin, end, in_body=in_body)
    return Preview.of(await run_in_threadpool(preview.preview, definition, begin, end, limit))


def _check_range(begin: datetime, end: datetime, *, in_body: bool) -> None:
    if begin <= end:
        return
    detail = f"the range ends ({end.isoformat()}) before it begins ({begin.isoformat()})"
    fault = Fault(reason="empty-range", detail=detail)
    if in_body:
        fault.pointer = "/to"
    else:
        fault.parameter = "to"
    raise Problem(Kind.INVALID, detail, errors=[fault])
