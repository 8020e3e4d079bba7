"""The spans of a row: how long it lay in the outbox, and its way to the broker.

A row carries the context of the span in which it was written, and the message that of the relay's
own span, a child of that one. A job that is published again (a replay, a retry that somebody asked
for) begins a trace, linked to the one before: its first trace may be weeks old.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from leveret import names
from leveret.message import job_time
from leveret.message.trace import SENT_AT, write_sent_at
from leveret.tracing.guard import unless_broken

if TYPE_CHECKING:
    from leveret.amqp import Post
    from leveret.errors import PublishError
    from leveret.tracing.spans import Sending, Tracer
    from services.relay.message import Row

__all__ = ["Passage"]

#: How much later a job can have been written than its id says.
_ID_SECONDS = 0.001
#: What is due in a year waits in the outbox for most of it: that is no time to show.
_LONGEST_SECONDS = 86_400.0


class Passage:
    """The spans of one row, while it is published."""

    __slots__ = ("_database", "_row", "_sending", "_tracer")

    def __init__(self, tracer: Tracer, row: Row, database: str) -> None:
        self._tracer = tracer
        self._row = row
        self._database = database
        self._sending: Sending | None = None

    @unless_broken(dict[str, str])
    def __call__(self, found: Mapping[str, str], *, again: bool) -> Mapping[str, str]:
        """Begin to publish; return what the message carries."""
        row, tracer = self._row, self._tracer
        if found and not again:
            self._waited(found, time.time())
        links = [found["traceparent"]] if again and found else []
        span = tracer.send(names.JOBS, parent={} if again else found, links=links)
        self._sending = tracer.sending_of(span)
        span.set_attribute("messaging.message.id", row.job_id)
        span.set_attribute("leveret.replayed", again)
        carried = dict(self._sending.context)
        if carried and span.is_recording():
            carried[SENT_AT] = write_sent_at(time.time())
        return carried

    def _waited(self, found: Mapping[str, str], now: float) -> None:
        row, tracer = self._row, self._tracer
        # Both may lie before the span in which it was written: an id may be somebody's, and a
        # transaction may be long.
        made = job_time(row.job_id)
        known = [row.created_at, None if made is None else made + _ID_SECONDS]
        begin = max((moment for moment in known if moment is not None), default=now)
        if not now - _LONGEST_SECONDS < begin < now:
            return
        wait = tracer.start(
            f"outbox {self._database}",
            "internal",
            {"db.system.name": "postgresql", "leveret.actor": row.actor},
            parent=found,
            at=begin,
        )
        tracer.end(wait, at=now)

    def addressed(self, parcel: Post) -> None:
        """Say which message it has become."""
        if self._sending is not None:
            self._sending.tell(parcel, self._row.actor)

    def end(self, error: PublishError | None) -> None:
        """End with the broker's answer."""
        if self._sending is not None:
            self._sending.end(error)
