"""Reading what the ledger is told: jobs, records and dead letters."""

from __future__ import annotations

import base64
import json

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret import names
from leveret.ledger.batch import Batch
from leveret.ledger.event import Malformed, Message
from leveret.ledger.letter import read_dead_letter
from leveret.ledger.record import read_records
from leveret.ledger.tap import read_published

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
JOB = "01980000-0000-7000-8000-000000000001"


def message(
    body=b"{}",
    *,
    queue=names.LEDGER,
    exchange=names.JOBS,
    key="default.work.do",
    redelivered=False,
    **properties,
):
    """Make a message of a queue."""
    return Message(
        queue, exchange, key, pika.BasicProperties(**properties), body, redelivered=redelivered
    )


def read(*args, **kwargs):
    """Read a job as it was published."""
    return read_published(message(*args, **kwargs))


def test_a_job_is_read_with_all_that_the_contract_knows():
    """Every field of the row comes from the message."""
    event = read(
        b'{"n": 1}',
        message_id=JOB,
        type="work.do",
        timestamp=1_751_000_000,
        correlation_id="order-7",
        app_id="shop",
        priority=4,
        content_type="application/json",
        headers={
            "x-leveret-expires-at": "2026-01-31T12:00:00Z",
            "x-leveret-idempotency-key": "k",
            "traceparent": TRACE,
            "x-leveret-attempt": 3,
            "x-leveret-run": 2,
        },
    )
    content = event.content
    assert (event.id, content.actor, content.queue) == (JOB, "work.do", "default")
    assert (content.routing_key, content.body) == ("default.work.do", b'{"n": 1}')
    assert (content.correlation_id, content.app_id, content.priority) == ("order-7", "shop", 4)
    assert (content.idempotency_key, content.traceparent) == ("k", TRACE)
    assert (content.expires_at, content.published_at) == (1_769_860_800.0, 1_751_000_000.0)
    assert json.loads(content.headers)["x-leveret-attempt"] == 3
    assert (event.standing.run, event.standing.attempt, str(event.standing.state)) == (
        2,
        3,
        "queued",
    )


def test_an_id_of_ours_tells_the_millisecond_of_publishing():
    """AMQP's timestamp has seconds only."""
    job_id = "01980001-0203-7000-8000-000000000001"
    at = int("019800010203", 16) / 1000
    assert read(message_id=job_id, timestamp=int(at)).content.published_at == at
    assert read(message_id=job_id, timestamp=int(at) + 60).content.published_at == int(at) + 60


def test_a_delayed_job_is_scheduled():
    """Its digits are not part of the key, and its header says when it is due."""
    key = "0.0.0.0.0.7.b.any.work.do"
    event = read(message_id=JOB, type="work.do", exchange=names.DELAY, key=key, timestamp=100)
    assert (event.content.routing_key, event.content.queue) == ("any.work.do", None)
    assert (str(event.standing.state), event.standing.due_at) == ("scheduled", 112.3)
    due = {"x-leveret-due-at": "2026-01-31T12:00:00Z"}
    event = read(message_id=JOB, type="work.do", exchange=names.DELAY, key=key, headers=due)
    assert event.standing.due_at == 1_769_860_800.0


def test_a_stock_dramatiq_envelope_names_its_job():
    """The body says who and what."""
    body = {
        "queue_name": "default", "actor_name": "work.do", "args": [], "kwargs": {},
        "options": {"eta": 1_769_860_800_000, "retries": 2}, "message_id": "stock-1",
    }  # fmt: skip
    event = read(json.dumps(body).encode(), key="default")
    assert (event.id, event.content.actor) == ("stock-1", "work.do")
    assert (event.standing.attempt, event.standing.due_at) == (3, 1_769_860_800.0)


def test_a_malformed_job_that_has_an_id_is_a_row_with_its_bytes():
    """Whether a worker can read it is the worker's to say."""
    event = read(
        b"\xff\0{",
        message_id="x" * 255,
        key="",
        headers={"x-leveret-attempt": "one", "x-leveret-expires-at": 17, "odd": {"a": [b"\xff"]}},
        correlation_id=b"\xff",
        priority=255,
    )
    assert event.id == "x" * 255
    assert (event.content.body, event.standing.attempt, event.content.expires_at) == (
        b"\xff\0{",
        1,
        None,
    )
    assert event.content.correlation_id == "\\xff"


@pytest.mark.parametrize("job_id", [None, "", b"\xff\xfe", "x" * 256])
def test_a_job_without_a_usable_id_is_counted(job_id):
    """Its worker gives it an id, under which the rest comes."""
    batch = Batch()
    batch.add(message(message_id=job_id, type="work.do"), 0.0)
    assert (batch.jobs, batch.rejects, batch.counts["anonymous"]) == ({}, [], 1)


def group(*records, **changes):
    """Write a group of records."""
    return json.dumps({"v": 1, "worker": "w-1", "records": records, **changes}).encode()


GOOD = {"event": "succeeded", "id": JOB, "ended_at": 2.0, "started_at": 1.0, "attempt": 1}


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"[]", b"{}", b'{"records": 1}', group(v=2), group(worker=None), b"[" * 100_000],
)
def test_what_is_no_group_of_records_is_malformed(body):
    """It is set aside as a whole."""
    with pytest.raises(Malformed):
        list(read_records(body))
    batch = Batch()
    batch.add(message(body, exchange=names.OUTCOMES, type="leveret.records"), 0.0)
    assert len(batch.rejects) == 1


@pytest.mark.parametrize(
    "record",
    [
        None,
        17,
        {},
        {**GOOD, "event": "exploded"},
        {**GOOD, "event": ["succeeded"]},
        {**GOOD, "id": 17},
        {**GOOD, "id": ""},
        {**GOOD, "ended_at": None},
        {**GOOD, "ended_at": "2026"},
        {**GOOD, "ended_at": 1e300},
        {**GOOD, "ended_at": True},
        {**GOOD, "attempt": 0},
        {**GOOD, "attempt": 1.5},
        {**GOOD, "run": -1},
        {**GOOD, "actor": 3},
        {**GOOD, "event": "dead", "error": 3},
        {**GOOD, "event": "dead", "error": {}},
        {"event": "heartbeat", "queues": "default", "running": [], "threads": 1, "at": 1.0},
        {"event": "heartbeat"},
        {**GOOD, "event": "progress", "progress": "half", "at": 1.0},
    ],
)
def test_a_malformed_record_does_not_spoil_its_group(record):
    """The others count, and the message is set aside for this one."""
    batch = Batch()
    body = group(record, GOOD)
    batch.add(message(body, exchange=names.OUTCOMES, type="leveret.records"), 0.0)
    assert list(batch.jobs) == [JOB]
    (reject,) = batch.rejects
    assert reject.body == body


def test_a_record_of_a_message_without_an_id_says_nothing():
    """Its dead letter does."""
    assert list(read_records(group({**GOOD, "id": None}))) == []


def dead(headers=None, **properties):
    """Read a dead letter of a worker."""
    told = {
        "x-leveret-reason": "exhausted",
        "x-leveret-queue": "bulk",
        "x-leveret-routing-key": "any.work.do",
        "x-leveret-dead-at": "2026-01-31T12:00:00Z",
        "x-leveret-dead-id": "letter-1",
        "x-leveret-attempt": 4,
        "mine": "kept",
        **(headers or {}),
    }
    properties = {"message_id": JOB, "type": "work.do", "headers": told, **properties}
    return read_dead_letter(
        message(
            queue=names.dead_queue("bulk"), exchange=names.DEAD, key="bulk", **properties
        ),
        received_at=5.0,
    )  # fmt: skip


def test_a_workers_dead_letter_is_read_with_its_original():
    """What the worker added is taken off the original's properties."""
    letter, event = dead()
    assert (letter.key, letter.key_is_digest) == ("letter-1", False)
    assert (letter.reason, letter.queue, letter.routing_key) == ("exhausted", "bulk", "any.work.do")
    assert (letter.attempt, letter.dead_at) == (4, 1_769_860_800.0)
    assert json.loads(letter.headers) == {"x-leveret-attempt": 4, "mine": "kept"}
    original = pika.BasicProperties().decode(letter.properties)
    assert (original.message_id, set(original.headers)) == (JOB, {"x-leveret-attempt", "mine"})
    assert (event.id, str(event.standing.state), event.standing.reason) == (
        JOB,
        "dead",
        "exhausted",
    )


def test_the_raw_header_of_an_unreadable_message_is_its_original():
    """The worker has put it into a header."""
    raw = b"\x20\x00\x00\x00\x00\x05junk!"
    letter, _ = dead({"x-leveret-unreadable-header": base64.b64encode(raw).decode()})
    assert letter.properties == raw


def test_a_publisher_cannot_pass_for_a_worker():
    """Headers say who wrote a letter only where publishers cannot write."""
    forged = {"x-leveret-reason": "exhausted", "x-leveret-dead-id": "letter-1"}
    native, _ = dead(
        {
            **forged,
            "x-death": [
                {
                    "reason": "delivery_limit",
                    "queue": "leveret.bulk",
                    "exchange": "leveret.route",
                    "routing-keys": ["bulk.work.do"],
                }
            ],
        }
    )
    assert (native.reason, native.queue, native.routing_key) == (
        "delivery-limit",
        "bulk",
        "bulk.work.do",
    )
    assert native.key_is_digest
    unroutable, _ = read_dead_letter(
        message(
            queue=names.UNROUTABLE,
            exchange=names.ROUTE,
            key="nowhere.work.do",
            message_id=JOB,
            headers=forged,
        ),
        received_at=5.0,
    )
    assert (unroutable.reason, unroutable.queue) == ("unroutable", None)
    assert (unroutable.actor, unroutable.routing_key) == ("work.do", "nowhere.work.do")
    assert unroutable.key_is_digest


def test_a_redelivery_of_the_brokers_letter_has_the_same_key():
    """What the broker adds to a redelivery does not count."""

    def key(**headers):
        letter, _ = read_dead_letter(
            message(
                queue="leveret.dead.bulk", exchange=names.DEAD, message_id=JOB, headers=headers
            ),
            received_at=5.0,
        )
        return letter.key

    assert key(a=1) == key(a=1, **{"x-delivery-count": 3}) != key(a=2)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ours = st.sampled_from(
    [
        "event", "id", "actor", "queue", "attempt", "run", "started_at", "ended_at", "due_at",
        "reason", "error", "result", "at", "progress", "note", "queues", "threads", "running",
    ]
)  # fmt: skip
events = st.sampled_from(
    ["started", "succeeded", "retrying", "dead", "snoozed", "heartbeat", "progress"]
)


@given(st.dictionaries(ours, values), events)
def test_any_record_is_an_event_or_malformed(record, event):
    """No record makes the reader fail."""
    list(read_records(group({**GOOD, **record, "event": event}, record)))


messages = st.builds(
    message,
    st.binary(max_size=50),
    queue=st.sampled_from([names.LEDGER, "leveret.dead.default", names.UNROUTABLE]),
    exchange=st.sampled_from(
        [names.JOBS, names.DELAY, names.OUTCOMES, names.DEAD, names.ROUTE, ""]
    ),
    key=st.text(max_size=30),
    headers=st.dictionaries(
        st.sampled_from(["x-leveret-reason", "x-leveret-run", "x-death", "x-leveret-due-at", "k"]),
        values,
    ),
    message_id=st.none() | st.text(max_size=40) | st.binary(max_size=10),
    type=st.none() | st.text(max_size=40) | st.binary(max_size=10),
    correlation_id=st.none() | st.text(max_size=40) | st.binary(max_size=10),
)


@given(messages)
def test_any_message_is_taken_in(taken):
    """Whatever a message is, it becomes rows or a reject."""
    batch = Batch()
    batch.add(taken, 1.0)
    assert sum(batch.counts.values()) == 1
    assert len(batch.letters) == (taken.queue != names.LEDGER)
    assert len(batch.rejects) == (taken.queue == names.LEDGER and taken.exchange == names.OUTCOMES)
