"""The message that a replay publishes: what is taken off, and that all else survives."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.deadletters import wire
from leveret.deadletters.copy import (
    Unfit,
    address,
    edited,
    merge,
    revived,
    rewritten,
)
from leveret.message import decode, format_time
from tests.support import letters
from tests.support.letters import wire as encoded

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
DEATH = {
    "x-leveret-attempt": 6,
    "x-leveret-run": 2,
    "x-leveret-reason": "exhausted",
    "x-leveret-error": "no server",
    "x-leveret-error-type": "OSError",
    "x-leveret-traceback": "Traceback …",
    "x-leveret-queue": "default",
    "x-leveret-routing-key": "any.mail.send",
    "x-leveret-dead-at": "2026-04-30T12:00:00.000Z",
    "x-leveret-dead-id": "0196",
    "x-leveret-kills": 1,
    "x-death": [{"queue": "leveret.delay.0.1", "reason": "expired", "count": 1}],
    "x-first-death-queue": "leveret.delay.0.1",
    "x-first-death-reason": "expired",
    "x-first-death-exchange": "",
    "x-last-death-queue": "leveret.delay.0.1",
    "x-delivery-count": 3,
    "x-acquired-count": 4,
    "CC": ["other.key"],
}


@dataclass(frozen=True)
class Letter:
    """As much of a dead letter as a copy needs."""

    job_id: str | None = "job-1"
    run: int = 2
    actor: str | None = "mail.send"
    queue: str | None = "default"
    routing_key: str = "0.0.0.0.0.0.1.any.mail.send"
    body: bytes = b'{"to":"ada"}'
    properties: bytes = b""


def letter(headers=DEATH, *, message=None, **fields) -> Letter:
    """Make a dead letter with these headers."""
    given_ = {"message_id": "job-1", "type": "mail.send", **(message or {})}
    return Letter(properties=encoded(headers=dict(headers), **given_), **fields)


def read(properties: bytes) -> pika.BasicProperties:
    """Decode properties."""
    return pika.BasicProperties().decode(properties)


# ------------------------------------------------------------------------------------ what survives

names = (
    st.text(min_size=1, max_size=10).map(str.encode).filter(lambda name: not name.startswith(b"x-"))
)
values = st.one_of(
    st.binary(max_size=30).map(lambda text: b"S" + struct.pack(">I", len(text)) + text),
    st.binary(max_size=30).map(lambda text: b"x" + struct.pack(">I", len(text)) + text),
    st.sampled_from([b"A\0\0\0\0", b"F\0\0\0\0", b"A\0\0\0\2t\1", b"F\0\0\0\4\1at\1"]),
    st.floats(allow_nan=False, allow_infinity=False).map(
        lambda number: b"d" + struct.pack(">d", number)
    ),
    st.integers(0, 2**37).map(lambda seconds: b"T" + struct.pack(">Q", seconds)),
    st.binary(min_size=5, max_size=5).map(lambda raw: b"D" + raw),
    st.binary(min_size=1, max_size=1).map(lambda raw: b"t" + raw),
    st.just(b"V"),
)
shorts = st.text(max_size=15).map(wire.short)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": shorts,
        "content_encoding": shorts,
        "priority": st.binary(min_size=1, max_size=1),
        "correlation_id": shorts,
        "reply_to": shorts,
        "message_id": shorts,
        "timestamp": st.binary(min_size=8, max_size=8),
        "type": shorts,
        "app_id": shorts,
        "expiration": shorts,
        "user_id": shorts,
        "cluster_id": shorts,
        "delivery_mode": st.binary(min_size=1, max_size=1),
    },
)


@given(properties, st.lists(st.tuples(names, values), max_size=8), st.permutations(list(DEATH)))
def test_every_property_and_every_other_header_survives_to_the_byte(given_, own, order):
    """Of any type that can be read, and in any order."""
    death = pika.BasicProperties(headers={name: DEATH[name] for name in order})
    table = wire.split_table(wire.split(b"".join(death.encode()))["headers"])
    own = [(name, value) for name, value in own if name not in (b"CC", b"BCC")]
    mixed = [*own[: len(own) // 2], *table, *own[len(own) // 2 :]]
    raw = wire.join({**given_, "headers": wire.join_table(mixed)})
    copy = revived(Letter(properties=raw), job_id="job-1", now=NOW)
    found = wire.split(copy.properties)
    headers = wire.split_table(found.pop("headers"))
    assert headers[: len(own)] == own
    assert headers[len(own) :] == [
        (b"x-leveret-attempt", wire.value(1)),
        (b"x-leveret-run", wire.value(3)),
    ]
    dropped = {"expiration", "user_id", "cluster_id"}
    kept = {name: value for name, value in given_.items() if name not in dropped}
    kept.setdefault("message_id", wire.short("job-1"))
    assert found == {**kept, "delivery_mode": b"\x02"}


@given(properties, st.lists(st.tuples(names, values), max_size=5))
def test_taking_apart_and_putting_together_is_nothing(given_, fields):
    """And pika reads the same."""
    raw = wire.join({**given_, "headers": wire.join_table(fields)})
    pieces = wire.split(raw)
    assert wire.split_table(pieces["headers"]) == fields
    assert wire.join(pieces) == raw


@given(st.binary(max_size=60))
def test_bytes_that_are_no_properties_are_refused_and_nothing_else(raw):
    """Whatever they are, they are taken apart or called malformed."""
    try:
        wire.split_table(wire.split(raw).get("headers", b"\0\0\0\0"))
    except wire.Malformed:
        with pytest.raises(Unfit, match="cannot be read"):
            revived(Letter(properties=raw), job_id="job-1", now=NOW)


def test_the_worker_reads_the_copy_as_the_first_attempt_of_the_next_run():
    """Also a stock Dramatiq envelope that says itself how often it has been tried."""
    copy = revived(letter(), job_id="job-1", now=NOW)
    job = decode(read(copy.properties), copy.routing_key, b'{"to":"ada"}')
    assert (job.id, job.actor, job.attempt, job.run, job.queue) == (
        "job-1",
        "mail.send",
        1,
        3,
        None,
    )
    envelope = {
        "queue_name": "default",
        "actor_name": "mail.send",
        "args": [],
        "kwargs": {"to": "ada"},
        "options": {"retries": 5},
        "message_id": "job-1",
    }
    copy = revived(letter(message={"type": None}), job_id="job-1", now=NOW)
    job = decode(read(copy.properties), copy.routing_key, json.dumps(envelope).encode())
    assert (job.id, job.attempt, job.run) == ("job-1", 1, 3)


@pytest.mark.parametrize("name", ["x-leveret-expires-at", "x-leveret-due-at"])
def test_a_time_that_has_passed_is_taken_off_and_one_to_come_is_kept(name):
    """What cannot be read as a time is not touched: it is what the job died of."""
    kept = {
        "future": format_time(NOW + timedelta(hours=1)),
        "odd": "tomorrow",
        "number": 17,
    }
    for value in (format_time(NOW), format_time(NOW - timedelta(days=3))):
        copy = revived(letter({**DEATH, name: value}), job_id="job-1", now=NOW)
        assert name not in read(copy.properties).headers
    for value in kept.values():
        copy = revived(letter({**DEATH, name: value}), job_id="job-1", now=NOW)
        assert read(copy.properties).headers[name] == value


def test_a_message_without_an_id_gets_the_one_of_its_job():
    """The ledger and the message speak of the same job."""
    copy = revived(letter(message={"message_id": None}), job_id="made-up", now=NOW)
    assert read(copy.properties).message_id == "made-up"


def test_what_cannot_be_read_or_has_been_replayed_too_often_is_refused():
    """With words for whoever asks why."""
    with pytest.raises(Unfit, match="header cannot be read"):
        revived(Letter(properties=letters.UNREADABLE), job_id="job-1", now=NOW)
    with pytest.raises(Unfit, match="no frame has room"):
        revived(letter({"x-large": "x" * 131_000}), job_id="job-1", now=NOW)
    with pytest.raises(Unfit, match="replayed 100000 times"):
        revived(letter(run=100_000), job_id="job-1", now=NOW)


# ------------------------------------------------------------------------------------------ address


@pytest.mark.parametrize(
    ("key", "actor", "queue", "found"),
    [
        ("any.mail.send", "mail.send", "default", "any.mail.send"),
        ("bulk.mail.send", "mail.send", "bulk", "bulk.mail.send"),
        # its actor is in the property `type`, and the key is another
        ("default.whatever", "mail.send", "default", "default.mail.send"),
        ("default", "mail.send", "default", "default.mail.send"),
        ("any.not.there", None, None, "any.not.there"),
        ("any.not.there", "not.there", None, "any.not.there"),
        ("any.typo", "mail.send", None, "any.typo"),
        ("default.mail.send", None, "default", "default.mail.send"),
        # longer than a routing key may be
        ("any." + "a" * 300, "mail.send", "default", "default.mail.send"),
        ("default", None, "default", None),
        ("", None, None, None),
        ("somewhere.else", None, None, None),
        ("somewhere.else", "mail.send", "gone", None),
        ("default.*.#", None, "default", None),
    ],
)
def test_a_replay_goes_where_the_job_was_wanted_or_where_it_died(key, actor, queue, found):
    """What belongs nowhere is refused."""
    queues = ("critical", "default", "bulk")
    if found is None:
        with pytest.raises(Unfit, match="nothing says where it belongs"):
            address(key, actor=actor, queue=queue, queues=queues)
    else:
        assert address(key, actor=actor, queue=queue, queues=queues) == found


# -------------------------------------------------------------------------------------------- edits


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # the table of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_changes_are_merged_as_the_standard_has_it(target, patch, result):
    """A null takes away, an object goes deeper, anything else replaces."""
    assert merge(target, patch) == result


def test_an_edited_replay_is_a_new_job_that_knows_the_old_one():
    """It keeps the correlation id and everything else of the message."""
    old = letter({**DEATH, "x-tenant": "acme"}, message={"correlation_id": "order-7"})
    copy = rewritten(old, {"to": "grace", "cc": None}, job_id="job-2", now=NOW)
    found = read(copy.properties)
    assert copy.body == b'{"to":"grace"}'
    assert (found.message_id, found.correlation_id) == ("job-2", "order-7")
    assert found.headers == {
        "x-tenant": "acme",
        "x-leveret-attempt": 1,
        "x-leveret-replay-of": "job-1",
    }
    again = rewritten(
        letter({**found.headers}, message={"message_id": "job-2"}, job_id="job-2"),
        {"to": "marie"},
        job_id="job-3",
        now=NOW,
    )
    assert read(again.properties).headers["x-leveret-replay-of"] == "job-2"


def test_an_edit_of_a_body_without_arguments_gives_all_of_them():
    """There is nothing to keep; an envelope keeps its form, unless its arguments have no names."""
    assert edited(Letter(body=b"\xff\xfe"), {"to": "ada"}, "x")[1] == {"to": "ada"}
    envelope = {
        "queue_name": "default",
        "actor_name": "mail.send",
        "args": [],
        "kwargs": {"to": "ada", "n": 1},
        "options": {},
        "message_id": "job-1",
    }
    _, arguments, body = edited(Letter(body=json.dumps(envelope).encode()), {"n": 2}, "job-2")
    assert arguments == {"to": "ada", "n": 2}
    assert json.loads(body) == {**envelope, "kwargs": arguments, "message_id": "job-2"}
    positional = {**envelope, "args": [1]}
    with pytest.raises(Unfit, match="positional"):
        edited(Letter(body=json.dumps(positional).encode()), {"n": 2}, "job-2")
    deep: dict = {}
    for _ in range(2000):
        deep = {"n": deep}
    with pytest.raises(Unfit, match="too deep"):
        edited(Letter(), deep, "job-2")
    with pytest.raises(Unfit, match="actor is unknown"):
        edited(Letter(actor=None), {"n": 2}, "job-2")
