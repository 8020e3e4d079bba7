"""From spans that have ended to the collector, in our own processes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Self

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from leveret.tracing.spans import version

__all__ = ["Pipeline"]

log = structlog.get_logger("leveret.tracing")

_QUEUE_SIZE = "OTEL_BSP_MAX_QUEUE_SIZE"
_DEFAULT_QUEUE_SIZE = 2048
#: They say of every batch what is said here once.
_CHATTY = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal", "urllib3")


class Pipeline:
    """A tracer provider, a bounded queue, and the collector at its end. Thread-safe."""

    def __init__(self, exporter: SpanExporter, resource: Resource, *, room: int) -> None:
        self._exporter = _Exporter(exporter)
        # Our own provider is shut down by `shutdown`, which does not take as long as it likes.
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(_Processor(self._exporter, room))

    @classmethod
    def of_process(cls, service: str, instance: str) -> Self | None:
        """Make the pipeline of this process and OpenTelemetry's global provider of it.

        None when there is a provider already. Raises what the SDK raises for its variables.
        """
        if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return None
        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            for name in _CHATTY:
                logging.getLogger(name).setLevel(logging.CRITICAL)
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say has the last word.
        ours = {"service.name": service, "service.instance.id": instance}
        if (number := version()) is not None:
            ours["service.version"] = number
        resource = Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())
        size = os.environ.get(_QUEUE_SIZE, "")
        room = int(size) if size.isdecimal() and int(size) else _DEFAULT_QUEUE_SIZE
        made = cls(OTLPSpanExporter(), resource, room=room)
        trace.set_tracer_provider(made.provider)
        return made

    def shutdown(self) -> None:
        """Export what is left; takes as long as the collector does."""
        self.provider.shutdown()

    def report(self) -> None:
        """Say how many spans were lost, if any were; for the end of the process."""
        self._exporter.report()


class _Exporter(SpanExporter):
    """Says once that the collector is away, and once that it is back; counts what is lost."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lock = threading.Lock()
        #: Spans that have ended and of which no export has said what became of them.
        self._waiting = 0
        self._lost = 0
        self._is_away = False
        os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._waiting = self._lost = 0

    def admit(self, room: int) -> bool:
        """Count a span that has ended; False when there is no room, and it is lost."""
        with self._lock:
            if self._waiting >= room:
                self._lost += 1
                return False
            self._waiting += 1
            return True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; what the collector does not take is lost."""
        error = "it does not take spans; with LEVERET_LOG_LEVEL=debug its answers are in the log"
        try:
            result = self._exporter.export(spans)
        except Exception as failure:  # noqa: BLE001 - whatever it is, spans go on
            result, error = SpanExportResult.FAILURE, f"{type(failure).__name__}: {failure}"
        with self._lock:
            self._waiting -= len(spans)
            if result is not SpanExportResult.SUCCESS:
                self._lost += len(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self._is_away:
                self._is_away = True
                log.warning("tracing.collector_lost", reason=error[:300])
        elif self._is_away:
            self._is_away = False
            log.warning("tracing.collector_found", spans_lost=self._take_lost())
        return result

    def report(self) -> None:
        """Say how many spans were lost and not told of."""
        with self._lock:
            self._lost += self._waiting
            self._waiting = 0
        if lost := self._take_lost():
            log.warning("tracing.spans_lost", spans_lost=lost)

    def _take_lost(self) -> int:
        with self._lock:
            lost, self._lost = self._lost, 0
        return lost

    def shutdown(self) -> None:
        """End the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what the exporter holds itself."""
        return self._exporter.force_flush(timeout_millis)


class _Processor(BatchSpanProcessor):
    """The SDK's, which never blocks, and drops what is too much; here it is counted."""

    def __init__(self, exporter: _Exporter, room: int) -> None:
        super().__init__(exporter, max_queue_size=room)
        self._told = exporter
        self._room = room

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that has ended, if there is room for it."""
        context = span.context
        if context is not None and context.trace_flags.sampled and self._told.admit(self._room):
            super().on_end(span)
