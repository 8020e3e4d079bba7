"""The wire contract, version 1: how a job is written as an AMQP message, and read back.

One job is one persistent message. Any client in any language can publish one:

===================  ==========================================================================
exchange             ``leveret.jobs`` for now, ``leveret.delay`` for later
routing key          ``<queue>.<actor>``, or ``any.<actor>``; later: seven digits in front
``message_id``       the job's id; the same id twice is the same job
``type``             the actor's name; without it, the routing key names the actor
``content_type``     ``application/json``
body                 one JSON object, the actor's named arguments
headers              ``x-leveret-…`` of `HEADERS`, ``traceparent``, ``tracestate``
===================  ==========================================================================

Also read: the envelope of stock Dramatiq, whose body carries everything. What cannot be read raises
`InvalidJob` with a `Reason`; the caller dead-letters it with its bytes untouched.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pika

from leveret import names, wheel
from leveret.errors import InvalidJob

__all__ = [
    "BROKER_HEADERS",
    "HEADERS",
    "MAX_BODY_BYTES",
    "MAX_DEPTH",
    "Job",
    "Reason",
    "arguments_key",
    "decode",
    "encode",
    "job_time",
    "new_id",
    "plain",
    "read_json",
    "storable",
]

#: The largest body of a job. Larger things belong into a storage, and their address into the job.
MAX_BODY_BYTES = 1024 * 1024
#: How deep arrays and objects may be nested in a body.
MAX_DEPTH = 64

CONTENT_TYPE = "application/json"
PERSISTENT = 2
PREFIX = "x-leveret-"


class Reason(StrEnum):
    """Why a job is a dead letter; stable words for headers, labels and filters."""

    UNREADABLE_HEADER = "unreadable-header"
    BAD_PROPERTY = "bad-property"
    BAD_HEADER = "bad-header"
    BAD_CONTENT_TYPE = "bad-content-type"
    TOO_LARGE = "too-large"
    TOO_DEEP = "too-deep"
    NOT_UTF8 = "not-utf8"
    NOT_JSON = "not-json"
    NOT_AN_OBJECT = "not-an-object"
    BAD_ENVELOPE = "bad-envelope"
    UNKNOWN_ACTOR = "unknown-actor"
    BAD_ARGUMENTS = "bad-arguments"
    EXPIRED = "expired"
    EXHAUSTED = "exhausted"
    REFUSED = "refused"
    WORKER_KILLED = "worker-killed"
    NO_DATABASE = "no-database"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job, as it is published and as it is received."""

    #: Name of the actor that runs it.
    actor: str
    #: The actor's named arguments.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: Positional arguments; only Dramatiq's envelope has them.
    positional: tuple[Any, ...] = ()
    id: str
    #: The pool that runs it; None leaves it to the routing table.
    queue: str | None = None
    #: Not before this time.
    due_at: datetime | None = None
    #: Not after this time.
    expires_at: datetime | None = None
    #: 1 for the first run.
    attempt: int = 1
    #: 0 for the job as it was published, one more for every replay.
    run: int = 0
    #: Replaces the actor's own limit.
    max_retries: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    app_id: str | None = None
    idempotency_key: str | None = None
    once: bool = False
    #: Jobs of the actor with the same key that are published within this time, which is whole
    #: seconds, are one job.
    unique_for: timedelta | None = None
    #: Those published before this job has ``started``, or is ``done``, are the same job as it.
    unique_until: str | None = None
    #: Which of them runs: the first (``skip`` the others), or the last (``replace`` the others).
    on_conflict: str = "skip"
    traceparent: str | None = None
    tracestate: str | None = None
    #: The schedule that published it, and the moment of that schedule that it stands for.
    schedule: str | None = None
    slot: datetime | None = None
    #: True when the publisher gave no id and this one was made up on receipt.
    id_assigned: bool = False

    @property
    def key(self) -> str:
        """The routing key, without the digits of a delay."""
        return f"{self.queue or names.ANY_QUEUE}.{self.actor}"

    @property
    def is_unique(self) -> bool:
        """Whether it may be left out because another job stands for it."""
        return (
            self.unique_for is not None
            or self.unique_until is not None
            or self.on_conflict != "skip"
        )


# ------------------------------------------------------------------------------------- identity


# Ids must be unique, not secret. A generator in the process costs a tenth of a microsecond; asking
# the kernel gives the interpreter lock away each time, and halves what one thread can publish.
_random = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """Make a job id: a UUIDv7 (RFC 9562), whose first 48 bits are the time in milliseconds.

    Thread-safe. Not a secret: who sees some ids may guess others.
    """
    now = time.time_ns()
    milliseconds, rest = divmod(now, 1_000_000)
    fraction = rest * 4096 // 1_000_000
    tail = _random.getrandbits(62) | 0x8000_0000_0000_0000
    text = f"{milliseconds:012x}7{fraction:03x}{tail:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def job_time(job_id: str) -> float | None:
    """Read the time out of an id that `new_id` made, in seconds since 1970; None for others."""
    if len(job_id) == 36 and job_id[14] == "7" and job_id[8] == "-":
        try:
            return int(job_id[:8] + job_id[9:13], 16) / 1000
        except ValueError:
            return None
    return None


# ------------------------------------------------------------------------------------- encoding


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


def encode(job: Job, *, timestamp: float) -> tuple[str, str, pika.BasicProperties]:
    """Write all of a job but its body: the exchange, the routing key and the properties.

    ``timestamp`` is now, in seconds since 1970; a job that is due later goes to the delay wheel.
    Raises `InvalidJob` when a field breaks the contract.
    """
    _check(job)
    headers: dict[str, Any] | None = None
    exchange, key = names.JOBS, job.key
    if job.due_at is not None:
        delay = timedelta(seconds=job.due_at.timestamp() - timestamp)
        if delay > timedelta(0):
            try:
                exchange, key = names.DELAY, wheel.delayed_key(delay, key)
            except ValueError as error:
                raise InvalidJob(Reason.BAD_PROPERTY, str(error)) from None
        headers = {f"{PREFIX}due-at": format_time(job.due_at)}
    for name, header in HEADERS.items():
        value = getattr(job, header.attribute)
        if value is not None and value != header.default and header.attribute != "due_at":
            headers = headers or {}
            headers[PREFIX + name] = header.write(value)
    for name in ("traceparent", "tracestate"):
        if (value := getattr(job, name)) is not None:
            headers = headers or {}
            headers[name] = value
    properties = pika.BasicProperties(
        content_type=CONTENT_TYPE,
        delivery_mode=PERSISTENT,
        message_id=job.id,
        type=job.actor,
        timestamp=int(timestamp),
        headers=headers,
        priority=job.priority,
        correlation_id=job.correlation_id,
        app_id=job.app_id,
    )
    return exchange, key, properties


#: What the broker wrote into the headers of a message, or has already honoured. A message that is
#: published again must lose it: with the old ``x-death`` on it, the second trip through the delay
#: wheel looks like a cycle to the broker, which drops the message.
BROKER_HEADERS = frozenset(
    {
        "x-death",
        "x-delivery-count",
        "x-acquired-count",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
        "CC",
        "BCC",
    }
)


def _check(job: Job) -> None:
    if not names.is_actor_name(job.actor):
        raise InvalidJob(
            Reason.UNKNOWN_ACTOR,
            f"an actor's name is dotted words such as 'email.send', not {job.actor!r}",
        )
    if job.queue is not None and not names.is_queue_name(job.queue):
        raise InvalidJob(
            Reason.BAD_PROPERTY, f"a queue's name is one lower-case word, not {job.queue!r}"
        )
    for name in ("id", "correlation_id", "app_id", "idempotency_key", "schedule"):
        value = getattr(job, name)
        if value is None and name != "id":
            continue
        if not isinstance(value, str) or not 0 < _bytes_of(value) <= 255:
            raise InvalidJob(
                Reason.BAD_PROPERTY, f"{name} is a string of 1 to 255 bytes, not {value!r}"
            )
    if job.priority is not None and not (type(job.priority) is int and 0 <= job.priority <= 255):
        raise InvalidJob(
            Reason.BAD_PROPERTY, f"priority is a whole number from 0 to 255, not {job.priority!r}"
        )
    for name in ("unique_for", "unique_until", "on_conflict"):
        value = getattr(job, name)
        header = HEADERS[name.replace("_", "-")]
        try:
            if value != header.default:
                header.read(header.write(value))
        except (AttributeError, ValueError) as error:
            raise InvalidJob(Reason.BAD_PROPERTY, f"{name} is {value!r}, not {error}") from None
    for name in ("due_at", "expires_at", "slot"):
        moment = getattr(job, name)
        if moment is not None and moment.tzinfo is None:
            raise InvalidJob(
                Reason.BAD_PROPERTY, f"{name} needs a time zone: {moment} could be any of 38 times"
            )


def _bytes_of(text: str) -> int:
    """Count the bytes that a text takes in UTF-8; 0 when it has no such form."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return 0


def arguments_key(body: bytes) -> str:
    """Return the key of a unique job that was given none: a digest of its arguments.

    ``body`` is the job's, as JSON; the order of names and the blanks do not matter. Raises
    `ValueError` when it is no JSON.
    """
    canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
    return f"arguments:{hashlib.sha256(canonical.encode()).hexdigest()}"


def storable(text: str) -> str:
    """Write an id or a key, which may be any string, as PostgreSQL takes it: without U+0000."""
    return text.replace("\0", "\\0") if "\0" in text else text


# -------------------------------------------------------------------------------------- headers


def format_time(moment: datetime) -> str:
    """Write a time as RFC 3339 in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_plus(delay: timedelta) -> datetime:
    """Return the time ``delay`` from now; the end of all time for what is beyond it."""
    try:
        return datetime.now(UTC) + delay
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def read_moment(value: object) -> datetime:
    """Read a time as a header may have it; raises `ValueError` when it is none."""
    if isinstance(value, datetime):  # an AMQP timestamp, which pika reads as naive UTC
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment
    raise ValueError("an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z, or a timestamp")


def _whole(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        # pika reads a long as a subclass of int, so that the type alone says little
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return read


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < _bytes_of(value) <= 255:
        raise ValueError("a string of 1 to 255 bytes")
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("a boolean")
    return value


def _one_of(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return value

    return read


def _read_period(value: object) -> timedelta:
    return timedelta(seconds=_whole(1, _LONGEST_PERIOD)(value))


def _write_period(value: timedelta) -> int:
    seconds = value.total_seconds()
    if not seconds.is_integer():
        raise ValueError("whole seconds")
    return int(seconds)


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Header:
    """One header of the contract: which field of a job it is, and how it is read and written."""

    attribute: str
    read: Callable[[object], Any]
    write: Callable[[Any], Any] = _same
    default: object = None
    description: str = ""
    #: What it looks like on the wire, as JSON Schema.
    schema: Mapping[str, object] = field(default_factory=dict)


#: A year, in seconds.
_LONGEST_PERIOD = 366 * 86_400
_TIME = {"type": "string", "format": "date-time"}
_KEY = {"type": "string", "minLength": 1, "maxLength": 255}

#: The headers of the contract, without their prefix ``x-leveret-``.
HEADERS: Mapping[str, Header] = {
    "attempt": Header(
        "attempt",
        _whole(1, 100_000),
        default=1,
        description="1 for the first run",
        schema={"type": "integer", "minimum": 1, "maximum": 100_000, "default": 1},
    ),
    "run": Header(
        "run",
        _whole(0, 100_000),
        default=0,
        description="how often the job has been replayed",
        schema={"type": "integer", "minimum": 0, "maximum": 100_000, "default": 0},
    ),
    "max-retries": Header(
        "max_retries",
        _whole(0, 1000),
        description="replaces the actor's own limit",
        schema={"type": "integer", "minimum": 0, "maximum": 1000},
    ),
    "due-at": Header(
        "due_at", read_moment, format_time, description="when it was wanted", schema=_TIME
    ),
    "expires-at": Header(
        "expires_at",
        read_moment,
        format_time,
        description="not to be started after this time",
        schema=_TIME,
    ),
    "idempotency-key": Header(
        "idempotency_key",
        _text,
        description="jobs of one actor with the same key are one effect",
        schema=_KEY,
    ),
    "once": Header(
        "once",
        _flag,
        default=False,
        description="its database effects happen once (needs a claim)",
        schema={"type": "boolean", "default": False},
    ),
    "unique-for": Header(
        "unique_for",
        _read_period,
        _write_period,
        description="seconds in which jobs of one actor with the same key are one job",
        schema={"type": "integer", "minimum": 1, "maximum": _LONGEST_PERIOD},
    ),
    "unique-until": Header(
        "unique_until",
        _one_of("started", "done"),
        description="jobs with the same key that are published before then are one job",
        schema={"type": "string", "enum": ["started", "done"]},
    ),
    "on-conflict": Header(
        "on_conflict",
        _one_of("skip", "replace"),
        default="skip",
        description="which of them runs: skip leaves the first, replace the last",
        schema={"type": "string", "enum": ["skip", "replace"], "default": "skip"},
    ),
    "schedule": Header(
        "schedule", _text, description="the schedule that published it", schema=_KEY
    ),
    "slot": Header(
        "slot",
        read_moment,
        format_time,
        description="the moment of the schedule that it stands for",
        schema=_TIME,
    ),
}
_WIRE_HEADERS = {PREFIX + name: header for name, header in HEADERS.items()}


# ------------------------------------------------------------------------------------- decoding

_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json(?:\s*;.*)?", re.IGNORECASE)
_PROPERTIES = ("message_id", "type", "correlation_id", "app_id", "content_type", "content_encoding")
#: What the body of a stock Dramatiq broker has.
ENVELOPE = frozenset({"actor_name", "queue_name", "args", "kwargs", "options", "message_id"})


def decode(
    properties: pika.BasicProperties,
    routing_key: str,
    body: bytes,
    *,
    limit: int = MAX_BODY_BYTES,
) -> Job:
    """Read a message; raises `InvalidJob` with the reason when it breaks the contract.

    ``routing_key`` may still have the digits of a delay in front.
    """
    for name in _PROPERTIES:
        value = getattr(properties, name)
        if value is not None and not isinstance(value, str):
            raise InvalidJob(Reason.BAD_PROPERTY, f"the property {name} is not UTF-8: {value!r}")
    _check_content(properties)
    document = _read_body(body, limit)
    fields = _read_headers(properties.headers)
    _, key = wheel.split_key(routing_key)
    queue, _, actor = key.partition(".")
    fields["queue"] = None if queue == names.ANY_QUEUE else queue
    if properties.type is None and document.keys() >= ENVELOPE:
        return _from_envelope(document, fields)
    assigned = not properties.message_id
    return Job(
        actor=_actor_name(properties.type or actor),
        arguments=document,
        id=properties.message_id or new_id(),
        id_assigned=assigned,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        app_id=properties.app_id,
        **fields,
    )


def _actor_name(name: str) -> str:
    if not name:
        raise InvalidJob(
            Reason.UNKNOWN_ACTOR,
            "neither the property type nor the routing key names an actor",
        )
    if not names.is_actor_name(name):
        raise InvalidJob(Reason.UNKNOWN_ACTOR, f"{name[:200]!r} cannot be the name of an actor")
    return name


def _check_content(properties: pika.BasicProperties) -> None:
    kind, encoding = properties.content_type, properties.content_encoding
    if kind and not _JSON_TYPE.fullmatch(kind):
        raise InvalidJob(
            Reason.BAD_CONTENT_TYPE, f"the content type is application/json, not {kind[:200]!r}"
        )
    if encoding and encoding.lower() not in ("utf-8", "utf8", "identity"):
        raise InvalidJob(
            Reason.BAD_CONTENT_TYPE, f"the body is plain UTF-8, not encoded as {encoding[:200]!r}"
        )


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


def _read_body(body: bytes, limit: int) -> dict[str, Any]:
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
    if _SURROGATE.search(text) is not None and _bytes_of(_to_text(document)) == 0:
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


def _read_headers(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if not headers:
        return fields
    for name, value in headers.items():
        header = _WIRE_HEADERS.get(name)
        if header is not None:
            try:
                fields[header.attribute] = header.read(value)
            except (ValueError, OverflowError) as error:
                raise InvalidJob(
                    Reason.BAD_HEADER, f"the header {name} is {str(value)[:200]!r}, not {error}"
                ) from None
    for name in ("traceparent", "tracestate"):
        value = headers.get(name)
        if isinstance(value, str):  # what is not valid is ignored, as W3C asks
            fields[name] = value
    return fields


# ---------------------------------------------------------------------------- Dramatiq's envelope


def _from_envelope(document: dict[str, Any], fields: dict[str, Any]) -> Job:
    """Read a job that a stock Dramatiq broker published."""

    def check(name: str, kind: type | tuple[type, ...], wanted: str) -> Any:
        value = document.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidJob(
                Reason.BAD_ENVELOPE,
                f"{name} in the Dramatiq envelope is {wanted}, not {str(value)[:200]!r}",
            )
        return value

    job_id = check("message_id", str, "a string")
    options = check("options", dict, "an object")
    if not 0 < len(job_id.encode(errors="replace")) <= 255:
        raise InvalidJob(Reason.BAD_ENVELOPE, "message_id has 1 to 255 bytes")
    check("queue_name", str, "a string")
    eta = options.get("eta")
    if eta is not None:
        if type(eta) not in (int, float) or not (math.isfinite(eta) and 0 <= eta < 253402300800e3):
            raise InvalidJob(
                Reason.BAD_ENVELOPE, f"options.eta is a time in milliseconds, not {eta!r}"
            )
        fields["due_at"] = datetime.fromtimestamp(eta / 1000, UTC)
    retries = options.get("retries", 0)
    if type(retries) is not int or not 0 <= retries < 100_000:
        raise InvalidJob(
            Reason.BAD_ENVELOPE, f"options.retries is a whole number, not {str(retries)[:200]!r}"
        )
    fields.setdefault("attempt", retries + 1)
    return Job(
        actor=_actor_name(check("actor_name", str, "a string")),
        arguments=check("kwargs", dict, "an object"),
        positional=tuple(check("args", list, "an array")),
        id=job_id,
        **fields,
    )
