"""The spans of dead letters: they show in a job's trace that it ended here, and why.

Of what has died in a worker the worker says so, too; what the broker has dead-lettered by itself
(no queue wanted it, a limit of a queue) says it nowhere else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from leveret import tracing
from leveret.message import PREFIX
from leveret.message.trace import read_trace
from leveret.names import LEDGER
from leveret.tracing.guard import unless_broken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from leveret.tracing.spans import Tracer
    from services.recorder.intake import Arrival

__all__ = ["buried"]


def buried(arrivals: Sequence[Arrival]) -> None:
    """Make the spans of the dead letters among what has been written."""
    tracer = tracing.tracer()
    if tracer is None:
        return
    for arrival in arrivals:
        if arrival.message.queue != LEDGER:
            _bury(tracer, arrival)


@unless_broken(lambda: None)
def _bury(tracer: Tracer, arrival: Arrival) -> None:
    message = arrival.message
    headers = message.properties.headers or {}
    parent = read_trace(headers)
    if not parent:
        return
    about = tracer.described(
        message.routing_key, message.queue, message.properties, message.body
    ) | {
        "messaging.operation.name": "record",
        "messaging.operation.type": "process",
        "leveret.reason": _reason(headers),
    }
    if isinstance(message.properties.type, str):
        about["leveret.actor"] = message.properties.type
    span = tracer.start(
        f"record {message.queue}", "consumer", about, parent=parent, at=arrival.received_at
    )
    tracer.end(span, at=time.time())


def _reason(headers: Mapping[str, Any]) -> str:
    reason = headers.get(f"{PREFIX}reason") or headers.get("x-first-death-reason")
    return reason[:100] if isinstance(reason, str) else "unroutable"
