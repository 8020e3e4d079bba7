"""The message that a replay publishes: the original, without what its death has left on it.

What is taken off: what the broker wrote (with the old ``x-death`` on it, the next trip through the
delay wheel looks like a cycle, and the broker drops the message), what the worker wrote about the
death, further routing keys (``CC``, ``BCC``: they have been honoured), the time to live and the
user of the first publish (RabbitMQ takes ``user_id`` from that user alone). A time to start, or to
expire, that has passed is taken off too: who replays a job wants it to run. All other properties,
all other headers and the body stay as they are, to the byte.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pika

from leveret import names, wheel
from leveret.deadletters import wire
from leveret.message import BROKER_HEADERS, ENVELOPE, HEADERS, PREFIX, encode_arguments

__all__ = ["Copy", "Source", "Unfit", "address", "edited", "revived", "rewritten"]

#: Written at a death, or counted anew.
_OURS = frozenset(
    f"{PREFIX}{name}".encode()
    for name in (
        "attempt",
        "run",
        "reason",
        "error",
        "error-type",
        "traceback",
        "queue",
        "routing-key",
        "dead-at",
        "dead-id",
        "unreadable-header",
        "kills",
        "sent-at",
        "after",
    )
)
_BROKERS = frozenset(name.encode() for name in BROKER_HEADERS)
_LEFT_OUT = ("expiration", "user_id", "cluster_id")
_TIMES = {f"{PREFIX}{name}".encode(): HEADERS[name] for name in ("due-at", "expires-at")}
#: On the job that an edited replay has made: the one that it was made of.
REPLAY_OF = f"{PREFIX}replay-of"
_MAX_KEY = 255
#: A message's header is one frame, of 128 KiB by agreement.
_MAX_HEADER = 128 * 1024 - 64


class Unfit(ValueError):  # noqa: N818 - says what the dead letter is
    """A dead letter cannot be published again; the message says why."""


class Source(Protocol):
    """What a copy is made from: a dead letter."""

    @property
    def job_id(self) -> str | None:
        """Return the job's id, if the message says one."""

    @property
    def run(self) -> int:
        """Return how often the job had been replayed."""

    @property
    def actor(self) -> str | None:
        """Return the actor, if it is known."""

    @property
    def queue(self) -> str | None:
        """Return the pool in which it died; None for what no queue wanted."""

    @property
    def routing_key(self) -> str:
        """Return the routing key that it was published with."""

    @property
    def body(self) -> bytes:
        """Return the original's body."""

    @property
    def properties(self) -> bytes:
        """Return the original's properties as they are encoded on the wire."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """What is published."""

    job_id: str
    actor: str
    routing_key: str
    #: Encoded as on the wire.
    properties: bytes
    #: None for the original's.
    body: bytes | None = None


# ------------------------------------------------------------------------------------------ address


def _headers(properties: Mapping[str, bytes]) -> list[tuple[bytes, bytes]]:
    table = properties.get("headers")
    return [] if table is None else wire.split_table(table)


def address(
    key: str, *, actor: str | None, queue: str | None, queues: Collection[str] | None
) -> str:
    """Return the routing key for a replay; raises `Unfit` when there is none.

    That is the original's where it is a usual one. Any other leads back to the pool in which the
    job died, or, when it never came to one, is tried again as it is. ``queues`` are the pools that
    there are; None for whatever is a possible name.
    """
    pool, _, rest = key.partition(".")
    known = names.is_queue_name(pool) if queues is None else pool in queues
    possible = (known or pool == names.ANY_QUEUE) and bool(rest) and len(key.encode()) <= _MAX_KEY
    if possible and (rest == actor or (actor is None and names.is_actor_name(rest))):
        return key
    if queue is not None and actor is not None and (queues is None or queue in queues):
        return f"{queue}.{actor}"
    if possible and queue is None:
        return key
    raise Unfit(
        f"nothing says where it belongs: its routing key is {key[:200]!r}, "
        f"its actor {actor or 'unknown'}"
    )


# --------------------------------------------------------------------------------------- properties


def _passed(name: bytes, encoded: bytes, now: datetime) -> bool:
    header = _TIMES.get(name)
    if header is None:
        return False
    try:
        moment = header.read(wire.decode(encoded))
    except ValueError:
        return False  # it is dead for that reason, and will be again
    return bool(moment <= now)


def _finished(properties: dict[str, bytes], headers: list[tuple[bytes, bytes]]) -> bytes:
    """Put a copy's properties together; raises `Unfit` when no worker could read them."""
    properties["headers"] = wire.join_table(headers)
    encoded = wire.join(properties)
    if len(encoded) > _MAX_HEADER:
        raise Unfit(f"its header has {len(encoded):,} bytes, and no frame has room for it")
    try:
        pika.BasicProperties().decode(encoded)
    except Exception as error:  # noqa: BLE001 - whatever pika stumbles over
        raise Unfit(f"its header cannot be read, and would not be again: {error!r}") from None
    return encoded


def _is_left(name: bytes) -> bool:
    return name in _OURS or name in _BROKERS


def _clean(
    source: Source, *, now: datetime, run: int, queues: Collection[str] | None
) -> tuple[dict[str, bytes], list[tuple[bytes, bytes]], str]:
    """Return the properties, the headers and the routing key of a copy."""
    try:
        properties = wire.split(source.properties)
        headers = _headers(properties)
    except wire.Malformed as error:
        raise Unfit(f"its properties cannot be read: {error}") from None
    key = address(
        wheel.split_key(source.routing_key)[1],
        actor=source.actor,
        queue=source.queue,
        queues=queues,
    )
    kept = [
        (name, encoded)
        for name, encoded in headers
        if not _is_left(name) and not _passed(name, encoded, now)
    ]
    kept.append((f"{PREFIX}attempt".encode(), wire.value(1)))
    if run:
        kept.append((f"{PREFIX}run".encode(), wire.value(run)))
    properties["delivery_mode"] = b"\x02"
    for name in _LEFT_OUT:
        properties.pop(name, None)
    return properties, kept, key


def revived(
    source: Source, *, job_id: str, now: datetime, queues: Collection[str] | None = None
) -> Copy:
    """Make the copy of a dead letter that runs again under its own id; raises `Unfit`.

    ``job_id`` is written onto a message that says no id itself.
    """
    run = source.run + 1
    if run > 100_000:
        raise Unfit(f"it has been replayed {source.run} times")
    properties, headers, key = _clean(source, now=now, run=run, queues=queues)
    properties.setdefault("message_id", wire.short(job_id))
    return Copy(
        job_id=job_id,
        actor=source.actor or key.partition(".")[2],
        routing_key=key,
        properties=_finished(properties, headers),
    )


# ------------------------------------------------------------------------------------------- edits


def merge(target: object, patch: object) -> Any:
    """Apply a JSON merge patch, as RFC 7396 has it."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), change)
    return result


def edited(
    source: Source, edits: Mapping[str, Any], job_id: str
) -> tuple[str, Mapping[str, Any], bytes]:
    """Return the actor of an edited job, its arguments and its body; raises `Unfit`, `InvalidJob`.

    A body that is no JSON object has no arguments that could be kept: there the edits are all of
    them.
    """
    actor = source.actor
    if actor is None:
        raise Unfit("its actor is unknown")
    try:
        document = json.loads(source.body)
    except (ValueError, RecursionError):
        document = None
    try:
        return (actor, *_merged(document, edits, job_id))
    except RecursionError:
        raise Unfit("its arguments or the changes are nested too deep") from None


def _merged(
    document: object, edits: Mapping[str, Any], job_id: str
) -> tuple[Mapping[str, Any], bytes]:
    if isinstance(document, dict) and document.keys() >= ENVELOPE:
        if document["args"]:
            raise Unfit("its arguments are positional, and the changes name theirs")
        arguments = merge(document["kwargs"], edits)
        return arguments, encode_arguments({**document, "kwargs": arguments, "message_id": job_id})
    arguments = merge(document, edits)
    return arguments, encode_arguments(arguments)


def rewritten(
    source: Source,
    edits: Mapping[str, Any],
    *,
    job_id: str,
    now: datetime,
    queues: Collection[str] | None = None,
) -> Copy:
    """Make the new job ``job_id`` from a dead letter, with other arguments; raises `Unfit`."""
    actor, _, body = edited(source, edits, job_id)
    properties, headers, key = _clean(source, now=now, run=0, queues=queues)
    properties["message_id"] = wire.short(job_id)
    properties["content_type"] = wire.short("application/json")
    properties.pop("content_encoding", None)
    if source.job_id is not None:
        mark = REPLAY_OF.encode()
        headers = [(name, encoded) for name, encoded in headers if name != mark]
        headers.append((mark, wire.value(source.job_id)))
    return Copy(
        job_id=job_id,
        actor=actor,
        routing_key=key,
        properties=_finished(properties, headers),
        body=body,
    )
