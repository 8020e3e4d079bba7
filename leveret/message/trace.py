"""W3C Trace Context, as messages carry it: https://www.w3.org/TR/trace-context/.

Whatever is not valid is ignored, as W3C asks: a trace is never a reason to refuse a job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["read_trace", "read_traceparent", "read_tracestate"]

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
