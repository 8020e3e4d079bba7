"""``/v1/replays``: dead letters that are published again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from leveret import deadletters
from leveret.deadletters import query
from leveret.errors import ReplayRefused
from leveret.store.api_keys import Scope
from services.api.context import Caller, Shared, caller_of
from services.api.problem import Kind, Problem, answers
from services.api.route import ScopedRoute, needs
from services.api.routes.dead_letters import require_choice
from services.api.views import NewReplay, PageQuery, Replay, ReplayPage

__all__ = ["router"]

router = APIRouter(prefix="/v1/replays", tags=["dead letters"], route_class=ScopedRoute)

Who = Annotated[Caller, Depends(caller_of)]
ReplayId = Annotated[int, Path(ge=1, lt=2**63)]


@router.post(
    "",
    name="replay.create",
    status_code=202,
    openapi_extra=needs(Scope.OPERATE),
    responses={
        202: {
            "description": "The replay has begun.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **answers(400, 409, 413, 415, 422),
    },
)
async def create_replay(
    wanted: NewReplay, context: Shared, caller: Who, response: Response
) -> Replay:
    """Publish open dead letters again, at a rate.

    A job keeps its id and its history, and `run` counts its replays. The replay goes on by itself;
    ask for it to see how far it is.
    """
    require_choice(wanted.which)
    try:
        found = await context.run_long(
            deadletters.create_replay,
            wanted.which.selected(),
            requested_by=caller.who,
            rate=wanted.rate,
            edits=wanted.edits,
            edits_allowed=context.settings.edited_replay,
            check=context.catalogue.check,
            address=caller.address,
        )
    except ReplayRefused as error:
        await context.authenticator.refused(
            who=caller.who,
            action="replay.create",
            target=None,
            address=caller.address,
            detail={"why": error.reason},
        )
        raise
    response.headers["Location"] = f"/v1/replays/{found.id}"
    return Replay.of(found)


@router.get("", name="replay.list", openapi_extra=needs(Scope.READ), responses=answers(422))
async def list_replays(wanted: Annotated[PageQuery, Query()], context: Shared) -> ReplayPage:
    """List the replays, the latest first."""
    page = await context.run(query.replays, limit=wanted.limit, after=wanted.cursor)
    return ReplayPage(replays=[Replay.of(replay) for replay in page.items], next=page.next)


@router.get(
    "/{replay_id}",
    name="replay.show",
    openapi_extra=needs(Scope.READ),
    responses=answers(404, 422),
)
async def show_replay(replay_id: ReplayId, context: Shared) -> Replay:
    """Show how far a replay is, and what became of the jobs that it has published."""
    found = await context.run(deadletters.get_replay, replay_id)
    if found is None:
        raise Problem(Kind.NOT_FOUND, f"there is no replay {replay_id}")
    return Replay.of(found, await context.run_long(query.results, replay_id))


@router.post(
    "/{replay_id}/cancel",
    name="replay.cancel",
    openapi_extra=needs(Scope.OPERATE),
    responses=answers(404, 409, 422),
)
async def cancel_replay(replay_id: ReplayId, context: Shared, caller: Who) -> Replay:
    """Stop a replay: the dead letters that it has not come to are open again."""
    found = await context.run_long(
        deadletters.cancel_replay, replay_id, by=caller.who, address=caller.address
    )
    return Replay.of(found)
