"""``/v1/actors``: what can be published."""

from __future__ import annotations

from fastapi import APIRouter

from leveret.store.api_keys import Scope
from services.api.context import Shared
from services.api.models import Actor, ActorList
from services.api.problem import Kind, Problem, answers
from services.api.route import ScopedRoute, needs

__all__ = ["router"]

router = APIRouter(prefix="/v1/actors", tags=["actors"], route_class=ScopedRoute)


@router.get("", name="actor.list", openapi_extra=needs(Scope.READ))
async def list_actors(context: Shared) -> ActorList:
    """List the actors with the JSON Schemas of their arguments."""
    return ActorList(actors=context.catalogue.actors)


@router.get(
    "/{name}", name="actor.show", openapi_extra=needs(Scope.READ), responses=answers(404, 422)
)
async def show_actor(name: str, context: Shared) -> Actor:
    """Show one actor."""
    found = context.catalogue.actor(name)
    if found is None:
        raise Problem(Kind.NOT_FOUND, f"no actor is called {name[:200]!r}")
    return found
