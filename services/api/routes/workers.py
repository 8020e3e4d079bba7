"""``/v1/workers``: who runs jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from leveret.ledger import query
from leveret.store.api_keys import Scope
from services.api.context import Shared
from services.api.problem import answers
from services.api.route import ScopedRoute, needs
from services.api.views import Worker, WorkerList, WorkerQuery

__all__ = ["router"]

router = APIRouter(prefix="/v1/workers", tags=["workers"], route_class=ScopedRoute)


@router.get("", name="worker.list", openapi_extra=needs(Scope.READ), responses=answers(422))
async def list_workers(wanted: Annotated[WorkerQuery, Query()], context: Shared) -> WorkerList:
    """List the worker processes, with the jobs that each was running at its last heartbeat."""
    found = await context.run(query.workers, gone=wanted.gone)
    return WorkerList(workers=[Worker.model_validate(worker) for worker in found])
