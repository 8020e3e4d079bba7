"""The application: `create_app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import Response

from leveret import metrics
from leveret.settings import Settings
from services.api.context import Context
from services.api.edge import Edge
from services.api.problem import Fault, Kind, Problem, ProblemDocument, answers, response
from services.api.route import SECURITY
from services.api.routes import ROUTERS, health

__all__ = ["create_app"]

_DESCRIPTION = """\
Publish background jobs, see what became of them, and operate on them.

Every call below `/v1` needs a key, `Authorization: Bearer lv_…`, with the scope that the call says.
`read` is included in `operate`, and both in `admin`; `publish` stands for itself. Errors are
RFC 9457 problem documents, whose `type` is a stable word.
"""
#: Possible at every call below /v1.
_ANYWHERE = (401, 403, 429, 431, 503)


def create_app(settings: Settings) -> FastAPI:
    """Make the application.

    It connects to the database at the first request, and goes on asking while that is away. Raises
    `ConfigurationError` for settings that are missing, and for actors that cannot be loaded.
    """
    context = Context(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        metrics.announce(metrics.API)
        await context.start()
        yield
        await context.close()

    app = FastAPI(
        title="Leveret",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Recent releases make spans of their own, with the query and what was raised in them.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            HTTPException: _on_http_exception,
            RequestValidationError: _on_invalid_request,
        },
    )
    app.state.context = context
    app.add_middleware(Edge, context=context)
    app.include_router(health.router)
    for router in ROUTERS:
        app.include_router(router, responses=answers(*_ANYWHERE))
    document = _document(app)
    app.openapi = lambda: document  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        return document

    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """Write the OpenAPI document."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = document.setdefault("components", {})
    _, found = models_json_schema(
        [(ProblemDocument, "serialization"), (Fault, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    components.setdefault("schemas", {}).update(found["$defs"])
    components["securitySchemes"] = {
        SECURITY: {"type": "http", "scheme": "bearer", "bearerFormat": "lv_<id>_<secret>"}
    }
    return document


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if isinstance(error, Problem):
        problem = error
    elif isinstance(error, HTTPException):
        kind = _KINDS.get(error.status_code, Kind.BAD_REQUEST)
        detail = f"{request.method} {request.url.path[:300]}: {error.detail}"
        problem = Problem(kind, detail, headers=error.headers)
    else:
        raise error
    return response(problem, _request_id(request))


_KINDS: dict[int, Kind] = {
    HTTPStatus.NOT_FOUND: Kind.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: Kind.BAD_METHOD,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Kind.TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: Kind.MEDIA_TYPE,
}


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    faults = [_fault(found) for found in error.errors()[:100]]
    first = faults[0]
    where = first.pointer if first.pointer is not None else first.parameter or first.header
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    problem = Problem(Kind.INVALID, f"{where or '/'}: {first.detail}{more}", errors=faults)
    return response(problem, _request_id(request))


def _fault(error: Any) -> Fault:
    place, *path = error["loc"]
    name = ".".join(map(str, path))
    detail, reason = str(error["msg"]), str(error["type"]).replace("_", "-")
    match place:
        case "body":
            pointer = "".join(f"/{_escaped(part)}" for part in path)
            return Fault(pointer=pointer, reason=reason, detail=detail)
        case "header":
            return Fault(header=name, reason=reason, detail=detail)
    return Fault(parameter=name, reason=reason, detail=detail)


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _request_id(request: Request) -> str | None:
    found = request.scope.get("state", {}).get("request_id")
    return found if isinstance(found, str) else None
