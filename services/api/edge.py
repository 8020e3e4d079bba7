"""The outermost layer: what holds for every request, whatever it asks for.

Every answer has the security headers and a request id; every error is a problem document; what
happened is logged and counted once, without query, body or key.
"""

from __future__ import annotations

import re
import secrets
import time
import traceback
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import psycopg
import sqlalchemy.exc
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leveret import metrics, tracing
from leveret.errors import (
    ConfigurationError,
    ManagementError,
    ReplayRefused,
    ScheduleError,
    TooManyWaiters,
)
from leveret.ledger.query import InvalidCursor
from services.api import scheduling
from services.api.context import Caller, Context
from services.api.problem import Fault, Kind, Problem, response
from services.api.spans import Served

__all__ = ["Edge", "problem_of"]

log = structlog.get_logger("leveret.api")

MAX_HEADERS = 64
MAX_HEADER_BYTES = 16 * 1024
_RETRY_SECONDS = "2"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
#: Client went away before the answer; as others log it.
_GONE = 499
_FRAMES = 12


class Edge:
    """Wraps the application; the guard before ``/v1`` is in it, so that no route can be without."""

    def __init__(self, app: ASGIApp, *, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if _REQUEST_ID.fullmatch(request_id) is None:
            request_id = secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0
        served = Served.of(scope, headers)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = MutableHeaders(scope=message)
                added["X-Request-Id"] = request_id
                for name, value in _SECURITY.items():
                    added.setdefault(name, value)
            await send(message)

        error: str | None = None
        try:
            await self._guarded(scope, headers, receive, answer)
        except ClientDisconnect:
            status = status or _GONE
        except Exception as failure:  # noqa: BLE001 - the last that can answer it
            problem = problem_of(failure)
            error = _named(failure)
            if problem.kind is Kind.INTERNAL:
                # Where it was, not what was said: that may be a value of the request's.
                where = "".join(traceback.format_tb(failure.__traceback__)[-_FRAMES:])
                log.error(  # noqa: TRY400
                    "api.defect", request_id=request_id, error=error, where=where
                )
            if status:
                status = _GONE
            else:
                await response(problem, request_id)(scope, receive, answer)
        finally:
            self._account(scope, status, time.perf_counter() - began, request_id, error)
            if served is not None:
                served.end(route_of(scope), status, error)

    async def _guarded(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if len(scope["headers"]) > MAX_HEADERS or size > MAX_HEADER_BYTES:
            raise Problem(
                Kind.HEADERS_TOO_LARGE,
                f"{MAX_HEADERS} headers with {MAX_HEADER_BYTES} bytes are the limit",
            )
        path: str = scope["path"]
        if path == "/v1" or path.startswith("/v1/"):
            client = scope.get("client")
            address = client[0] if client else "unknown"
            key = await self._context.authenticator.authenticate(
                headers.get("authorization"), address
            )
            scope["state"]["caller"] = Caller(key, address)
        await self._app(scope, receive, send)

    def _account(
        self, scope: Scope, status: int, seconds: float, request_id: str, error: str | None
    ) -> None:
        route = route_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics.HTTP_REQUESTS.labels(method, route, str(status)).inc()
        metrics.HTTP_DURATION.labels(method, route).observe(seconds)
        if route in _PROBES and status < HTTPStatus.BAD_REQUEST:
            return
        caller = scope["state"].get("caller")
        client = scope.get("client")
        fields: dict[str, Any] = {
            "method": method,
            "route": route,
            "path": scope["path"][:300],
            "status": status,
            "ms": round(seconds * 1000, 1),
            "key": caller.key.id if caller is not None else None,
            "client": client[0] if client else None,
            "request_id": request_id,
        }
        if error is not None:
            fields["error"] = error
        if (trace := tracing.trace_id()) is not None:
            fields["trace_id"] = trace
        log.info("http.request", **fields)


_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_PROBES = frozenset({"/livez", "/readyz", "/metrics"})


def route_of(scope: Scope) -> str:
    """Name the endpoint that answered, without ids: the labels of a metric are bounded."""
    route = scope.get("route")
    found = getattr(route, "path_format", None) or getattr(route, "path", None)
    return found if isinstance(found, str) else "unknown"


def problem_of(error: BaseException) -> Problem:
    """Say what to answer when this was raised."""
    match error:
        case Problem():
            found = error
        case InvalidCursor():
            fault = Fault(parameter="cursor", reason="bad-cursor", detail=str(error))
            found = Problem(Kind.INVALID, str(error), errors=[fault])
        case ReplayRefused():
            fault = Fault(reason=error.reason, detail=str(error))
            found = Problem(_REFUSALS.get(error.reason, Kind.INVALID), str(error), errors=[fault])
        case ScheduleError():
            found = scheduling.problem_of(error)
        case ManagementError():
            found = _unavailable("RabbitMQ's management API does not answer; ask again")
        case ConfigurationError() | TooManyWaiters():
            found = _unavailable(str(error))
        case _ if _is_unmigrated(error):
            found = _unavailable("the database lacks this release's tables; run `leveret migrate`")
        case sqlalchemy.exc.DataError() | UnicodeEncodeError():
            found = Problem(Kind.INVALID, "a value is one that the database cannot keep")
        case _ if _is_away(error):
            found = _unavailable("the database does not answer; send the request again")
        case _:
            found = Problem(
                Kind.INTERNAL,
                "the server has failed at this request; its log says more under request_id",
            )
    return found


#: Why dead letters are not replayed or discarded, where it is not the request that is wrong.
_REFUSALS = {
    "nothing-matches": Kind.CONFLICT,
    "not-running": Kind.CONFLICT,
    "unknown-replay": Kind.NOT_FOUND,
    "edits-are-off": Kind.NOT_ALLOWED,
}


def _is_unmigrated(error: BaseException) -> bool:
    return any(getattr(cause, "sqlstate", None) in _UNDEFINED for cause in _causes(error))


#: undefined_table, undefined_column, undefined_function, invalid_schema_name
_UNDEFINED = frozenset({"42P01", "42703", "42883", "3F000"})


def _is_away(error: BaseException) -> bool:
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(
        error,
        TimeoutError
        | ConnectionError
        | psycopg.OperationalError
        | sqlalchemy.exc.TimeoutError
        | sqlalchemy.exc.OperationalError
        | sqlalchemy.exc.InterfaceError
        | sqlalchemy.exc.InternalError,
    )


def _unavailable(detail: str) -> Problem:
    return Problem(Kind.UNAVAILABLE, detail, headers={"Retry-After": _RETRY_SECONDS})


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        if isinstance(found, sqlalchemy.exc.DBAPIError) and found.orig is not None:
            yield found.orig
        found = found.__cause__


def _named(error: BaseException) -> str:
    """Name an error without what it says, which may be a value of the request's."""
    return " < ".join(type(cause).__name__ for cause in _causes(error))
