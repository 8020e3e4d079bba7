"""The API, the SDK and the exporter of OpenTelemetry, with ``leveret[otel]``."""

# ruff: noqa: S101 - a program that fails is what is wanted

from __future__ import annotations

import importlib

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider

with TracerProvider().get_tracer("leveret").start_as_current_span("publish") as span:
    assert span.get_span_context().is_valid
OTLPSpanExporter(endpoint="http://127.0.0.1:1").shutdown()
importlib.import_module("leveret")
