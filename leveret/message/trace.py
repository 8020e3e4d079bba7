"""W3C Trace Context, as messages carry it: https://www.w3.org/TR/trace-context/.

Two headers of ours stand beside it, which only processes that make spans write: when this copy of
the message was sent, to the microsecond, and the context of the attempt before.

Whatever is not valid is ignored, as W3C asks: a trace is never a reason to refuse a job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = [
    "AFTER",
    "SENT_AT",
    "TRACE_HEADERS",
    "read_sent_at",
    "read_trace",
    "read_traceparent",
    "read_tracestate",
    "write_sent_at",
]

#: The context of the attempt that led to this copy, as a ``traceparent``.
AFTER = "x-leveret-after"
#: When this copy was sent, as RFC 3339.
SENT_AT = "x-leveret-sent-at"
#: All that is about a trace.
TRACE_HEADERS = frozenset({"traceparent", "tracestate", AFTER, SENT_AT})

#: Version 00, the id of the trace, that of the span, flags; ids of zeros alone are none.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
#: What W3C asks to carry at least, and what is carried at most.
_MAX_TRACESTATE = 512


def read_traceparent(value: object) -> str | None:
    """Return a ``traceparent`` that is valid; None for anything else."""
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None


def read_tracestate(value: object) -> str | None:
    """Return a ``tracestate`` that can be carried: printable ASCII, up to 512 characters."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TRACESTATE:
        return None
    return value if value.isascii() and value.isprintable() else None


def read_trace(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``traceparent`` and the ``tracestate`` in some headers, as far as they are valid.

    Without the first, the second means nothing.
    """
    parent = read_traceparent(headers.get("traceparent"))
    if parent is None:
        return {}
    found = {"traceparent": parent}
    state = read_tracestate(headers.get("tracestate"))
    if state is not None:
        found["tracestate"] = state
    return found


def write_sent_at(seconds: float) -> str:
    """Write a time, in seconds since 1970, as RFC 3339 to the microsecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_sent_at(headers: Mapping[str, Any]) -> float | None:
    """Return when a copy was sent, in seconds since 1970; None when nothing valid says so."""
    value = headers.get(SENT_AT)
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.timestamp() if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
