"""``/v1/dead-letters``: what was given up, by group and one by one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from leveret import deadletters
from leveret.deadletters import LetterState, query
from leveret.store.api_keys import Scope
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
)

__all__ = ["require_choice", "router"]

router = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"], route_class=ScopedRoute)

Who = Annotated[Caller, Depends(caller_of)]


@router.get("", name="dead_letter.list", openapi_extra=needs(Scope.READ), responses=answers(422))
async def list_dead_letters(
    wanted: Annotated[DeadLetterQuery, Query()], context: Shared
) -> DeadLetterPage:
    """List dead letters, the latest first; those that are open, unless `state` says otherwise."""
    state = None if wanted.state == "all" else LetterState(wanted.state)
    page = await context.run(
        query.letters, wanted.selection(state=state), limit=wanted.limit, after=wanted.cursor
    )
    return DeadLetterPage(
        dead_letters=[DeadLetterLine.model_validate(line) for line in page.items], next=page.next
    )


@router.get(
    "/groups", name="dead_letter.groups", openapi_extra=needs(Scope.READ), responses=answers(422)
)
async def list_groups(wanted: Annotated[GroupQuery, Query()], context: Shared) -> GroupPage:
    """List the groups: dead letters with the same fingerprint have died of the same."""
    page = await context.run(
        query.groups,
        order=wanted.order,
        only_open=wanted.only_open,
        actor=wanted.actor,
        reason=wanted.reason,
        since=wanted.since,
        limit=wanted.limit,
        after=wanted.cursor,
    )
    return GroupPage(
        groups=[GroupView.model_validate(group) for group in page.items], next=page.next
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
    total = await context.run_long(
        deadletters.discard,
        wanted.which.selected(),
        by=caller.who,
        note=wanted.note,
        address=caller.address,
    )
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
    found = await context.run(query.letter, letter_id)
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
