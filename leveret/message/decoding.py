"""A message, read as a job."""

from __future__ import annotations

import re

import pika

from leveret import names, wheel
from leveret.errors import InvalidJob
from leveret.message.document import MAX_BODY_BYTES, read_body
from leveret.message.envelope import ENVELOPE, read_envelope
from leveret.message.header import read_headers
from leveret.message.identity import new_id
from leveret.message.job import Job, actor_name
from leveret.message.reason import Reason

__all__ = ["decode"]

_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json(?:\s*;.*)?", re.IGNORECASE)
_PROPERTIES = ("message_id", "type", "correlation_id", "app_id", "content_type", "content_encoding")


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
    document = read_body(body, limit)
    fields = read_headers(properties.headers)
    _, key = wheel.split_key(routing_key)
    queue, _, actor = key.partition(".")
    fields["queue"] = None if queue == names.ANY_QUEUE else queue
    if properties.type is None and document.keys() >= ENVELOPE:
        return read_envelope(document, fields)
    assigned = not properties.message_id
    return Job(
        actor=actor_name(properties.type or actor),
        arguments=document,
        id=properties.message_id or new_id(),
        id_assigned=assigned,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        app_id=properties.app_id,
        **fields,
    )


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
