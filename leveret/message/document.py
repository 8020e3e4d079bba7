"""The body of a job: one JSON object, written plainly and read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from leveret.errors import InvalidJob
from leveret.message.reason import Reason
from leveret.message.text import bytes_of

__all__ = [
    "CONTENT_TYPE",
    "MAX_BODY_BYTES",
    "MAX_DEPTH",
    "encode_arguments",
    "plain",
    "read_body",
    "read_json",
]

#: The largest body of a job. Larger things belong into a storage, and their address into the job.
MAX_BODY_BYTES = 1024 * 1024
#: How deep arrays and objects may be nested in a body.
MAX_DEPTH = 64

CONTENT_TYPE = "application/json"


def plain(value: object) -> object:
    """Write what JSON lacks the way pydantic reads it back."""
    match value:
        case datetime() | date() | time_of_day():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case UUID() | Decimal():
            return str(value)
        case Enum():
            return value.value
        case set() | frozenset():
            return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


_to_json = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=plain
).encode


def encode_arguments(arguments: Mapping[str, Any], *, limit: int = MAX_BODY_BYTES) -> bytes:
    """Write a job's arguments as its body; raises `InvalidJob` when they cannot be."""
    if not isinstance(arguments, Mapping):
        raise InvalidJob(
            Reason.NOT_AN_OBJECT,
            f"a job's arguments are a mapping of names to values, not {type(arguments).__name__}",
        )
    for name in arguments:
        if type(name) is not str:
            raise InvalidJob(Reason.BAD_ARGUMENTS, f"argument names are strings, not {name!r}")
    try:
        body = _to_json(dict(arguments)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob(
            Reason.BAD_ARGUMENTS, f"the arguments cannot be written as JSON: {error}"
        ) from None
    if len(body) > limit:
        raise InvalidJob(
            Reason.TOO_LARGE,
            f"the arguments take {len(body)} bytes, and {limit} are the limit; put the data into "
            "a storage and its address into the job",
        )
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; a name given twice means something else to every reader."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names_ = [name for name, _ in pairs]
        twice = next(name for name in found if names_.count(name) > 1)
        raise ValueError(f"the name {twice[:200]!r} is given twice in one object")
    return found


_from_json = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object).decode
_to_text = json.JSONEncoder(ensure_ascii=False).encode
#: An escape that may be half a character.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_body(body: bytes, limit: int) -> dict[str, Any]:
    """Read the body of a job, of at most ``limit`` bytes; raises `InvalidJob` with the reason."""
    if len(body) > limit:
        raise InvalidJob(Reason.TOO_LARGE, f"the body has {len(body)} bytes; {limit} are the limit")
    document = read_json(body)
    if not isinstance(document, dict):
        raise InvalidJob(
            Reason.NOT_AN_OBJECT,
            f"the body is a JSON object of named arguments, not {type(document).__name__}",
        )
    return document


def read_json(body: bytes, *, depth: int = MAX_DEPTH) -> Any:
    """Read JSON strictly: UTF-8, no name twice in an object, no NaN, no half characters.

    Raises `InvalidJob` for anything else, and for what is nested deeper than ``depth``.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidJob(Reason.NOT_UTF8, f"the body is not UTF-8: {error}") from None
    # More brackets than levels allowed may still be flat, fewer cannot be too deep.
    if text.count("[") + text.count("{") > depth and _depth(text) > depth:
        raise InvalidJob(Reason.TOO_DEEP, f"the body is nested deeper than {depth} levels")
    try:
        document = _from_json(text)
    except ValueError as error:
        raise InvalidJob(Reason.NOT_JSON, f"the body is not JSON: {error}") from None
    if _SURROGATE.search(text) is not None and bytes_of(_to_text(document)) == 0:
        raise InvalidJob(Reason.NOT_UTF8, "the body escapes half a character (a lone surrogate)")
    return document


#: A string, or a bracket. The string is possessive and needs no end, so that a body of quotes
#: costs one look at each of its characters, not one at each pair of them.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _depth(text: str) -> int:
    """Measure the nesting of a JSON text without parsing it."""
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        symbol = match.group()
        if symbol in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif symbol in "]}":
            depth -= 1
    return deepest
