"""Errors as RFC 9457 problem documents.

Every answer of 400 and above is one, with the content type ``application/problem+json``. ``type``
is ``urn:leveret:problem:`` and a stable word of `Kind`, for programs; ``detail`` is for people; and
``errors`` names what is wrong with a request by JSON Pointers into its body, or by the names of
parameters and headers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

__all__ = ["Fault", "Kind", "Problem", "ProblemDocument", "answers", "response"]

MEDIA_TYPE = "application/problem+json"
_URN = "urn:leveret:problem:"


class Kind(Enum):
    """What can go wrong: the word, the status, and the title."""

    BAD_REQUEST = ("bad-request", 400, "The request cannot be read")
    NO_KEY = ("no-key", 401, "A key is needed")
    BAD_KEY = ("bad-key", 401, "The key is not valid")
    MISSING_SCOPE = ("missing-scope", 403, "The key may not do this")
    NOT_ALLOWED = ("not-allowed", 403, "This is switched off here")
    NOT_FOUND = ("not-found", 404, "There is no such thing")
    BAD_METHOD = ("bad-method", 405, "The address has no such method")
    CONFLICT = ("conflict", 409, "It is not in a state for this")
    CHANGED = ("changed", 412, "It was changed meanwhile")
    TOO_LARGE = ("too-large", 413, "The body is too large")
    MEDIA_TYPE = ("media-type", 415, "The body is of another kind")
    INVALID = ("invalid", 422, "The request is not valid")
    INVALID_JOB = ("invalid-job", 422, "The job is not valid")
    INVALID_SCHEDULE = ("invalid-schedule", 422, "The schedule is not valid")
    KEY_REUSED = ("key-reused", 422, "The Idempotency-Key was used for another request")
    TOO_MANY_FAILURES = ("too-many-failures", 429, "Too many requests without a valid key")
    TOO_MANY_STREAMS = ("too-many-streams", 429, "The key has too many streams open")
    HEADERS_TOO_LARGE = ("headers-too-large", 431, "The headers are too large")
    INTERNAL = ("internal", 500, "This is a defect")
    UNAVAILABLE = ("unavailable", 503, "It cannot be done at the moment")

    def __init__(self, word: str, status: int, title: str) -> None:
        self.word = word
        self.status = status
        self.title = title


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    #: ``/jobs/3/arguments/to``
    pointer: str | None = Field(
        default=None, description="Where in the body, as a JSON Pointer (RFC 6901)."
    )
    parameter: str | None = Field(default=None, description="Which parameter of the address.")
    header: str | None = Field(default=None, description="Which header.")
    position: int | None = Field(
        default=None, description="The column of a text, from 1, at which it goes wrong."
    )
    reason: str = Field(description="A stable word for programs.")
    detail: str = Field(description="What is wrong, for people.")


class ProblemDocument(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description=f"A stable word behind `{_URN}`.")
    title: str
    status: int
    detail: str
    errors: list[Fault] = Field(
        default_factory=list, description="What is wrong with the request, one by one."
    )
    request_id: str | None = Field(
        default=None, description="The X-Request-Id, under which the server's log has it."
    )


class Problem(HTTPException):
    """An error that is answered with a problem document."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(kind.status, detail, dict(headers) if headers else None)
        self.kind = kind
        self.errors = tuple(errors)


def response(problem: Problem, request_id: str | None = None) -> JSONResponse:
    """Write a problem as an answer."""
    document = ProblemDocument(
        type=f"{_URN}{problem.kind.word}",
        title=problem.kind.title,
        status=problem.kind.status,
        detail=problem.detail,
        errors=list(problem.errors),
        request_id=request_id,
    )
    return JSONResponse(
        document.model_dump(mode="json", exclude_none=True),
        status_code=problem.kind.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document these error answers of an endpoint."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in sorted(statuses)
    }
