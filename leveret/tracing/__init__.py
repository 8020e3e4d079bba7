"""Traces: the library's one door to OpenTelemetry.

A job carries W3C's ``traceparent`` in its headers, whether OpenTelemetry is installed or not. Spans
are made where a tracer provider is configured: in a service of others, theirs, which they have set
as OpenTelemetry's global one; in a process of ours, the one of `leveret.tracing.process`. Nothing
here imports OpenTelemetry before somebody else has: who has a provider has loaded it. Without one,
every question below costs a look into a dictionary.

What the spans are is told in ``docs/explanation/tracing.md``.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from leveret.context import running
from leveret.message.trace import read_trace, read_traceparent

if TYPE_CHECKING:
    from types import ModuleType

    from leveret.message import Job
    from leveret.tracing.spans import Tracer

__all__ = ["current", "inherit", "trace_id", "tracer"]

_TRACE = slice(3, 35)
_API = "opentelemetry.trace"

#: The variable by which OpenTelemetry makes its provider when it is first asked for it.
_by_variable = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ

_tracer: Tracer | None = None


def tracer() -> Tracer | None:
    """Return what makes spans; None while no tracer provider is configured. Thread-safe."""
    global _tracer  # noqa: PLW0603 - a process has one provider, as OpenTelemetry has it
    if _tracer is None and (api := sys.modules.get(_API)) is not None and _may_be_set(api):
        spans = importlib.import_module("leveret.tracing.spans")
        _tracer = spans.Tracer.of_process()
    return _tracer


def _may_be_set(api: ModuleType) -> bool:
    """Tell whether it is worth asking OpenTelemetry for its provider.

    The question costs two microseconds, as it looks into the environment each time, and FastAPI
    loads the API into services that make no spans.
    """
    return _by_variable or getattr(api, "_TRACER_PROVIDER", api) is not None


def current() -> dict[str, str]:
    """Return the context of what goes on here, as headers; empty when it belongs to no trace.

    That is OpenTelemetry's current span, if a provider is configured, or else the job that runs.
    """
    spans = tracer()
    if spans is not None and (found := spans.current()):
        return found
    run = running.get()
    if run is None or run.job.traceparent is None:
        return {}
    return read_trace({"traceparent": run.job.traceparent, "tracestate": run.job.tracestate})


def inherit(job: Job) -> Job:
    """Put a job into the trace that goes on here, unless it has one of its own."""
    if job.traceparent is not None or not (found := current()):
        return job
    return replace(job, traceparent=found["traceparent"], tracestate=found.get("tracestate"))


def trace_id(traceparent: str | None = None) -> str | None:
    """Return the id of a trace, 32 hex digits: of ``traceparent``, or that which goes on here.

    Here is the current span of OpenTelemetry, or else the job that is running. Thread-safe, and
    cheap. None when there is no trace.
    """
    if traceparent is None:
        traceparent = current().get("traceparent")
    valid = read_traceparent(traceparent)
    return None if valid is None else valid[_TRACE]
