"""Messages and errors that try to kill or wedge a worker; after each, it still works."""

from __future__ import annotations

import json
import struct
from datetime import timedelta

import pika
import pytest

import leveret
from leveret.names import work_queue
from tests.support.waiting import wait_until
from tests.support.workers import WireProperties, field

ONE = b'{"n": 1}'


class UnspeakableError(Exception):
    """An error that fails at describing itself."""

    def __str__(self):
        raise RuntimeError("no words")


class BadHintError(Exception):
    """An error whose hint about the retry fails."""

    @property
    def retry_after(self):
        """Fail."""
        raise RuntimeError("no hint")


class UntraceableError(Exception):
    """An error whose traceback cannot be written."""

    @property
    def __notes__(self):
        """Fail."""
        raise RuntimeError("no notes")


class Stubborn(dict):
    """A result that fails at being written."""

    def items(self):
        """Fail."""
        raise KeyError("no items")


@pytest.fixture
def running(worker):
    """Return a running worker with an actor for each mischief, and `work.do` that behaves."""

    @worker.actor("work.do")
    def do(n: int):
        worker.notes.append(n)

    @worker.actor("work.fail", max_retries=1, backoff=leveret.Backoff(base=timedelta(0)))
    def fail(n: int):
        worker.notes.append(("failed", leveret.current_job().attempt))
        raise ValueError(f"no {n}")

    @worker.actor("work.raise", max_retries=0)
    def raise_(what: str):
        match what:
            case "unspeakable":
                raise UnspeakableError
            case "bad hint":
                raise BadHintError
            case "surrogate":
                raise ValueError("caf\udce9")
            case "long":
                raise ValueError("\N{SNOWMAN}" * 10**6)
            case "untraceable":
                raise UntraceableError
            case "exit":
                raise SystemExit(3)
            case "interrupt":
                raise KeyboardInterrupt
            case "group":
                raise ExceptionGroup("many", [ValueError(str(n)) for n in range(1000)])
            case "stubborn":
                return Stubborn(a=1)
            case "infinite":
                return float("inf")
            case "endless":
                endless = []
                endless.append(endless)
                return endless
            case "object":
                return object()
        raise AssertionError(what)

    @worker.actor("work.later", max_retries=3)
    def later(what: str):
        if leveret.current_job().attempt == 1 and not worker.notes:
            worker.notes.append(what)
            match what:
                case "retry":
                    raise leveret.Retry("in an age", after=timedelta.max)
                case "snooze":
                    raise leveret.Snooze(timedelta.max)

    worker.start(threads=2)
    connection = worker.worker._source.connection
    yield worker
    assert worker.worker._source.connection is connection, "the worker had to reconnect"
    assert not worker.worker.health().faults
    worker.send("work.do", {"n": 4711})
    wait_until(lambda: 4711 in worker.notes, what="a good job runs afterwards")
    worker.settled()


def letter_of(rig, **options):
    """Return the next dead letter."""
    return rig.letters(timeout=15)[0]


@pytest.mark.parametrize(
    "what",
    ["unspeakable", "untraceable", "bad hint", "surrogate", "long", "exit", "interrupt", "group"],
)
def test_an_error_of_any_kind_makes_a_dead_letter_with_a_reason(running, what):
    """Errors that cannot be written, hinted at, or that end other programs, end only their job."""
    job = running.send("work.raise", {"what": what})
    letter = letter_of(running)
    assert letter.properties.message_id == job
    assert letter.reason in ("exhausted", "refused")
    assert running.records(job, "dead")[-1]["reason"] == letter.reason


@pytest.mark.parametrize("what", ["stubborn", "infinite", "endless", "object"])
def test_a_result_that_cannot_be_written_is_a_success_without_its_result(running, what):
    """What the actor returned is lost, and the record says so; the job has succeeded."""
    job = running.send("work.raise", {"what": what})
    record = running.records(job, "succeeded")[-1]
    assert "result" not in record
    assert record["result_lost"]


@pytest.mark.parametrize("what", ["retry", "snooze"])
def test_a_delay_longer_than_time_goes_to_the_end_of_the_wheel(running, what):
    """A wait beyond the calendar is a wait in the wheel, in its last queue."""
    job = running.send("work.later", {"what": what})
    letter = running.letters(queue="leveret.delay.6.f", timeout=10)[0]
    assert letter.properties.message_id == job
    assert letter.routing_key.startswith("f.f.")


@pytest.mark.parametrize(
    "key",
    [
        "default." + "x" * 247,
        "default.a b\nc",
        "default.work.fail\n",
        "default..",
        b"default.\xff\xfe",
    ],
    ids=["255 bytes", "with a line break", "ending in a line break", "empty words", "not UTF-8"],
)
def test_a_job_with_an_odd_routing_key_is_retried_like_any_other(running, key):
    """The type names the actor; the retry takes a key that the broker takes."""
    running.raw(ONE, key=key, type="work.fail", message_id="odd", role="owner")
    letter = letter_of(running)
    assert letter.reason == "exhausted"
    assert running.notes[:2] == [("failed", 1), ("failed", 2)]


def test_a_job_put_straight_into_the_queue_is_retried_into_the_same_queue(running):
    """An operator publishes to the queue by its name; its retry comes back there."""
    running.raw(ONE, exchange="", key=work_queue("default"), type="work.fail", role="owner")
    assert letter_of(running).reason == "exhausted"
    assert running.notes[:2] == [("failed", 1), ("failed", 2)]


def test_a_type_that_contradicts_the_key_is_retried_where_it_ran(running):
    """`any.<other>` is routed by one name and run by another; its retry finds the way."""
    running.channel.queue_bind(work_queue("default"), "leveret.route", "any.work.other")
    running.raw(ONE, key="any.work.other", type="work.fail")
    assert letter_of(running).reason == "exhausted"
    running.channel.queue_unbind(work_queue("default"), "leveret.route", "any.work.other")


@pytest.mark.parametrize("size", [90_000, 110_000, 129_000])
def test_headers_near_the_frame_limit_do_not_hold_a_failing_job_for_ever(running, size):
    """Its retry has no room for more headers: it is a dead letter instead, with all it had."""
    running.raw(ONE, type="work.fail", message_id="big", headers={"x-big": "h" * size})
    letter = letter_of(running)
    assert letter.headers["x-big"] == "h" * size
    assert letter.body == ONE
    assert running.records("big", "dead")


@pytest.mark.parametrize("kind", ["deep", "float", "decimal", "array", "every"])
def test_a_failing_job_with_any_header_types_is_settled(running, kind):
    """What pika can read but not write again does not wedge the retry."""
    inner = b""
    for _ in range(280):
        inner = field("t", b"F", struct.pack(">I", len(inner)) + inner)
    tables = {
        "deep": inner,
        "float": field("f", b"d", struct.pack(">d", 1e300)) + field("g", b"f", b"\x3f\x80\0\0"),
        "decimal": field("d", b"D", b"\xff\x7f\xff\xff\xff") + field("e", b"D", b"\0\x80\0\0\0"),
        "array": field("a", b"A", struct.pack(">I", 6) + b"V" * 4 + b"t\x07"),
        "every": b"".join(
            (
                field("t", b"t", b"\1"),
                field("b", b"b", b"\x80"),
                field("B", b"B", b"\xff"),
                field("s", b"s", b"\x80\0"),
                field("u", b"u", b"\xff\xff"),
                field("I", b"I", b"\x80\0\0\0"),
                field("i", b"i", b"\xff" * 4),
                field("l", b"l", b"\x80" + b"\0" * 7),
                field("S", b"S", struct.pack(">I", 2) + b"\xff\0"),
                field("x", b"x", struct.pack(">I", 2) + b"\xff\0"),
                field("T", b"T", struct.pack(">Q", 1)),
                field("V", b"V", b""),
                field(b"\xff\xfe", b"t", b"\0"),
                field("", b"t", b"\0"),
            )
        ),
    }
    running.raw(ONE, wire=WireProperties(tables[kind], type="work.fail", message_id="h"))
    letter = letter_of(running)
    assert letter.body == ONE
    assert running.records("h", "dead")


@pytest.mark.parametrize("count", [10**9, -5, "many", 2, True, None, 2**62])
def test_a_forged_delivery_count_neither_kills_nor_quarantines_a_job(running, count):
    """Only the broker's own count, on a redelivery, is believed."""
    running.raw(ONE, type="work.do", headers={"x-delivery-count": count})
    running.noted(1, timeout=5)


def test_forged_deaths_do_not_stop_a_retry(running):
    """A client's `x-death` is taken off the retry copy, which would look like a cycle with it."""
    death = {"queue": "leveret.delay.0.1", "reason": "expired", "count": 3, "exchange": "x"}
    headers = {
        "x-death": [death, "nonsense", {"queue": 7, "original-expiration": "9" * 5000}],
        "x-first-death-reason": "expired",
        "x-first-death-queue": "leveret.default",
        "x-first-death-exchange": "",
    }
    running.raw(ONE, type="work.fail", message_id="d", headers=headers)
    letter = letter_of(running)
    assert letter.reason == "exhausted"
    assert "x-death" not in letter.headers


@pytest.mark.parametrize("kind", ["CC", "BCC"])
def test_a_job_with_carbon_copies_is_not_multiplied_by_its_retries(running, kind):
    """The broker has honoured `CC` once; on the retry and the dead letter it is gone."""
    running.raw(
        ONE, type="work.fail", message_id="cc", headers={kind: ["bulk.work.fail", "scheduled.x"]}
    )
    assert letter_of(running).reason == "exhausted"
    assert running.ready(work_queue("bulk")) == 1
    assert running.ready(work_queue("scheduled")) == 1
    assert running.ready("leveret.dead.default") == 0
    assert running.ready("leveret.unroutable") == 0


def test_the_users_own_name_in_user_id_does_not_stop_the_retry(running):
    """The worker is another user, and the broker would refuse a copy with the first one's name."""
    running.raw(ONE, type="work.fail", user_id="leveret-publisher", reply_to="answers", app_id="a")
    letter = letter_of(running)
    assert letter.reason == "exhausted"
    assert letter.properties.reply_to == "answers"


def test_a_direct_reply_address_survives_a_retry(running):
    """A caller that waits on `amq.rabbitmq.reply-to` does not make the copy unpublishable."""
    connection = pika.BlockingConnection(pika.URLParameters(running.vhost.amqp_url))
    channel = connection.channel()
    channel.basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=True)
    channel.basic_publish(
        "leveret.jobs",
        "default.x",
        ONE,
        pika.BasicProperties(type="work.fail", reply_to="amq.rabbitmq.reply-to"),
    )
    letter = letter_of(running)
    connection.close()
    assert letter.reason == "exhausted"


def test_different_jobs_with_one_id_all_run(running):
    """The broker does not know of ids, and nothing in the worker confuses two deliveries."""
    for n in range(50):
        running.raw(b'{"n": %d}' % n, type="work.do", message_id="the same")
    assert sorted(running.noted(50)) == list(range(50))


@pytest.mark.parametrize("number", [0, 1, 2**53, 2**63 - 1])
def test_any_timestamp_property_is_harmless(running, number):
    """It only feeds a metric."""
    running.raw(ONE, type="work.do", timestamp=number)
    running.noted(1)


def test_priority_255_and_a_transient_message_are_harmless(running):
    """They are carried, and mean nothing to the worker; its copies are persistent."""
    running.raw(ONE, type="work.fail", priority=255, delivery_mode=1)
    letter = letter_of(running)
    assert (letter.properties.priority, letter.properties.delivery_mode) == (255, 2)


def test_a_whole_number_is_one_whatever_its_amqp_type(running):
    """A Java client's Long header is as good as an Integer."""
    table = b"".join(
        (
            field("x-leveret-attempt", b"l", struct.pack(">q", 2)),
            field("x-leveret-max-retries", b"b", b"\x01"),
        )
    )
    running.raw(ONE, wire=WireProperties(table, type="work.fail"))
    assert letter_of(running).reason == "exhausted"
    assert running.notes == [("failed", 2)]


def test_a_body_that_is_json_of_any_shape_never_ends_a_worker_thread(running):
    """A handful of deep, wide and long bodies within the limits, each settled."""
    bodies = [
        json.dumps({"n": {str(i): i for i in range(20_000)}}).encode(),
        b'{"n": ' + b"1" * 4000 + b"." + b"1" * 900_000 + b"}",
        b'{"n": "' + b"\\u0000" * 150_000 + b'"}',
        b"{" + b'"a":1,' * 100_000 + b'"n":1}',
        b'{"' + b"a" * 900_000 + b'": 1}',
    ]
    for body in bodies:
        running.raw(body, type="work.do")
    assert {letter.reason for letter in running.letters(len(bodies), timeout=30)} <= {
        "bad-arguments",
        "not-json",
    }
