"""``/v1/schedules``: when which job is published, what came of it, and what is to come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.engine import Connection

from leveret.errors import ScheduleDeclared, UnknownSchedule
from leveret.schedules import store
from leveret.schedules.row import Row, StoredSchedule
from leveret.store.api_keys import Scope
from services.api import scheduling
from services.api.again import REPLAYED, Again, IdempotencyKey, answered, remember, say_replayed
from services.api.context import Caller, Context, Shared, caller_of
from services.api.problem import Fault, Kind, Problem, answers
from services.api.route import ScopedRoute, Size, needs
from services.api.schedule_models import (
    NewSchedule,
    ScheduleChange,
    ScheduleQuery,
)
from services.api.schedule_views import (
    Schedule,
    SchedulePage,
)

__all__ = ["Name", "Who", "known_now", "note_refusal", "router"]

router = APIRouter(prefix="/v1/schedules", tags=["schedules"], route_class=ScopedRoute)

Who = Annotated[Caller, Depends(caller_of)]
Name = Annotated[str, Path(min_length=1, max_length=255)]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=1000,
        description="The ETag of what you have seen: with another version, nothing is changed.",
    ),
]
_ETAG = {"ETag": {"description": "The schedule's version.", "schema": {"type": "string"}}}
_LOCATION = {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}
_SHOWN: dict[int | str, dict[str, Any]] = {200: {"description": "The schedule.", "headers": _ETAG}}
_TAG = re.compile(r'"([^"]*)"')


@router.get("", name="schedule.list", openapi_extra=needs(Scope.READ), responses=answers(422))
async def list_schedules(
    wanted: Annotated[ScheduleQuery, Query()], context: Shared
) -> SchedulePage:
    """List the schedules by name, each with its next five fires in its zone and in UTC."""

    def read(connection: Connection) -> tuple[Sequence[Row], datetime]:
        found = store.rows(
            connection,
            actor=wanted.actor,
            origin=wanted.origin,
            paused=wanted.paused,
            after=wanted.after,
            limit=wanted.limit + 1,
        )
        return found, store.database_time(connection)

    found, now = await context.run(read)
    return await run_in_threadpool(SchedulePage.of, found, wanted.limit, now)


@router.post(
    "",
    name="schedule.create",
    status_code=201,
    openapi_extra=needs(Scope.OPERATE, body=Size.JOB),
    responses={
        201: {"description": "The schedule.", "headers": _ETAG | _LOCATION | REPLAYED},
        **answers(400, 409, 413, 415, 422),
    },
)
async def create_schedule(
    wanted: NewSchedule,
    response: Response,
    context: Shared,
    caller: Who,
    *,
    idempotency_key: IdempotencyKey = None,
) -> Schedule:
    """Make a schedule: its slots are those from now on.

    Expression, zone, times and policies are checked, and the arguments against the actor's schema;
    `errors` points at everything that is wrong, in an expression by the `position`.
    """
    fields = wanted.model_dump(exclude_none=True)
    again = Again.of(idempotency_key, "/v1/schedules", wanted.model_dump(mode="json"))
    limit = context.settings.max_body_bytes
    definition = scheduling.definition(_filled(fields), context.catalogue, limit=limit)

    def make(connection: Connection) -> tuple[Schedule, bool]:
        if again is not None:
            before = answered(connection, caller, again, b"", status=201)
            if before is not None:
                return Schedule.model_validate_json(before), True
        made = store.create(
            connection, definition, by=caller.who, address=caller.address, limit=limit
        )
        shown = Schedule.of(made, store.database_time(connection))
        if again is not None:
            remember(connection, caller, again, shown.model_dump_json().encode())
        return shown, False

    shown, replayed = await context.run(make)
    if replayed:
        say_replayed(response)
    response.headers["ETag"] = _etag(shown.version)
    response.headers["Location"] = f"/v1/schedules/{quote(shown.name, safe='')}"
    return shown


@router.get(
    "/{name}",
    name="schedule.show",
    openapi_extra=needs(Scope.READ),
    responses={**_SHOWN, **answers(404, 422)},
)
async def show_schedule(name: Name, response: Response, context: Shared) -> Schedule:
    """Show a schedule, with its next five fires."""
    known, now = await context.run(known_now, name)
    return _shown(known, now, response)


@router.patch(
    "/{name}",
    name="schedule.change",
    openapi_extra=needs(Scope.OPERATE, body=Size.JOB),
    responses={**_SHOWN, **answers(400, 404, 409, 412, 413, 415, 422)},
)
async def change_schedule(
    name: Name,
    wanted: ScheduleChange,
    response: Response,
    context: Shared,
    caller: Who,
    *,
    if_match: IfMatch = None,
) -> Schedule:
    """Change a schedule that was made over the API; what is not given stays as it is.

    Another time table begins now: slots that had passed undecided are recorded as skipped. One that
    code or a file declares is refused with 409, and an `If-Match` of another version with 412.
    """
    change = wanted.model_dump(exclude_unset=True)
    options = change.get("options")
    if options is not None:
        change["options"] = {key: value for key, value in options.items() if value is not None}
    limit = context.settings.max_body_bytes

    def make(connection: Connection) -> tuple[StoredSchedule, datetime]:
        known = _locked(connection, name, if_match)
        if known.origin != "api":
            raise ScheduleDeclared(name, known.origin)
        new = scheduling.changed(known.definition, change, context.catalogue, limit=limit)
        found = store.change(
            connection, name, new, by=caller.who, address=caller.address, limit=limit
        )
        return found, store.database_time(connection)

    try:
        known, now = await context.run(make)
    except ScheduleDeclared as error:
        await note_refusal(context, caller, "schedule.change", name, "declared")
        raise scheduling.problem_of(error) from None
    return _shown(known, now, response)


@router.delete(
    "/{name}",
    name="schedule.remove",
    openapi_extra=needs(Scope.OPERATE),
    responses=answers(404, 409, 412, 422),
)
async def remove_schedule(
    name: Name, context: Shared, caller: Who, *, if_match: IfMatch = None
) -> Schedule:
    """Remove a schedule that was made over the API; the answer is what it was.

    Its jobs and the history of its slots stay.
    """

    def remove(connection: Connection) -> tuple[StoredSchedule, datetime]:
        known = _locked(connection, name, if_match)
        store.remove(connection, name, by=caller.who, address=caller.address)
        return known, store.database_time(connection)

    try:
        known, now = await context.run(remove)
    except ScheduleDeclared as error:
        await note_refusal(context, caller, "schedule.remove", name, "declared")
        raise scheduling.problem_of(error) from None
    return Schedule.of(known, now)


@router.post(
    "/{name}/pause",
    name="schedule.pause",
    openapi_extra=needs(Scope.OPERATE),
    responses={**_SHOWN, **answers(404, 422)},
)
async def pause_schedule(name: Name, response: Response, context: Shared, caller: Who) -> Schedule:
    """Fire none of its slots until it is resumed; also one that code or a file declares."""

    def pause(connection: Connection) -> tuple[StoredSchedule, datetime]:
        known = store.pause(connection, name, by=caller.who, address=caller.address)
        return known, store.database_time(connection)

    return _shown(*await context.run(pause), response)


@router.post(
    "/{name}/resume",
    name="schedule.resume",
    openapi_extra=needs(Scope.OPERATE),
    responses={**_SHOWN, **answers(404, 422)},
)
async def resume_schedule(name: Name, response: Response, context: Shared, caller: Who) -> Schedule:
    """Fire its slots from now on; those that passed while it was paused are skipped."""

    def resume(connection: Connection) -> tuple[StoredSchedule, datetime]:
        known = store.resume(connection, name, by=caller.who, address=caller.address)
        return known, store.database_time(connection)

    return _shown(*await context.run(resume), response)


def known_now(connection: Connection, name: str) -> tuple[StoredSchedule, datetime]:
    """Return a schedule and the database's time; raises `UnknownSchedule`."""
    found = store.get(connection, name)
    if found is None:
        raise UnknownSchedule(name)
    return found, store.database_time(connection)


def _locked(connection: Connection, name: str, if_match: str | None) -> StoredSchedule:
    """Return a schedule that nobody else changes meanwhile, if it is the version that is meant."""
    found = store.get(connection, name, lock=True)
    if found is None:
        raise UnknownSchedule(name)
    if if_match is None or if_match.strip() == "*":
        return found
    weak = [part for part in if_match.split(",") if part.strip().startswith("W/")]
    if weak or str(found.version) not in _TAG.findall(if_match):
        detail = f"the schedule {name!r} is version {found.version} by now; look at it again"
        fault = Fault(header="If-Match", reason="another-version", detail=detail)
        raise Problem(Kind.CHANGED, detail, errors=[fault], headers={"ETag": _etag(found.version)})
    return found


def _shown(known: StoredSchedule, now: datetime, response: Response) -> Schedule:
    response.headers["ETag"] = _etag(known.version)
    return Schedule.of(known, now)


def _etag(version: int) -> str:
    return f'"{version}"'


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a new schedule with those that are looked at in any case."""
    return {"queue": None, "arguments": {}, **fields}


async def note_refusal(context: Context, caller: Caller, action: str, name: str, why: str) -> None:
    """Write down that something was refused that the key may do."""
    await context.authenticator.refused(
        who=caller.who, action=action, target=name, address=caller.address, detail={"why": why}
    )
