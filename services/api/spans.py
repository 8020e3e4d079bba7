"""The span of a request: a part of the caller's trace, and what its jobs belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from leveret import tracing
from leveret.message.trace import read_trace
from leveret.tracing.guard import unless_broken

if TYPE_CHECKING:
    from contextvars import Token

    from starlette.datastructures import Headers
    from starlette.types import Scope

    from leveret.tracing.spans import Tracer

__all__ = ["Served"]

_SERVER_ERROR = 500


class Served:
    """One request, while it is answered."""

    def __init__(self, tracer: Tracer, scope: Scope, headers: Headers) -> None:
        self._tracer = tracer
        self._span = tracer.start(
            scope["method"],
            "server",
            {
                "http.request.method": scope["method"],
                "url.scheme": scope.get("scheme", "http"),
                "url.path": scope["path"][:300],
                "network.protocol.version": scope.get("http_version", "1.1"),
            },
            parent=read_trace(headers),
        )
        self._method: str = scope["method"]
        self._token: Token[Any] = tracer.enter(self._span)

    @classmethod
    def of(cls, scope: Scope, headers: Headers) -> Self | None:
        """Begin the span of a request to ``/v1``; None where there are none."""
        tracer = tracing.tracer()
        if tracer is None or not scope["path"].startswith("/v1/"):
            return None
        return cls._begin(tracer, scope, headers)

    @classmethod
    @unless_broken(lambda: None)
    def _begin(cls, tracer: Tracer, scope: Scope, headers: Headers) -> Self:
        return cls(tracer, scope, headers)

    @unless_broken(lambda: None)
    def end(self, route: str, status: int, error: str | None) -> None:
        """End with the answer."""
        self._tracer.leave(self._token)
        span = self._span
        if span.is_recording():
            span.update_name(f"{self._method} {route}")
            span.set_attributes({"http.route": route, "http.response.status_code": status})
        failed = error is not None and status >= _SERVER_ERROR
        self._tracer.end(span, error=(error or "", error or "") if failed else None)
