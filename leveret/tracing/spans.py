"""Spans, made with the API of OpenTelemetry.

Names and attributes are those of OpenTelemetry's semantic conventions for messaging, 1.44, and for
RabbitMQ in particular; what they have no word for begins with ``leveret.``. A span never has an
argument of a job.

Nothing raises: what a provider does wrong is logged once, and jobs go on.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from leveret import names
from leveret.message.trace import SENT_AT, read_trace, read_tracestate, write_sent_at
from leveret.tracing.guard import unless_broken

if TYPE_CHECKING:
    from contextvars import Token

    import pika
    from opentelemetry.context import Context
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from leveret.amqp import Post
    from leveret.message import Job

__all__ = ["Kind", "Sending", "Tracer", "version"]

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
Kind = Literal["internal", "server", "client", "producer", "consumer"]
_KINDS = {kind.name.lower(): kind for kind in SpanKind}
_SCALE = 1_000_000_000
_MAX_TEXT = 2_000


def _no_span() -> Span:
    return trace.INVALID_SPAN


class Tracer:
    """Makes the spans of this library with one provider. Thread-safe."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("leveret", version(), schema_url=SCHEMA)

    @classmethod
    def of_process(cls) -> Self | None:
        """Return the tracer of OpenTelemetry's global provider; None while there is none."""
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            return None
        return cls(provider)

    #: Attributes of every span about a message.
    SYSTEM: ClassVar[dict[str, AttributeValue]] = {"messaging.system": "rabbitmq"}

    # -------------------------------------------------------------------------------- any span

    @unless_broken(_no_span)
    def start(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, AttributeValue],
        *,
        parent: Mapping[str, str] | Span | None = None,
        links: Sequence[str] = (),
        at: float | None = None,
    ) -> Span:
        """Begin a span; ``at`` is in seconds since 1970.

        ``parent`` is another, or a context as headers have it, empty for a new trace; None is the
        current span. ``links`` are values of ``traceparent``.
        """
        return self._tracer.start_span(
            name,
            context=_context(parent),
            kind=_KINDS[kind],
            attributes=attributes,
            links=[Link(_span_context(link, None)) for link in links],
            start_time=None if at is None else round(at * _SCALE),
        )

    @unless_broken(lambda: None)
    def end(
        self, span: Span, *, error: tuple[str, str] | None = None, at: float | None = None
    ) -> None:
        """End a span, with the type and the text of what went wrong, if something did."""
        if error is not None and span.is_recording():
            span.set_attribute("error.type", error[0])
            span.set_status(Status(StatusCode.ERROR, error[1][:_MAX_TEXT]))
        span.end(None if at is None else round(at * _SCALE))

    def enter(self, span: Span) -> Token[Context]:
        """Make a span the current one of this thread; `leave` takes the token."""
        return contexts.attach(trace.set_span_in_context(span))

    def leave(self, token: Token[Context]) -> None:
        """Make the span before it the current one again."""
        contexts.detach(token)

    def headers(self, span: Span) -> dict[str, str]:
        """Return the context of a span as headers; empty for one that belongs to no trace."""
        context = span.get_span_context()
        if not context.is_valid:
            return {}
        found = {
            "traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}"
            f"-{context.trace_flags:02x}"
        }
        state = read_tracestate(context.trace_state.to_header()) if context.trace_state else None
        if state is not None:
            found["tracestate"] = state
        return found

    def current(self) -> dict[str, str]:
        """Return the context of the current span as headers; empty when there is none."""
        return self.headers(trace.get_current_span())

    # ------------------------------------------------------------------------------- messages

    def described(
        self, routing_key: str, place: str, properties: pika.BasicProperties, body: bytes
    ) -> dict[str, AttributeValue]:
        """Return the attributes of a message; ``place`` is its exchange, or its queue."""
        found: dict[str, AttributeValue] = {
            **self.SYSTEM,
            "messaging.destination.name": place,
            "messaging.rabbitmq.destination.routing_key": routing_key,
            "messaging.message.body.size": len(body),
        }
        for name, value in (
            ("id", properties.message_id),
            ("conversation_id", properties.correlation_id),
        ):
            if isinstance(value, str) and value:
                found[f"messaging.message.{name}"] = value
        return found

    def send(
        self,
        exchange: str,
        *,
        parent: Mapping[str, str] | Span | None,
        links: Sequence[str] = (),
        at: float | None = None,
    ) -> Span:
        """Begin the span of a message's way to the broker; the rest as `start`."""
        return self.start(
            f"send {exchange}",
            "producer",
            {
                **self.SYSTEM,
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": exchange,
            },
            parent=parent,
            links=links,
            at=at,
        )

    def sending_of(self, span: Span) -> Sending:
        """Return what ends the span of `send` with the broker's answer."""
        return Sending(self, span)

    def sending(self, job: Job) -> tuple[Job, Sending]:
        """Begin to publish a job; return it with the context that its message carries.

        A context that the caller gave stays as it is, and is the parent.
        """
        given = read_trace({"traceparent": job.traceparent, "tracestate": job.tracestate})
        exchange = names.JOBS if job.due_at is None else names.DELAY
        sending = Sending(self, self.send(exchange, parent=given or None))
        if not given:
            context = sending.context
            job = replace(
                job,
                traceparent=context.get("traceparent"),
                tracestate=context.get("tracestate"),
            )
        return job, sending


class Sending:
    """A message's way to the broker, from here to the confirm."""

    __slots__ = ("_span", "_tracer", "context")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        #: What the message may carry.
        self.context = tracer.headers(span)

    @unless_broken(lambda: None)
    def addressed(self, post: Post, actor: str) -> None:
        """Say which message it is, and in the message when it was sent."""
        if self._span.is_recording():
            sent_at = write_sent_at(time.time())
            post.properties.headers = {**(post.properties.headers or {}), SENT_AT: sent_at}
            self.tell(post, actor)

    @unless_broken(lambda: None)
    def tell(self, post: Post, actor: str) -> None:
        """Say which message it is."""
        span = self._span
        if span.is_recording():
            span.update_name(f"send {post.exchange}")
            span.set_attributes(
                self._tracer.described(post.routing_key, post.exchange, post.properties, post.body)
            )
            span.set_attribute("leveret.actor", actor)

    def end(self, error: BaseException | None = None) -> None:
        """End with the broker's answer, or with what kept the message from it."""
        told = None if error is None else (type(error).__name__, str(error))
        self._tracer.end(self._span, error=told)


def version() -> str | None:
    """Return the version of this library, if it is installed."""
    try:
        return importlib.metadata.version("leveret")
    except importlib.metadata.PackageNotFoundError:
        return None


def _span_context(traceparent: str, tracestate: str | None) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([tracestate]) if tracestate else None,
    )


def _context(parent: Mapping[str, str] | Span | None) -> Context | None:
    """Return the context to begin a span in; None is the current one."""
    if parent is None:
        return None
    if isinstance(parent, trace.Span):
        return trace.set_span_in_context(parent, contexts.Context())
    if not parent:
        return contexts.Context()
    remote = _span_context(parent["traceparent"], parent.get("tracestate"))
    return trace.set_span_in_context(NonRecordingSpan(remote), contexts.Context())
