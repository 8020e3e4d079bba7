"""The endpoints, a module for each resource."""

from services.api.routes import (
    actors,
    audit_log,
    dead_letters,
    health,
    job_control,
    jobs,
    keys,
    queues,
    replays,
    schedule_slots,
    schedules,
    workers,
)

__all__ = ["ROUTERS", "health"]

#: Everything below ``/v1``.
ROUTERS = tuple(
    module.router
    for module in (
        job_control,
        jobs,
        dead_letters,
        replays,
        schedule_slots,
        schedules,
        queues,
        workers,
        actors,
        keys,
        audit_log,
    )
)
