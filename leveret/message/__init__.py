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

from leveret.message.decoding import decode
from leveret.message.document import (
    CONTENT_TYPE,
    MAX_BODY_BYTES,
    MAX_DEPTH,
    encode_arguments,
    plain,
    read_json,
)
from leveret.message.encoding import PERSISTENT, encode
from leveret.message.envelope import ENVELOPE
from leveret.message.header import BROKER_HEADERS, HEADERS, PREFIX, Header
from leveret.message.identity import arguments_key, job_time, new_id
from leveret.message.job import Job
from leveret.message.moment import format_time, now_plus, read_moment
from leveret.message.reason import Reason
from leveret.message.text import storable

__all__ = [
    "BROKER_HEADERS",
    "CONTENT_TYPE",
    "ENVELOPE",
    "HEADERS",
    "MAX_BODY_BYTES",
    "MAX_DEPTH",
    "PERSISTENT",
    "PREFIX",
    "Header",
    "Job",
    "Reason",
    "arguments_key",
    "decode",
    "encode",
    "encode_arguments",
    "format_time",
    "job_time",
    "new_id",
    "now_plus",
    "plain",
    "read_json",
    "read_moment",
    "storable",
]
