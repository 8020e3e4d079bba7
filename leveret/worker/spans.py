"""The spans of a run: how long the job had waited, the attempt, and what followed from it.

::

    send leveret.jobs                         by whoever published the job; its context is in
      ├── delay leveret.delay                 the message
      ├── queue leveret.default
      ├── process report.build                the first attempt, which failed
      │     ├── (what the actor does)
      │     ├── send leveret.retry            the copy that runs again
      │     └── ack leveret.default           from the end of the run until all of it was safe
      ├── delay leveret.retry
      ├── queue leveret.default
      └── process report.build                the second attempt, linked to the first
            └── ack leveret.default

Every attempt is a child of what its message carries, and a copy carries the same as the message
before: so a trace is whole whichever worker dies, and a job that killed its worker goes on in its
trace, without the span that was never ended.

The spans of waiting are made when the wait is over, by the worker. When it began is in the message,
to the microsecond, if its sender makes spans. Otherwise it is known to a millisecond from a job's
id, or to a second from AMQP's timestamp, and what is taken is the latest moment that it can have
been: a wait must not begin before the span that it follows from.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from leveret import names
from leveret.message import PREFIX, job_time, read_moment
from leveret.message.trace import (
    AFTER,
    SENT_AT,
    read_sent_at,
    read_trace,
    read_traceparent,
    write_sent_at,
)
from leveret.outcome import Dead, Expired, Outcome, Quarantine, Retry, Snooze
from leveret.tracing.guard import unless_broken
from leveret.worker.failure import describe
from leveret.worker.records import event_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pika

    from leveret.message import Job
    from leveret.tracing.spans import Tracer
    from leveret.worker.delivery import Delivery

__all__ = ["Attempt", "begin", "unstarted"]

_MAX_STACK = 8_000
#: How much later a job can have been published than its id, or AMQP's timestamp, says.
_ID_SECONDS = 0.001
_TIMESTAMP_SECONDS = 1.0
#: What is said to have begun before that is not believed.
_LONGEST_WAIT = 400 * 86_400.0


@unless_broken(lambda: None)
def begin(tracer: Tracer, delivery: Delivery, now: float) -> Attempt | None:
    """Begin an attempt, and end what came before it: the waits."""
    return Attempt(tracer, delivery, now)


def unstarted(tracer: Tracer, delivery: Delivery, outcome: Outcome) -> None:
    """Tell of a job that was settled without a run: it was cancelled, or had killed its worker."""
    attempt = begin(tracer, delivery, time.time())
    if attempt is not None:
        if delivery.job is not None:
            attempt.adopt(delivery.job)
        attempt.ended(outcome)


class Attempt:
    """The spans of one run. `adopt` and `ended` are for its thread, the rest for the IO thread."""

    __slots__ = ("_carried", "_ended_at", "_sent_at", "_tracer", "context", "span")

    def __init__(self, tracer: Tracer, delivery: Delivery, now: float) -> None:
        self._tracer = tracer
        self._ended_at: float | None = None
        self._sent_at: float | None = None
        properties = delivery.properties
        headers = properties.headers or {}
        queue, source = delivery.session.queue, delivery.session.source
        actor = properties.type  # anybody's word, until it is found to be a name
        known = isinstance(actor, str) and names.is_actor_name(actor)
        about = tracer.described(delivery.routing_key, source, properties, delivery.body) | {
            "leveret.queue": queue
        }
        carried: Mapping[str, str] = read_trace(headers)
        for name, begin, end in _waits(properties, headers, source, now):
            wait = tracer.start(
                name,
                "internal",
                about | {"messaging.operation.name": name.partition(" ")[0]},
                parent=carried,
                at=begin,
            )
            tracer.end(wait, at=end)
            carried = carried or tracer.headers(wait)  # a job without a trace begins one here
        after = read_traceparent(headers.get(AFTER))
        self.span = tracer.start(
            f"process {actor}" if known else "process",
            "consumer",
            about
            | {
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "leveret.redelivered": delivery.unsuccessful > 0,
            },
            parent=carried,
            links=() if after is None else (after,),
            at=now,
        )
        #: What the actor's own calls carry.
        self.context = tracer.headers(self.span)
        self._carried = carried or self.context

    def adopt(self, job: Job) -> Job:
        """Say which job it is; return it as a part of this span."""
        self._identify(job)
        if not self.context:
            return job
        return replace(
            job,
            traceparent=self.context["traceparent"],
            tracestate=self.context.get("tracestate"),
        )

    @unless_broken(lambda: None)
    def _identify(self, job: Job) -> None:
        span = self.span
        if span.is_recording():
            span.update_name(f"process {job.actor}")
            span.set_attributes(
                {
                    "messaging.message.id": job.id,
                    "leveret.actor": job.actor,
                    "leveret.attempt": job.attempt,
                    "leveret.run": job.run,
                }
            )
            if job.schedule is not None:
                span.set_attribute("leveret.schedule", job.schedule)

    @unless_broken(lambda: None)
    def ended(self, outcome: Outcome) -> None:
        """End the attempt with what it led to."""
        span = self.span
        error = None
        if span.is_recording():
            span.set_attribute("leveret.outcome", event_of(outcome))
            match outcome:
                case Retry(_, failure) | Dead(_, failure):
                    told = describe(failure)
                    error = told["type"], told["message"]
                    span.add_event(
                        "exception",
                        {
                            "exception.type": told["type"],
                            "exception.message": told["message"],
                            "exception.stacktrace": told["traceback"][-_MAX_STACK:],
                        },
                    )
                    if isinstance(outcome, Dead):
                        span.set_attribute("leveret.reason", str(outcome.reason))
                case Expired(detail):
                    error = "expired", detail
        self._ended_at = time.time()
        self._tracer.end(span, error=error, at=self._ended_at)

    @unless_broken(dict[str, str])
    def copied(self) -> dict[str, str]:
        """Return the headers of a copy: the trace goes on, and knows of this attempt."""
        found = dict(self._carried)
        if self.span.get_span_context().trace_flags.sampled:
            found[SENT_AT] = write_sent_at(time.time())
            found[AFTER] = self.context["traceparent"]
        return found

    def published(self, now: float) -> None:
        """Take note of when what follows from the run was published."""
        self._sent_at = now

    @unless_broken(lambda: None)
    def settled(self, delivery: Delivery, outcome: Outcome, *, void: str | None = None) -> None:
        """Say that what follows from the run is safe, and acked; or why it could not be."""
        if not self.span.get_span_context().trace_flags.sampled:
            return
        tracer, now = self._tracer, time.time()
        began = now if self._sent_at is None else self._sent_at
        exchange = _copies_to(outcome)
        if exchange is not None and void is None:
            copy = tracer.send(exchange, parent=self.span, at=began)
            tracer.end(copy, at=now)
        ack = tracer.start(
            f"ack {delivery.session.source}",
            "client",
            tracer.SYSTEM
            | {
                "messaging.operation.name": "ack",
                "messaging.operation.type": "settle",
                "messaging.destination.name": delivery.session.source,
            },
            parent=self.span,
            at=self._ended_at or began,
        )
        tracer.end(ack, at=now, error=None if void is None else ("void", void))


def _copies_to(outcome: Outcome) -> str | None:
    match outcome:
        case Retry() | Snooze():
            return names.RETRY
        case Dead() | Expired():
            return names.DEAD
        case Quarantine():
            return names.QUARANTINE
        case _:
            return None


def _waits(
    properties: pika.BasicProperties, headers: Mapping[str, Any], source: str, now: float
) -> list[tuple[str, float, float]]:
    """Return what the job has waited for: the name of the span, its begin and its end."""
    sent, due = _likely(read_sent_at(headers), now), _likely(_due_at(headers), now)
    first = headers.get(f"{PREFIX}attempt", 1) == 1 and AFTER not in headers
    if sent is None and first:  # a retry's id and timestamp are those of the first message
        sent = _likely(_published_at(properties), now)
    waits = []
    if due is not None and sent is not None and sent < due <= now:
        exchange = names.DELAY if first else names.RETRY
        waits.append((f"delay {exchange}", sent, due))
    begin = max((moment for moment in (sent, due) if moment is not None), default=None)
    if begin is not None:
        waits.append((f"queue {source}", min(begin, now), now))
    return waits


def _likely(moment: float | None, now: float) -> float | None:
    return moment if moment is not None and now - _LONGEST_WAIT < moment else None


def _due_at(headers: Mapping[str, Any]) -> float | None:
    try:
        return read_moment(headers.get(f"{PREFIX}due-at")).timestamp()
    except (ValueError, OverflowError):
        return None


def _published_at(properties: pika.BasicProperties) -> float | None:
    """Return the latest moment at which a message can have been published, as it says itself."""
    job_id, timestamp = properties.message_id, properties.timestamp
    made = job_time(job_id) if isinstance(job_id, str) else None
    if not isinstance(timestamp, int):
        return None if made is None else made + _ID_SECONDS
    # An id may be older than its message: it lay in the outbox, or is that of a schedule's slot.
    if made is not None and 0 <= made - timestamp < 1:
        return made + _ID_SECONDS
    return timestamp + _TIMESTAMP_SECONDS
