"""Traces: the library's one door to OpenTelemetry.

A job carries W3C's ``traceparent`` in its headers, whether OpenTelemetry is installed or not.
"""

from __future__ import annotations

import sys

from leveret.context import running
from leveret.message.trace import read_traceparent

__all__ = ["trace_id"]

_TRACE = slice(3, 35)


def trace_id(traceparent: str | None = None) -> str | None:
    """Return the id of a trace, 32 hex digits: of ``traceparent``, or that which goes on here.

    Here is the current span of OpenTelemetry, or else the job that is running. Thread-safe, and
    cheap. None when there is no trace.
    """
    if traceparent is None:
        api = sys.modules.get("opentelemetry.trace")
        current = None if api is None else getattr(api, "get_current_span", None)
        if current is not None:
            context = current().get_span_context()
            if context.is_valid:
                return f"{context.trace_id:032x}"
        run = running.get()
        traceparent = None if run is None else run.job.traceparent
    valid = read_traceparent(traceparent)
    return None if valid is None else valid[_TRACE]
