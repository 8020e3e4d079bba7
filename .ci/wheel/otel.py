"""A trace that a publisher's job would carry on, with ``leveret[otel]``."""

# ruff: noqa: S101 - a program that fails is what is wanted

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider

from leveret import tracing

trace.set_tracer_provider(TracerProvider())
with trace.get_tracer("shop").start_as_current_span("order") as span:
    wanted = f"{span.get_span_context().trace_id:032x}"
    assert tracing.trace_id() == wanted
    assert wanted in tracing.current()["traceparent"]
OTLPSpanExporter(endpoint="http://127.0.0.1:1").shutdown()
