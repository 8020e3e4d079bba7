"""Malformed and hostile messages: dead letters with a reason, and a worker that goes on (P7)."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from contextlib import suppress

import pika
import pytest
from pika.exceptions import AMQPError

from leveret.health import own_metrics
from tests.support.workers import WireProperties, field

GOOD = b'{"n": 1}'
ENVELOPE = {
    "queue_name": "default",
    "actor_name": "work.do",
    "args": [],
    "kwargs": {"n": 1},
    "options": {},
    "message_id": "stock-1",
    "message_timestamp": 1,
}


def envelope(**changes):
    """Write a stock Dramatiq envelope with some fields changed."""
    return json.dumps({**ENVELOPE, **changes}).encode()


def nested(depth):
    """Write an object that is nested so deep."""
    return b'{"n":' + b"[" * depth + b"]" * depth + b"}"


def long_text(size):
    """Encode the payload of a long string."""
    return struct.pack(">I", size) + b"h" * size


#: name -> (reason, body, arguments of `Rig.raw`)
BODIES = {
    "an empty body": ("not-json", b"", {}),
    "random bytes": ("not-utf8", bytes(range(256)), {}),
    "text that is not UTF-8": ("not-utf8", '{"n": "é"}'.encode("latin-1"), {}),
    "UTF-16": ("not-utf8", '{"n": 1}'.encode("utf-16"), {}),
    "a byte order mark": ("not-json", b"\xef\xbb\xbf" + GOOD, {}),
    "NUL bytes": ("not-json", b"\0" * 100, {}),
    "half of an object": ("not-json", b'{"n": ', {}),
    "two objects": ("not-json", GOOD + GOOD, {}),
    "null": ("not-an-object", b"null", {}),
    "an array": ("not-an-object", b"[1, 2]", {}),
    "a number": ("not-an-object", b"17", {}),
    "NaN": ("not-json", b'{"n": NaN}', {}),
    "Infinity": ("not-json", b'{"n": -Infinity}', {}),
    "an integer of 100,000 digits": ("not-json", b'{"n": ' + b"7" * 100_000 + b"}", {}),
    "a name given twice": ("not-json", b'{"n": 1, "n": 2}', {}),
    "a lone surrogate as a value": ("not-utf8", b'{"n": "\\ud800"}', {}),
    "a lone surrogate as a name": ("not-utf8", b'{"\\udfff": 1}', {}),
    "nested 65 deep": ("too-deep", nested(64), {}),
    "nested 100,000 deep": ("too-deep", nested(100_000), {}),
    "brackets and a string that never ends": (
        "not-json",
        b'{"n":' + b"[[" * 16 + b"]]" * 16 + b"{}" * 40 + b'"' + b'\\"' * 300_000,
        {},
    ),
    "a body of 1 MiB and a byte": ("too-large", b'{"n": "' + b"x" * (1024**2 - 8) + b'"}', {}),
    "an unknown argument": ("bad-arguments", b'{"n": 1, "m": 2}', {}),
    "no argument": ("bad-arguments", b"{}", {}),
    "an argument of a wrong type": ("bad-arguments", b'{"n": "many"}', {}),
}
ENVELOPES = {
    "an envelope with options null": ("bad-envelope", envelope(options=None), {}),
    "an envelope with args null": ("bad-envelope", envelope(args=None), {}),
    "an envelope with kwargs as an array": ("bad-envelope", envelope(kwargs=[1]), {}),
    "an envelope without an actor": ("bad-envelope", envelope(actor_name=None), {}),
    "an envelope with a number as its id": ("bad-envelope", envelope(message_id=7), {}),
    "an envelope with an empty id": ("bad-envelope", envelope(message_id=""), {}),
    "an envelope with an id of 256 bytes": ("bad-envelope", envelope(message_id="x" * 256), {}),
    "an envelope due in the year 300,000": ("bad-envelope", envelope(options={"eta": 1e16}), {}),
    "an envelope due at a boolean": ("bad-envelope", envelope(options={"eta": True}), {}),
    "an envelope with half a retry": ("bad-envelope", envelope(options={"retries": 0.5}), {}),
    "an envelope with -1 retries": ("bad-envelope", envelope(options={"retries": -1}), {}),
    "an envelope with positional surplus": ("bad-arguments", envelope(args=[1, 2, 3]), {}),
    "an envelope for nobody": ("unknown-actor", envelope(actor_name="no.body"), {}),
}
PROPERTIES = {
    "gzip": ("bad-content-type", gzip.compress(GOOD), {"content_encoding": "gzip"}),
    "XML": ("bad-content-type", b"<n>1</n>", {"content_type": "text/xml"}),
    "a pickle": ("bad-content-type", b"\x80\x04N.", {"content_type": "application/x-python"}),
    "an unknown actor": ("unknown-actor", GOOD, {"type": "no.body"}),
    "an actor's name of 128 characters": ("unknown-actor", GOOD, {"type": "a" * 128}),
    "an actor's name of odd words": ("unknown-actor", GOOD, {"type": "../../etc/passwd\n"}),
    "a key without an actor": ("unknown-actor", GOOD, {"key": "default"}),
    "a key of wildcards": ("unknown-actor", GOOD, {"key": "default.*.#"}),
    "a key that is not UTF-8": ("unknown-actor", GOOD, {"key": b"default.\xff\xfe"}),
    "a message id that is not UTF-8": ("bad-property", GOOD, {"message_id": b"\xff\xfe"}),
    "a correlation id that is not UTF-8": ("bad-property", GOOD, {"correlation_id": b"\xff"}),
    "a type that is not UTF-8": ("bad-property", GOOD, {"type": b"\xff"}),
    "an attempt as text": ("bad-header", GOOD, {"headers": {"x-leveret-attempt": "1"}}),
    "attempt 0": ("bad-header", GOOD, {"headers": {"x-leveret-attempt": 0}}),
    "attempt true": ("bad-header", GOOD, {"headers": {"x-leveret-attempt": True}}),
    "attempt 2**62": ("bad-header", GOOD, {"headers": {"x-leveret-attempt": 2**62}}),
    "-1 retries": ("bad-header", GOOD, {"headers": {"x-leveret-max-retries": -1}}),
    "an expiry as a number": ("bad-header", GOOD, {"headers": {"x-leveret-expires-at": 17}}),
    "an expiry without a zone": (
        "bad-header",
        GOOD,
        {"headers": {"x-leveret-expires-at": "2026-01-01T00:00:00"}},
    ),
    "an expiry as a table": ("bad-header", GOOD, {"headers": {"x-leveret-expires-at": {"a": 1}}}),
    "once as a word": ("bad-header", GOOD, {"headers": {"x-leveret-once": "yes"}}),
    "a key of 256 bytes": (
        "bad-header",
        GOOD,
        {"headers": {"x-leveret-idempotency-key": "k" * 256}},
    ),
    "a key of bytes": ("bad-header", GOOD, {"headers": {"x-leveret-idempotency-key": b"\xff"}}),
    "an expiry in the past": (
        "expired",
        GOOD,
        {"headers": {"x-leveret-expires-at": "0001-01-01T00:00:00+14:00"}},
    ),
}
#: Tables that pika cannot read, or no client would write.
TABLES = {
    "a timestamp after the year 9999": (
        "unreadable-header",
        field("x-when", b"T", struct.pack(">Q", 2**63)),
    ),
    "an unsigned attempt of 64 bits": (
        "bad-header",
        field("x-leveret-attempt", b"l", struct.pack(">q", 2**40)),
    ),
    "a table 2,000 deep": (
        "unreadable-header",
        None,
    ),
}


def deep_table(depth):
    """Encode a table in a table in a table."""
    inner = b""
    for _ in range(depth):
        inner = field("t", b"F", struct.pack(">I", len(inner)) + inner)
    return inner


#: What RabbitMQ does not take from anybody. No worker ever sees it.
REFUSED = {
    "an infinite number in a header": {
        "wire": WireProperties(field("x-n", b"d", struct.pack(">d", float("inf"))))
    },
    "an unknown type of header": {"wire": WireProperties(field("x-n", b"?", b"\0"))},
    "a header that is longer than its table": {
        "wire": WireProperties(field("x-n", b"S", struct.pack(">I", 10**6) + b"x"))
    },
    "headers larger than a frame": {"headers": {"x-big": "h" * 140_000}},
    "somebody else's user id": {"user_id": "somebody"},
    "a carbon copy that is no list": {"headers": {"CC": "bulk.work.do"}},
    "an expiration that is no number": {"expiration": "soon"},
    "an exchange that is not there": {"exchange": "leveret.nothing"},
    "a queue that is not one of the publisher's": {"key": "elsewhere.work.do"},
}


CASES = {**BODIES, **ENVELOPES, **PROPERTIES}


@pytest.fixture
def running(worker):
    """Return a running worker whose actor notes what it got."""

    @worker.actor("work.do", max_retries=0)
    def do(n: int | list):
        worker.notes.append(n)

    worker.start(threads=2)
    return worker


def test_every_kind_of_malformed_message_is_a_dead_letter_with_its_reason_and_bytes(running):
    """More than fifty kinds, between good jobs: all good ones succeed, on one connection."""
    tables = {
        name: (reason, GOOD, {"wire": WireProperties(table or deep_table(2000))})
        for name, (reason, table) in TABLES.items()
    }
    cases = {**CASES, **tables}
    io = running.worker._io
    connection = running.worker._source.connection
    wanted = {}
    for number, (name, (reason, body, options)) in enumerate(cases.items()):
        running.raw(body, **options)
        running.raw(json.dumps({"n": number}).encode())
        letter = running.letters(timeout=10)[0]
        wanted[name] = (letter.reason, letter.body == body)
        assert wanted[name] == (reason, True), f"{name}: {letter.headers}"
        assert letter.headers["x-leveret-error"], name
    assert len(cases) >= 50
    assert sorted(running.noted(len(cases))) == list(range(len(cases)))
    assert io.is_alive
    assert running.worker._source.connection is connection
    assert not running.worker.health().faults
    running.settled()


def test_a_header_that_cannot_be_read_is_kept_where_it_stops_no_reader(running):
    """In base64, as it came: the id that it had can still be found in it."""
    table = TABLES["a timestamp after the year 9999"][1]
    running.raw(GOOD, wire=WireProperties(table, message_id="the-id", type="work.do"))
    letter = running.letters(timeout=10)[0]
    assert letter.reason == "unreadable-header"
    kept = base64.b64decode(letter.headers["x-leveret-unreadable-header"])
    assert b"the-id" in kept
    assert table in kept


def test_malformed_messages_hold_up_none_of_the_good_ones_between_them(running):
    """500 of each, as fast as they come: every good one runs once, the others are letters."""
    bad = [case for case in CASES.values() if len(case[1]) < 10_000 and case[0] != "expired"]
    source = running.worker._source.connection
    with pika.BlockingConnection(pika.URLParameters(running.vhost.url("publisher"))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()  # a quorum queue can lose the end of what nobody waits for
        for number in range(500):
            _, body, options = bad[number % len(bad)]
            options = dict(options)
            key = options.pop("key", "default.work.do")
            channel.basic_publish("leveret.jobs", key, body, pika.BasicProperties(**options))
            channel.basic_publish("leveret.jobs", "default.work.do", b'{"n": %d}' % number)
    assert sorted(running.noted(500, timeout=60)) == list(range(500))
    assert len(running.letters(500, timeout=60)) == 500
    assert running.worker._source.connection is source


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_broker_itself_refuses_never_reaches_a_worker(running, name):
    """The publisher is told, by a closed channel or connection, and the worker goes on."""
    with pytest.raises(AMQPError):
        running.raw(GOOD, **REFUSED[name])
    running.raw(b'{"n": 5}')
    assert running.noted(1) == [5]
    running.settled()
    assert running.ready("leveret.dead.default") == 0


def test_a_hostile_publisher_makes_up_no_labels(worker):
    """Whatever actors, queues and traces messages name, metrics have the words that there are."""

    @worker.actor("work.do")
    def do(n):
        worker.notes.append(n)

    worker.start()
    for number in range(20):
        worker.raw(
            GOOD,
            type=f"made.up{number}",
            message_id=f"m-{number}",
            headers={"traceparent": f"00-{number}", "x-leveret-queue": f"made-up-{number}"},
        )
    worker.raw(GOOD, type="work.do", message_id="good", headers={"traceparent": "x" * 2000})
    worker.noted(1)
    worker.letters(20)
    worker.settled()
    page = own_metrics("application/openmetrics-text")[1].decode()
    assert "made" not in page
    assert 'leveret_jobs_total{actor="unknown",outcome="dead",queue="default"}' in page
    assert "xxx" not in page


def test_a_third_delivery_mode_is_refused_or_a_job_like_others(running):
    """RabbitMQ 4.3 takes it, where earlier releases close the connection."""
    taken = 0
    with suppress(AMQPError):
        running.raw(GOOD, delivery_mode=3)
        taken = 1
    running.raw(b'{"n": 5}')
    assert sorted(running.noted(1 + taken)) == [1, 5][1 - taken :]
    running.settled()
    assert running.ready("leveret.dead.default") == 0
