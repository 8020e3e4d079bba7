"""The parts of outbox and relay that need no server: rows, messages, the cursor, fates."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret import names, outbox, wheel
from leveret.errors import (
    InvalidJob,
    OutboxError,
    PublisherClosed,
    PublishError,
    PublishRejected,
    PublishTimeout,
)
from leveret.message import HEADERS, Job, decode, encode, encode_arguments
from leveret.outbox.row import OPTIONS, entry_of
from leveret.store.engine import labels_of
from services.relay.cursor import Cursor, Pace
from services.relay.message import Held, Row, message_of
from services.relay.source import Fate, fate_of

NOW = 1_800_000_000.0
TODAY = datetime.fromtimestamp(NOW, UTC)
ROW = Row(
    id=1,
    job_id="job-1",
    actor="email.send",
    queue="bulk",
    options=None,
    due_at=None,
    properties=None,
    routing_key=None,
    body=b"{}",
    body_bytes=2,
)


def row_of(job: Job, now: float = NOW) -> Row:
    """Write a job and read it back, as by way of the table."""
    entry = entry_of(job, now=now)
    return replace(
        ROW,
        job_id=entry.job_id,
        actor=entry.actor,
        queue=entry.queue,
        options=entry.options,
        due_at=None if entry.due_at is None else entry.due_at.timestamp(),
        body=entry.body,
    )


# ----------------------------------------------------------------------------------- a job as a row

TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60
)
TIMES = st.datetimes(datetime(2027, 1, 16), datetime(2027, 10, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)
JOBS = st.builds(
    Job,
    actor=st.sampled_from(["email.send", "order.pack"]),
    arguments=st.dictionaries(TEXT, st.integers() | TEXT | st.none(), max_size=3),
    id=TEXT,
    queue=st.none() | st.sampled_from(["bulk", "gpu-1"]),
    due_at=st.none() | TIMES,
    expires_at=st.none() | TIMES,
    attempt=st.integers(1, 9),
    run=st.integers(0, 9),
    max_retries=st.none() | st.integers(0, 1000),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | TEXT,
    app_id=st.none() | TEXT,
    idempotency_key=st.none() | TEXT,
    once=st.booleans(),
    traceparent=st.none() | st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)


@given(JOBS)
def test_a_job_leaves_the_outbox_as_the_publisher_would_send_it(job):
    """Whatever it carries: exchange, key, properties and body are the same."""
    row = row_of(job)
    message = message_of(row, now=NOW)
    exchange, key, properties = encode(job, timestamp=NOW)
    assert (message.exchange, message.routing_key) == (exchange, key)
    assert message.properties == properties
    assert row.body == encode_arguments(job.arguments)
    assert decode(message.properties, message.routing_key, row.body) == job


def test_every_field_of_a_job_has_a_place_in_the_row():
    """A header that is added to the contract is an option without further ado."""
    columns = {"actor", "arguments", "id", "queue", "due_at"}
    other = {"positional", "id_assigned"}  # of messages that were received
    fields = set(Job.__dataclass_fields__)
    assert set(OPTIONS) == fields - columns - other
    assert {header.attribute for header in HEADERS.values()} <= fields


@pytest.mark.parametrize(
    ("job", "match"),
    [
        (Job(actor="email.send", id="x", max_retries=5000), "max_retries is '5000'"),
        (Job(actor="email.send", id="x", due_at=datetime(2027, 1, 1)), "time zone"),  # noqa: DTZ001
        (Job(actor="email.send", id="x", due_at=datetime(2099, 1, 1)), "time zone"),  # noqa: DTZ001
        (Job(actor="email.send", id="x", traceparent=5), "traceparent is a string"),
        (Job(actor="email.send", id="x", arguments={"n": float("nan")}), "JSON"),
        (Job(actor="email.send", id="x", arguments={"n": "x" * 2**20}), "are the limit"),
        (Job(actor="email.send", id="a\0b"), "U\\+0000"),
        (Job(actor="email.send", id="x", queue="any"), "lower-case word"),
    ],
)
def test_what_breaks_the_contract_is_refused_when_it_is_written(job, match):
    """Not when it is too late."""
    with pytest.raises(InvalidJob, match=match):
        entry_of(job, now=NOW)


def test_a_job_beyond_the_horizon_is_held_until_a_day_before_it_must_leave():
    """At the horizon the wheel takes it, just beyond it the table keeps it."""
    at = Job(actor="email.send", id="x", due_at=TODAY + wheel.HORIZON)
    assert entry_of(at, now=NOW).hold_until is None
    assert message_of(row_of(at), now=NOW).exchange == names.DELAY
    far = replace(at, due_at=at.due_at + timedelta(seconds=1))
    hold = entry_of(far, now=NOW).hold_until
    assert hold == far.due_at - wheel.HORIZON + timedelta(days=1)
    assert message_of(row_of(far), now=NOW) == Held(hold)
    assert message_of(row_of(far), now=hold.timestamp()).exchange == names.DELAY
    assert message_of(row_of(far), now=far.due_at.timestamp()).exchange == names.JOBS


def test_a_message_is_passed_on_to_the_byte():
    """Also what pika would write otherwise: a float is not made a whole number."""

    def header(name: bytes, encoded: bytes) -> bytes:
        return bytes((len(name),)) + name + encoded

    kept = header(b"half", b"d" + struct.pack(">d", 0.5)) + header(b"short", b"s\0\x07")
    table = kept + header(b"x-death", b"A\0\0\0\0") + header(b"BCC", b"V")
    raw = struct.pack(">HI", 0x2000, len(table)) + table
    row = replace(ROW, properties=raw, routing_key="0.0.0.0.0.1.0.bulk.email.send")
    message = message_of(row, now=NOW)
    assert (message.exchange, message.routing_key) == (names.JOBS, "bulk.email.send")
    assert message.properties.encode() == [
        struct.pack(">HI", 0x2000 | 0x1000 | 0x0080, len(kept)) + kept + b"\x02" + b"\x05job-1"
    ]
    later = message_of(replace(row, due_at=NOW + 1.6), now=NOW)
    assert (later.exchange, later.routing_key) == (
        names.DELAY,
        "0.0.0.0.0.1.0.bulk.email.send",
    )


@given(st.binary(max_size=60))
def test_whatever_stands_in_properties_is_read_or_refused(raw):
    """Never anything else."""
    row = replace(ROW, properties=raw, routing_key="bulk.email.send")
    try:
        message = message_of(row, now=NOW)
    except InvalidJob:
        return
    pika.BasicProperties().decode(b"".join(message.properties.encode()))


# --------------------------------------------------------------------------------------- the cursor


class FakeTable:
    """Ids that become visible in any order, and are gone once they were scanned."""

    def __init__(self, cost: float) -> None:
        self.now = 0.0
        self.cost = cost
        self.visible: set[int] = set()
        self.begins: list[int] = []

    def drain(self, cursor: Cursor, *, fresh: bool = True) -> None:
        """Do as the relay does until it would wait."""
        for _ in range(1000):
            begin = cursor.begin(self.now, fresh=fresh)
            fresh = False
            self.begins.append(begin)
            found = sorted(id_ for id_ in self.visible if id_ > begin)[:10]
            seconds = self.cost if begin == 0 else 0.001
            self.now += seconds
            self.visible -= set(found)
            last = found[-1] if found else None
            cursor.scanned(begin, last, full=len(found) == 10, seconds=seconds, now=self.now)
            if not cursor.more(self.now):
                return
        raise AssertionError("it never ends")


@given(
    st.lists(st.tuples(st.floats(0, 3), st.sets(st.integers(1, 400), max_size=40)), max_size=12),
    st.floats(0.0001, 5),
)
def test_no_row_is_left_behind_however_late_its_transaction_commits(commits, cost):
    """Ids appear in any order; after the last wait that is asked for, none is left."""
    table, cursor = FakeTable(cost), Cursor()
    for pause, ids in commits:
        table.now += pause
        table.visible |= ids
        table.drain(cursor)
    for _ in range(20):
        if not table.visible:
            break
        wait = cursor.wait(table.now, 5.0)
        assert wait <= 5.0
        table.now += wait
        table.drain(cursor, fresh=False)
    assert not table.visible


def test_sweeps_cost_a_twentieth_of_the_time_at_most():
    """Where a sweep takes a second, because nothing can be vacuumed, jobs do not wait for it."""
    table, cursor = FakeTable(1.0), Cursor()
    table.drain(cursor)
    for n in range(1, 1000):
        table.now += 0.1
        table.visible.add(n)
        table.drain(cursor)
        assert not table.visible
    sweeps = table.begins.count(0)
    assert 2 <= sweeps <= 2 + table.now * 0.05  # and the two before the first could be priced
    cheap, cursor = FakeTable(0.001), Cursor()
    cheap.visible |= {500}
    cheap.drain(cursor)
    cheap.now += 0.1
    cheap.visible |= {3}
    cheap.drain(cursor)
    assert not cheap.visible  # found at once


def test_a_pace_has_a_least_interval():
    """Also for what costs nothing."""
    pace = Pace(least=5.0)
    assert pace.wait(0.0) == 0
    pace.spent(0.0, now=10.0)
    assert pace.wait(12.0) == 3.0
    pace.spent(1.0, now=20.0)
    assert pace.wait(20.0) == 20.0


# -------------------------------------------------------------------------------------------- fates


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (PublishRejected("a queue that it goes to is full"), Fate.PUT_OFF),
        (PublishRejected("no exchange 'leveret.jobs'", code=404), Fate.REFUSED_AS_ALL),
        (PublishRejected("access to exchange 'x' refused", code=403), Fate.REFUSED_AS_ALL),
        (PublishRejected("access to topic 'a.b' refused", code=403), Fate.SET_ASIDE),
        (PublishRejected("larger than the maximum", code=406), Fate.SET_ASIDE),
        (PublishError("the message cannot be encoded"), Fate.SET_ASIDE),
        (PublishTimeout("no confirm came in time"), Fate.STAYS),
        (PublisherClosed("closed"), Fate.STAYS),
    ],
)
def test_what_an_error_means_for_its_row(error, fate):
    """Only what is wrong with the row itself sets it aside."""
    assert fate_of(error) is fate


def test_databases_are_named_by_their_name_unless_that_repeats():
    """For logs and metrics, without passwords."""
    urls = ["postgresql://u:p@h/shop", "postgresql://u:p@h:5433/bank", "postgresql://u:p@i/bank"]
    assert labels_of(urls) == ["shop", "h:5433/bank", "i:5432/bank"]


@pytest.mark.parametrize("given_", [None, "postgresql://h/d", object()])
def test_what_is_no_connection_is_refused(given_):
    """With what would be one."""
    with pytest.raises(OutboxError, match="SQLAlchemy 2, or a Connection or Cursor of psycopg 3"):
        outbox.enqueue(given_, "email.send")
