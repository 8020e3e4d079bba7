"""What is open to all: probes, metrics, and the two contracts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from leveret.health import own_metrics
from services.api.context import Shared

__all__ = ["router"]

router = APIRouter(tags=["health"])


class Live(BaseModel):
    """Whether the process is in order."""

    live: bool


class Ready(BaseModel):
    """Whether the process can do its work."""

    ready: bool


@router.get("/livez")
async def livez() -> Live:
    """Tell whether the process is in order; if not, only a restart helps."""
    return Live(live=True)


@router.get("/readyz", responses={503: {"model": Ready, "description": "The database is away."}})
async def readyz(context: Shared, response: Response) -> Ready:
    """Tell whether requests can be served: the database answers, and is migrated."""
    ready = await context.is_ready()
    if not ready:
        response.status_code = 503
    return Ready(ready=ready)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/openmetrics-text": {"schema": {"type": "string"}},
            }
        }
    },
)
async def metrics(request: Request) -> Response:
    """Return the metrics of this process, as Prometheus reads them, or as OpenMetrics."""
    kind, text = own_metrics(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": kind})


@router.get("/asyncapi.json")
async def asyncapi(context: Shared) -> dict[str, Any]:
    """Return the wire contract, for those who publish over AMQP, as AsyncAPI 3."""
    return context.catalogue.document
