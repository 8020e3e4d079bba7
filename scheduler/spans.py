"""The span of a slot: the beginning of its job's trace."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from leveret import tracing
from leveret.message.trace import read_trace
from leveret.tracing.guard import unless_broken

if TYPE_CHECKING:
    from leveret.message import Job
    from leveret.tracing.spans import Tracer

__all__ = ["Firing", "begin"]


class Firing:
    """The firing of one slot; what is never ended is not exported."""

    __slots__ = ("_span", "_tracer", "context")

    def __init__(self, tracer: Tracer, job: Job, slot: datetime, due: datetime) -> None:
        self._tracer = tracer
        self._span = tracer.start(
            f"fire {job.schedule}",
            "internal",
            {
                "leveret.schedule": job.schedule or "",
                "leveret.slot": slot.isoformat(),
                "leveret.due_at": due.isoformat(),
                "leveret.actor": job.actor,
                "messaging.message.id": job.id,
            },
            parent=read_trace({"traceparent": job.traceparent, "tracestate": job.tracestate}),
        )
        self.context = tracer.headers(self._span)

    @unless_broken(lambda: None)
    def end(self) -> None:
        """End: the job is in the outbox."""
        self._tracer.end(self._span)


def begin(job: Job, slot: datetime, due: datetime) -> tuple[Job, Firing | None]:
    """Begin to fire a slot; return its job as a part of that, and the span, if there is one."""
    tracer = tracing.tracer()
    firing = None if tracer is None else _begin(tracer, job, slot, due)
    if firing is None or not firing.context:
        return job, firing
    context = firing.context
    job = replace(job, traceparent=context["traceparent"], tracestate=context.get("tracestate"))
    return job, firing


@unless_broken(lambda: None)
def _begin(tracer: Tracer, job: Job, slot: datetime, due: datetime) -> Firing:
    return Firing(tracer, job, slot, due)
