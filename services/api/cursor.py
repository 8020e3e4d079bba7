"""Cursors: where a page of a list has ended, as an opaque word. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any

from services.api.problem import Fault, Kind, Problem

__all__ = ["bad_cursor", "moment", "read", "write"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write(*parts: datetime | int | str) -> str:
    """Write the key of the last row; times keep their microseconds."""
    plain = [
        (part - _EPOCH) // datetime.resolution if isinstance(part, datetime) else part
        for part in parts
    ]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def read(cursor: str, *kinds: type) -> list[Any]:
    """Read what `write` wrote; raises a `Problem` for anything else. Times are still numbers."""
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise bad_cursor() from None
    if not isinstance(parts, list) or [type(part) for part in parts] != list(kinds):
        raise bad_cursor()
    if any(isinstance(part, int) and not -(2**63) <= part < 2**63 for part in parts):
        raise bad_cursor()
    return parts


def moment(number: int) -> datetime:
    """Read a time of a cursor."""
    try:
        return _EPOCH + number * datetime.resolution
    except OverflowError:
        raise bad_cursor() from None


def bad_cursor() -> Problem:
    """Return the problem with a cursor that is none."""
    detail = "the cursor is not one that a page has ended with"
    return Problem(
        Kind.INVALID,
        detail,
        errors=[Fault(parameter="cursor", reason="bad-cursor", detail=detail)],
    )
