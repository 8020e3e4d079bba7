"""Spans of what actors ask of others with httpx."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor, RequestInfo

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["instrument"]

#: Which attributes the instrumentations write: those of the stable conventions.
_CONVENTIONS = "OTEL_SEMCONV_STABILITY_OPT_IN"


def instrument() -> None:
    """Have every client of httpx make spans, and send ``traceparent``; once for a process."""
    os.environ.setdefault(_CONVENTIONS, "http")
    HTTPXClientInstrumentor().instrument(request_hook=_shorten, async_request_hook=_shorten_async)


def _shorten(span: Span, request: RequestInfo) -> None:
    """Keep of an address what cannot be an argument or a secret: its origin."""
    url = request.url
    if not isinstance(url, httpx.URL) or not span.is_recording():
        return
    origin = f"{url.scheme}://{url.netloc.decode()}/"
    for name in ("url.full", "http.url"):
        if name in getattr(span, "attributes", {}):
            span.set_attribute(name, origin)


async def _shorten_async(span: Span, request: RequestInfo) -> None:
    _shorten(span, request)
