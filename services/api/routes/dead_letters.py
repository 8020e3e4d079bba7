"""``/v1/dead-letters``: what was given up, by group and one by one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from sqlalchemy.engine import Connection

from leveret import deadletters
from leveret.deadletters import LetterState, query
from leveret.errors import ReplayRefused
from leveret.store.api_keys import Scope
from services.api import cursor
from services.api.context import Caller, Shared, caller_of
from services.api.problem import Fault, Kind, Problem, answers
from services.api.route import ScopedRoute, needs
from services.api.views import (
    DeadLetter,
    DeadLetterLine,
    DeadLetterPage,
    DeadLetterQuery,
    Discard,
    Discarded,
    GroupPage,
    GroupQuery,
    GroupView,
    Which,
    group_at,
)

__all__ = ["refusal", "require_choice", "router"]

router = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"], route_class=ScopedRoute)

Who = Annotated[Caller, Depends(caller_of)]


@router.get("", name="dead_letter.list", openapi_extra=needs(Scope.READ), responses=answers(422))
async def list_dead_letters(
    wanted: Annotated[DeadLetterQuery, Query()], context: Shared
) -> DeadLetterPage:
    """List dead letters, the latest first; those that are open, unless `state` says otherwise."""
    after = None
    if wanted.cursor is not None:
        at, last = cursor.read(wanted.cursor, int, int)
        after = (cursor.moment(at), last)
    state = None if wanted.state == "all" else LetterState(wanted.state)
    statement = query.page_of_letters(
        wanted.selection(state=state), limit=wanted.limit + 1, after=after
    )

    def read(connection: Connection) -> list[query.LetterLine]:
        return [query.read_line(row) for row in connection.execute(statement)]

    found = await context.run(read)
    shown = found[: wanted.limit]
    return DeadLetterPage(
        dead_letters=[DeadLetterLine.model_validate(line) for line in shown],
        next=cursor.write(shown[-1].dead_at, shown[-1].id) if len(found) > len(shown) else None,
    )


@router.get(
    "/groups", name="dead_letter.groups", openapi_extra=needs(Scope.READ), responses=answers(422)
)
async def list_groups(wanted: Annotated[GroupQuery, Query()], context: Shared) -> GroupPage:
    """List the groups: dead letters with the same fingerprint have died of the same."""
    after = None
    if wanted.cursor is not None:
        open_, at, fingerprint = cursor.read(wanted.cursor, int, int, str)
        after = group_at(fingerprint, cursor.moment(at), open_)
    statement = query.page_of_groups(
        order=wanted.order,
        only_open=wanted.only_open,
        actor=wanted.actor,
        reason=wanted.reason,
        limit=wanted.limit + 1,
        after=after,
    )

    def read(connection: Connection) -> list[query.Group]:
        return [query.read_group(row) for row in connection.execute(statement)]

    found = await context.run(read)
    shown = found[: wanted.limit]
    last = shown[-1] if len(found) > len(shown) else None
    return GroupPage(
        groups=[GroupView.model_validate(group) for group in shown],
        next=None if last is None else cursor.write(last.open, last.last_at, last.fingerprint),
    )


@router.post(
    "/discard",
    name="dead_letter.discard",
    openapi_extra=needs(Scope.OPERATE),
    responses=answers(400, 409, 413, 415, 422),
)
async def discard(wanted: Discard, context: Shared, caller: Who) -> Discarded:
    """Set open dead letters aside for good. They are kept, and their jobs stay dead."""
    require_choice(wanted.which)
    try:
        total = await context.run_long(
            deadletters.discard,
            wanted.which.selected(),
            by=caller.who,
            address=caller.address,
        )
    except ReplayRefused as error:
        raise refusal(error) from None
    return Discarded(discarded=total)


@router.get(
    "/{letter_id}",
    name="dead_letter.show",
    openapi_extra=needs(Scope.READ),
    responses=answers(404, 422),
)
async def show_dead_letter(
    letter_id: Annotated[int, Path(ge=1, lt=2**63)], context: Shared
) -> DeadLetter:
    """Show a dead letter with its original bytes."""

    def read(connection: Connection) -> query.Letter | None:
        row = connection.execute(query.one_letter(letter_id)).one_or_none()
        return None if row is None else query.read_letter(row)

    found = await context.run(read)
    if found is None:
        raise Problem(Kind.NOT_FOUND, f"there is no dead letter {letter_id}")
    return DeadLetter.of(found)


def require_choice(which: Which) -> None:
    """Refuse a selection that is everything without saying so, or says both."""
    if which.selected().is_everything != which.all:
        detail = 'say which dead letters are meant: a filter, or "all": true'
        raise Problem(
            Kind.INVALID,
            detail,
            errors=[Fault(pointer="/which", reason="no-choice", detail=detail)],
        )


_REFUSALS = {
    "nothing-matches": Kind.CONFLICT,
    "not-running": Kind.CONFLICT,
    "unknown-replay": Kind.NOT_FOUND,
    "edits-are-off": Kind.NOT_ALLOWED,
}


def refusal(error: ReplayRefused) -> Problem:
    """Say why something was refused."""
    kind = _REFUSALS.get(error.reason, Kind.INVALID)
    return Problem(kind, str(error), errors=[Fault(reason=error.reason, detail=str(error))])
