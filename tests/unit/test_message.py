"""The wire contract: what is written is read back, and what breaks it has its reason."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID, uuid4

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret import names, wheel
from leveret.errors import InvalidJob
from leveret.message import (
    HEADERS,
    MAX_BODY_BYTES,
    MAX_DEPTH,
    Job,
    Reason,
    decode,
    encode,
    encode_arguments,
    job_time,
    new_id,
)

MS = timedelta(milliseconds=1)
NOW = 1_790_000_000.25
WORD = st.from_regex(r"\A[a-z_][a-z0-9_-]{0,10}\Z")
ACTOR = st.lists(WORD, min_size=1, max_size=4).map(".".join)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SHORT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=63)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
MOMENT = st.integers(0, 4 * 10**12).map(lambda ms: datetime.fromtimestamp(0, UTC) + ms * MS)
JOBS = st.builds(
    Job,
    actor=ACTOR,
    arguments=st.dictionaries(TEXT, JSON, max_size=4),
    id=SHORT,
    queue=st.none() | WORD.filter(names.is_queue_name),
    due_at=st.none()
    | st.floats(0, 1e7).map(lambda s: datetime.fromtimestamp(round(NOW + s, 3), UTC)),
    expires_at=st.none() | MOMENT,
    attempt=st.integers(1, 100_000),
    max_retries=st.none() | st.integers(0, 1000),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | SHORT,
    app_id=st.none() | SHORT,
    idempotency_key=st.none() | SHORT,
    once=st.booleans(),
    unique_for=st.none() | st.integers(1, 366 * 86_400).map(lambda s: timedelta(seconds=s)),
    unique_until=st.none() | st.sampled_from(["started", "done"]),
    on_conflict=st.sampled_from(["skip", "replace"]),
    traceparent=st.none() | st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    tracestate=st.none() | st.just("congo=t61rcWkgMzE"),
).map(lambda job: job if job.traceparent else replace(job, tracestate=None))


def through_the_wire(properties):
    """Encode and decode the properties as pika does."""
    return pika.BasicProperties().decode(b"".join(properties.encode()))


def reason_of(body=b"{}", key="default.work.do", **properties):
    """Return the reason for which a message is refused."""
    with pytest.raises(InvalidJob) as caught:
        decode(pika.BasicProperties(**properties), key, body)
    assert str(caught.value)
    return caught.value.reason


@given(JOBS)
def test_a_job_is_read_back_as_it_was_written(job):
    """Every field survives the wire, the queue through the routing key."""
    _, key, properties = encode(job, timestamp=NOW)
    body = encode_arguments(job.arguments)
    assert decode(through_the_wire(properties), key, body) == job


@given(JOBS)
def test_a_job_goes_where_and_when_it_is_due(job):
    """Jobs for now go to `leveret.jobs`; later ones to the wheel, never early."""
    exchange, key, properties = encode(job, timestamp=NOW)
    delay, rest = wheel.split_key(key)
    assert rest == f"{job.queue or 'any'}.{job.actor}"
    assert properties.delivery_mode == 2
    if job.due_at is None or job.due_at.timestamp() <= NOW:
        assert (exchange, delay) == (names.JOBS, None)
    else:
        assert exchange == names.DELAY
        assert delay.total_seconds() >= job.due_at.timestamp() - NOW - 1e-5


@given(JOBS)
def test_the_key_of_any_job_fits_into_the_255_bytes_of_amqp(job):
    """With the digits in front."""
    long = Job(actor="a" * 127, queue="q" * 63, id=job.id, due_at=job.due_at)
    assert len(encode(long, timestamp=NOW)[1].encode()) <= 255


@given(st.binary(max_size=60), st.binary(max_size=40), st.none() | st.binary(max_size=30))
def test_whatever_bytes_come_in_there_is_a_job_or_a_reason(body, key, kind):
    """No other exception leaves `decode`."""
    try:
        kind = kind and kind.decode()
    except UnicodeDecodeError:
        kind = b"\xff"
    properties = pika.BasicProperties(type=kind)
    try:
        job = decode(properties, key.decode(errors="backslashreplace"), body)
    except InvalidJob as refusal:
        assert refusal.reason in list(Reason)  # noqa: PT017 - it may be raised, or not
    else:
        assert names.is_actor_name(job.actor)


@given(st.dictionaries(TEXT, JSON, max_size=5))
def test_arguments_of_any_json_are_read_as_they_were_written(arguments):
    """And they look the same to every JSON reader."""
    body = encode_arguments(arguments)
    assert json.loads(body) == arguments
    job = decode(pika.BasicProperties(type="a.b"), "default.a.b", body)
    assert job.arguments == arguments


def test_what_json_lacks_is_written_the_way_pydantic_reads_it():
    """Times, ids, decimals, enumerations and sets have a form; others are refused by name."""

    class Colour(Enum):
        RED = "red"

    identity = uuid4()
    body = encode_arguments(
        {
            "a": datetime(2026, 1, 2, tzinfo=UTC),
            "b": date(2026, 1, 2),
            "c": timedelta(seconds=90),
            "d": identity,
            "e": Decimal("1.50"),
            "f": Colour.RED,
            "g": {3, 1},
        }
    )
    assert json.loads(body) == {
        "a": "2026-01-02T00:00:00+00:00",
        "b": "2026-01-02",
        "c": 90.0,
        "d": str(identity),
        "e": "1.50",
        "f": "red",
        "g": [1, 3],
    }


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([1], Reason.NOT_AN_OBJECT),
        ({1: 2}, Reason.BAD_ARGUMENTS),
        ({"a": object()}, Reason.BAD_ARGUMENTS),
        ({"a": float("nan")}, Reason.BAD_ARGUMENTS),
        ({"a": "\ud800"}, Reason.BAD_ARGUMENTS),
        ({"a": {1, "b"}}, Reason.BAD_ARGUMENTS),
        ({"a": "x" * MAX_BODY_BYTES}, Reason.TOO_LARGE),
    ],
)
def test_arguments_that_cannot_be_written_are_refused_before_they_leave(arguments, reason):
    """The publisher hears it, with the reason, and nothing is sent."""
    with pytest.raises(InvalidJob) as caught:
        encode_arguments(arguments)
    assert caught.value.reason == reason


def test_arguments_that_contain_themselves_are_refused():
    """They would have no end."""
    endless = {}
    endless["a"] = endless
    with pytest.raises(InvalidJob, match="cannot be written"):
        encode_arguments(endless)


@pytest.mark.parametrize(
    "field",
    [
        {"actor": "no actor"},
        {"actor": ""},
        {"actor": "a" * 128},
        {"actor": "a..b"},
        {"queue": "any"},
        {"queue": "Default"},
        {"queue": "a.b"},
        {"id": ""},
        {"id": "x" * 256},
        {"id": "\ud800"},
        {"id": 7},
        {"correlation_id": "é" * 128},
        {"app_id": ""},
        {"idempotency_key": "\udfff"},
        {"priority": 256},
        {"priority": -1},
        {"priority": True},
        {"due_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - that is the point
        {"expires_at": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"due_at": datetime(9999, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
def test_a_field_that_breaks_the_contract_is_refused_with_its_value(field):
    """The error names the field, or what it must be."""
    with pytest.raises(InvalidJob) as caught:
        encode(Job(**{"actor": "a.b", "id": "1", **field}), timestamp=NOW)
    assert caught.value.reason in (Reason.BAD_PROPERTY, Reason.UNKNOWN_ACTOR)


@pytest.mark.parametrize("depth", [1, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 10_000])
def test_bodies_are_nested_as_deep_as_allowed_and_no_deeper(depth):
    """Brackets within strings do not count."""
    text = '{"a":' + "[" * (depth - 1) + '"[[{{\\"[["' + "]" * (depth - 1) + "}"
    if depth <= MAX_DEPTH:
        assert decode(pika.BasicProperties(), "default.a", text.encode()).arguments
    else:
        assert reason_of(text.encode()) == Reason.TOO_DEEP


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 500_000 + b"[" * 65,
        b"[" * 65 + b'"' + b'\\"' * 500_000,
        b"{" * 65 + b'"\\' * 300_000,
        b"[" * 65 + b'"' + b"\\" * 1_000_001,
        b"[]" * 500_000,
        b'["' * 300_000,
    ],
    ids=range(6),
)
def test_measuring_the_depth_of_a_hostile_body_takes_no_time_to_speak_of(body):
    """A megabyte of quotes and backslashes is looked at once."""
    begin = time.process_time()
    reason_of(body)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.NOT_JSON),
        (b"\xff", Reason.NOT_UTF8),
        (b'{"a": "\\ud800"}', Reason.NOT_UTF8),
        (b'{"a": 1, "a": 2}', Reason.NOT_JSON),
        (b'{"b": {"a": 1, "a": 2}}', Reason.NOT_JSON),
        (b"NaN", Reason.NOT_JSON),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b" " * (MAX_BODY_BYTES + 1), Reason.TOO_LARGE),
    ],
)
def test_a_body_that_breaks_the_contract_has_its_reason(body, reason):
    """One word for each."""
    assert reason_of(body) == reason


def test_a_pair_of_surrogates_is_one_character():
    """Escaped characters beyond the basic plane are good JSON."""
    job = decode(pika.BasicProperties(), "default.a", b'{"a": "\\ud83d\\ude00"}')
    assert job.arguments == {"a": "\N{GRINNING FACE}"}


@pytest.mark.parametrize(
    "kind",
    ["application/json", "Application/JSON; charset=utf-8", "application/vnd.acme+json", "", None],
)
def test_content_types_that_are_json_are_taken(kind):
    """And none at all is taken for JSON."""
    assert decode(pika.BasicProperties(content_type=kind), "default.a", b"{}").actor == "a"


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [("text/plain", None), ("application/jsonx", None), (None, "gzip"), ("application/json", "br")],
)
def test_other_contents_are_refused(kind, encoding):
    """With what was wanted."""
    refused = reason_of(content_type=kind, content_encoding=encoding)
    assert refused == Reason.BAD_CONTENT_TYPE


@pytest.mark.parametrize("name", sorted(HEADERS))
@pytest.mark.parametrize("value", [None, [], {}, b"\xff", 1.5, Decimal("1.5"), -1, ""])
def test_a_header_of_a_wrong_type_is_refused_by_its_name(name, value):
    """There is no value that all headers take, and no type that slips through."""
    properties = pika.BasicProperties(headers={f"x-leveret-{name}": value})
    with pytest.raises(InvalidJob, match=f"x-leveret-{name}") as caught:
        decode(properties, "default.a", b"{}")
    assert caught.value.reason == Reason.BAD_HEADER


def test_unknown_headers_and_bad_trace_headers_are_left_alone():
    """W3C asks to ignore a `traceparent` that is none, and others' headers are theirs."""
    headers = {"traceparent": 7, "x-other": [1], "x-leveret-unknown": b"\xff"}
    assert decode(pika.BasicProperties(headers=headers), "default.a", b"{}").traceparent is None


def test_times_may_be_amqp_timestamps():
    """A client that has no RFC 3339 at hand writes a timestamp."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    properties = through_the_wire(pika.BasicProperties(headers={"x-leveret-expires-at": moment}))
    assert decode(properties, "default.a", b"{}").expires_at == moment


def test_without_a_type_the_routing_key_names_the_actor():
    """And the first word of the key is the queue, or nobody's."""
    job = decode(pika.BasicProperties(), "bulk.report.generate", b"{}")
    assert (job.actor, job.queue, job.id_assigned) == ("report.generate", "bulk", True)
    late = decode(pika.BasicProperties(message_id="7"), "0.0.0.0.0.1.f.any.a.b", b"{}")
    assert (late.actor, late.queue, late.id, late.id_assigned) == ("a.b", None, "7", False)


# ------------------------------------------------------------------------- Dramatiq's envelope

ENVELOPE = {
    "queue_name": "default",
    "actor_name": "work.do",
    "args": [1, [2]],
    "kwargs": {"n": 3},
    "options": {"eta": 1_790_000_000_000, "retries": 2, "other": None},
    "message_id": "abc",
    "message_timestamp": 1_790_000_000_000,
}


def test_dramatiqs_envelope_is_a_job():
    """Its id, arguments, time and retries are taken over."""
    job = decode(pika.BasicProperties(), "default.DQ", json.dumps(ENVELOPE).encode())
    assert (job.actor, job.id, job.positional, job.arguments) == (
        "work.do", "abc", (1, [2]), {"n": 3}
    )  # fmt: skip
    assert job.attempt == 3
    assert job.due_at == datetime.fromtimestamp(1_790_000_000, UTC)


@given(st.sampled_from(sorted(ENVELOPE)), JSON)
def test_an_envelope_with_anything_in_a_field_is_a_job_or_has_a_reason(field, value):
    """Whatever a foreign publisher writes there."""
    body = json.dumps({**ENVELOPE, field: value}).encode()
    try:
        job = decode(pika.BasicProperties(), "default.x", body)
    except InvalidJob as refusal:
        known = (Reason.BAD_ENVELOPE, Reason.UNKNOWN_ACTOR, Reason.TOO_DEEP)
        assert refusal.reason in known  # noqa: PT017 - it may be raised, or not
    else:
        assert isinstance(job.arguments, dict)
        assert job.id


def test_with_a_type_the_same_body_is_the_arguments_of_that_actor():
    """A job of ours whose arguments happen to look like an envelope is not one."""
    job = decode(pika.BasicProperties(type="a.b"), "default.a.b", json.dumps(ENVELOPE).encode())
    assert (job.actor, job.arguments) == ("a.b", ENVELOPE)


# ----------------------------------------------------------------------------------------- ids


def test_ids_are_uuids_of_version_7_in_the_order_of_their_making():
    """RFC 9562: version, variant, and time first."""
    ids = []
    for _ in range(2000):
        ids.append(new_id())
        parsed = UUID(ids[-1])
        assert str(parsed) == ids[-1]
        assert (parsed.version, parsed.variant) == (7, "specified in RFC 4122")
    assert len(set(ids)) == len(ids)
    stamps = [text[:18] for text in ids]  # below the clock's resolution, order is chance
    assert stamps == sorted(stamps)


def test_the_time_is_read_out_of_an_id():
    """To the millisecond."""
    before = time.time()
    found = job_time(new_id())
    assert before - 0.002 <= found <= time.time() + 0.002


@given(st.text(max_size=40) | st.uuids().map(str))
def test_other_ids_have_no_time_and_do_no_harm(text):
    """Any string is an id."""
    found = job_time(text)
    assert found is None or (len(text) == 36 and text[14] == "7")
