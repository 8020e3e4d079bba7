"""``/v1/queues``: what waits, and who works on it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from leveret import names
from leveret.ledger import query
from leveret.store.api_keys import Scope
from services.api.context import Shared
from services.api.models import Queue, QueueList
from services.api.problem import Kind, Problem
from services.api.route import ScopedRoute, needs

__all__ = ["router"]

router = APIRouter(prefix="/v1/queues", tags=["queues"], route_class=ScopedRoute)


@router.get("", name="queue.list", openapi_extra=needs(Scope.READ))
async def list_queues(context: Shared) -> QueueList:
    """Show every work queue: what waits, what workers hold, who consumes, and how fast it goes."""
    if context.management is None:
        raise Problem(
            Kind.UNAVAILABLE, "LEVERET_MANAGEMENT_URL is not set here, so queues are not seen"
        )
    found = await run_in_threadpool(context.broker_queues)
    routes = {actor.name: actor.queue for actor in context.catalogue.actors}
    oldest = await context.run(query.oldest_waiting, routes)
    by_name = {queue["name"]: queue for queue in found}

    def messages(name: str) -> int:
        return _count(by_name.get(name, {}), "messages")

    return QueueList(
        queues=[
            Queue(
                name=name,
                ready=_count(by_name.get(names.work_queue(name), {}), "messages_ready"),
                unacked=_count(by_name.get(names.work_queue(name), {}), "messages_unacknowledged"),
                consumers=_count(by_name.get(names.work_queue(name), {}), "consumers"),
                publish_rate=_rate(by_name.get(names.work_queue(name), {}), "publish"),
                deliver_rate=_rate(by_name.get(names.work_queue(name), {}), "deliver_get"),
                dead=messages(names.dead_queue(name)),
                quarantined=messages(names.quarantine_queue(name)),
                oldest_at=oldest.get(name),
            )
            for name in context.catalogue.queues
        ],
        delayed=sum(messages(name) for name in by_name if name.startswith(f"{names.DELAY}.")),
        ledger=messages(names.LEDGER),
        unroutable=messages(names.UNROUTABLE),
    )


def _count(queue: dict[str, Any], field: str) -> int:
    value = queue.get(field, 0)
    return value if isinstance(value, int) else 0


def _rate(queue: dict[str, Any], field: str) -> float:
    details = (queue.get("message_stats") or {}).get(f"{field}_details") or {}
    value = details.get("rate", 0.0)
    return float(value) if isinstance(value, int | float) else 0.0
