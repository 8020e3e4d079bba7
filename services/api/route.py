"""The route class of everything below ``/v1``: the scope is checked before the body is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from leveret.errors import InvalidJob
from leveret.message import MAX_DEPTH, read_json
from leveret.store.api_keys import Scope
from services.api.context import Context, caller_of
from services.api.problem import Kind, Problem

__all__ = ["BodyRequest", "ScopedRoute", "Size", "needs"]

SECURITY = "key"
#: What stands around the arguments of a job in a request.
_AROUND = 3


class Size(Enum):
    """How large a body may be, beyond what the arguments of a job may take."""

    #: A few words.
    SMALL = "small"
    #: One job.
    JOB = "job"
    #: A batch of jobs, most of them small.
    BATCH = "batch"

    def limit(self, job_bytes: int) -> int:
        """Return the limit in bytes, where the arguments of one job may take ``job_bytes``."""
        match self:
            case Size.SMALL:
                return 64 * 1024
            case Size.JOB:
                return job_bytes + 64 * 1024
            case Size.BATCH:
                return max(8 * 1024 * 1024, job_bytes + 64 * 1024)


def needs(scope: Scope, *, body: Size = Size.SMALL) -> dict[str, Any]:
    """Return what to pass as ``openapi_extra``: the scope, and how large a body may be."""
    return {"security": [{SECURITY: [str(scope)]}], "x-body-size": body.value}


class ScopedRoute(APIRoute):
    """A route that says by `needs` which scope it takes; one that does not cannot be declared."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        extra = self.openapi_extra or {}
        try:
            scope = Scope(extra["security"][0][SECURITY][0])
        except (KeyError, IndexError):
            raise TypeError(f"the route {self.path} says no scope; see `needs`") from None
        size = Size(extra["x-body-size"])
        answer = super().get_route_handler()
        action = self.name

        async def handler(request: Request) -> Response:
            caller = caller_of(request)
            context: Context = request.app.state.context
            await context.authenticator.authorize(
                caller.key, scope, action=action, address=caller.address
            )
            limit = size.limit(context.settings.max_body_bytes)
            return await answer(BodyRequest(request, limit))

        return handler


class BodyRequest(Request):
    """A request whose body is JSON, read strictly and never beyond a limit."""

    def __init__(self, request: Request, limit: int) -> None:
        super().__init__(request.scope, request.receive)
        self._limit = limit
        self._read: bytes | None = None

    async def body(self) -> bytes:
        """Read the body; raises a `Problem` when it is larger than the limit, or no JSON."""
        if self._read is None:
            self._check_type()
            length = self.headers.get("content-length", "")
            if length.isascii() and length.isdigit() and int(length[:20]) > self._limit:
                raise self._too_large()
            chunks, size = [], 0
            async for chunk in self.stream():
                size += len(chunk)
                if size > self._limit:
                    raise self._too_large()
                chunks.append(chunk)
            self._read = b"".join(chunks)
        return self._read

    async def json(self) -> Any:
        """Read the document; raises a `Problem` when the body is no JSON."""
        try:
            return read_json(await self.body(), depth=MAX_DEPTH + _AROUND)
        except InvalidJob as error:
            raise Problem(Kind.BAD_REQUEST, str(error)) from None

    def _check_type(self) -> None:
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem(Kind.MEDIA_TYPE, "the body is JSON; say Content-Type: application/json")
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(Kind.MEDIA_TYPE, "the body must not be compressed")

    def _too_large(self) -> Problem:
        return Problem(
            Kind.TOO_LARGE,
            f"the body may have {self._limit} bytes; put large data into a storage, and its "
            "address into the job",
            headers={"Connection": "close"},
        )
