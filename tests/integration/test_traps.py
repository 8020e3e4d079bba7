"""The traps of stock Dramatiq 2.2.1, each on a real broker: here a job survives them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import threading
import time
from datetime import timedelta

import dramatiq
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker

import leveret
from leveret import Backoff
from leveret.message import now_plus
from leveret.names import JOBS, work_queue
from tests.support.waiting import wait_until

AT_ONCE = Backoff(base=timedelta(0), cap=timedelta(0))


def cut(link):
    """Cut the TCP connection of a link, as a network does."""
    connection = link.connection
    with contextlib.suppress(OSError):  # the broker was faster
        connection._transport._sock.shutdown(socket.SHUT_RDWR)


# ------------------------------------------------------------------------------------- the hooks


class Failing(dramatiq.Middleware):
    """A middleware whose hook fails the first ``times``."""

    def __init__(self, hook, error, times=1):
        self.left = times
        self.error = error
        self.calls = []
        self.hook = hook

    def before_process_message(self, broker, message):
        """Fail, if that is the hook."""
        self._call("before", message)

    def after_process_message(self, broker, message, *, result=None, exception=None):
        """Fail, if that is the hook."""
        self._call("after", message)

    def _call(self, hook, message):
        self.calls.append((hook, message.message_id, message.options["attempt"]))
        if hook == self.hook and self.left:
            self.left -= 1
            raise self.error


@pytest.mark.parametrize("error", [OSError("no database"), SystemExit(1), KeyError("x")], ids=repr)
def test_a_before_hook_that_fails_keeps_the_job_from_running(worker, error):
    """Stock logs what the hook raises, and runs the job unguarded."""
    guard = Failing("before", error)
    worker.broker.add_middleware(guard)
    ran_at = []

    @worker.actor("work.do", backoff=AT_ONCE, retry_on=BaseException)
    def do():
        ran_at.append(leveret.current_job().attempt)

    worker.start()
    job = worker.send("work.do")
    worker.records(job, "retrying", "succeeded")
    assert ran_at == [2]


@pytest.mark.parametrize("error", [OSError("no storage"), SystemExit(1)], ids=repr)
def test_an_after_hook_that_fails_does_not_ack_the_job(worker, error):
    """Stock swallows it and acks: a pipeline's next job, or a result, is lost."""
    worker.broker.add_middleware(Failing("after", error))

    @worker.actor("work.do", backoff=AT_ONCE, retry_on=BaseException)
    def do():
        worker.notes.append(leveret.current_job().attempt)

    worker.start()
    job = worker.send("work.do")
    worker.records(job, "retrying", "succeeded")
    assert worker.notes == [1, 2]


def test_a_hook_may_skip_a_job(worker):
    """`SkipMessage` is a success without a run, as in stock."""

    class Skip(dramatiq.Middleware):
        def before_process_message(self, broker, message):
            raise dramatiq.middleware.SkipMessage

    worker.broker.add_middleware(Skip())

    @worker.actor("work.do")
    def do():
        worker.notes.append("ran")

    worker.start()
    worker.records(worker.send("work.do"), "succeeded")
    assert worker.notes == []


# ----------------------------------------------------------------------------------- settlement


def test_a_retry_that_cannot_be_published_does_not_ack_the_job(worker):
    """Stock loses it. Here the delivery is held until the retry exchange takes the copy."""

    @worker.actor("work.do", backoff=AT_ONCE)
    def do():
        worker.notes.append(leveret.current_job().attempt)
        if leveret.current_job().attempt == 1:
            raise ValueError("once")

    worker.channel.exchange_delete("leveret.retry")
    try:
        worker.start()
        job = worker.send("work.do")
        worker.noted(1)
        held = worker.worker._source._sessions["default"].held
        wait_until(lambda: worker.worker._settler._held, what="the retry was refused")
        assert [d.label for d in held.values()] == [job]
    finally:
        worker.vhost.declare()
    worker.records(job, "succeeded")
    assert worker.notes == [1, 2]


def test_a_delivery_tag_never_settles_another_message_after_a_reconnect(worker):
    """Stock acks or rejects whatever has the same number on the new channel."""
    gates = [threading.Event() for _ in range(4)]
    runs = []

    @worker.actor("work.wait", max_retries=0)
    def wait(n: int):
        runs.append(n)
        assert gates[n].wait(30)
        if n == 0:
            raise ValueError("the first one fails")

    worker.start(threads=4)
    ids = [worker.send("work.wait", {"n": n}) for n in range(4)]
    wait_until(lambda: len(runs) == 4, what="all four run")
    source = worker.worker._source
    before = source.connection
    cut(source._link)
    wait_until(lambda: source.connection not in (None, before), what="it is connected again")
    wait_until(lambda: worker.worker.is_ready)
    gates[0].set()
    letter = worker.letters()[0]
    assert letter.properties.message_id == ids[0]
    for gate in gates:
        gate.set()
    for job in ids[1:]:
        worker.records(job, "succeeded")
    worker.settled()
    assert worker.ready("leveret.dead.default") == 0
    assert sorted(runs) == [0, 1, 2, 3]  # what was running is adopted, not run a second time


def test_a_cut_publishing_connection_loses_no_outcome(worker):
    """What was not confirmed is published again, and acked once."""

    @worker.actor("work.do", backoff=AT_ONCE)
    def do(n: int):
        if leveret.current_job().attempt == 1 and n % 3 == 0:
            raise ValueError("once")
        worker.notes.append(n)

    worker.start()
    receipts = []
    for n in range(600):
        receipts.append(worker.publisher.publish("work.do", {"n": n}, queue="default"))
        if n in (200, 400):
            outbound = worker.worker._outbound
            wait_until(lambda outbound=outbound: outbound.is_up, what="it publishes")
            cut(outbound._link)
    for receipt in receipts:
        receipt.wait()
    worker.noted(600, timeout=30)
    worker.settled()
    assert set(worker.notes) == set(range(600))


def test_the_queue_in_an_envelope_does_not_matter_to_settlement(worker):
    """Stock looks the consumer up by the payload's `queue_name`; a mismatch kills its thread."""

    @worker.actor("work.do", backoff=AT_ONCE)
    def do():
        worker.notes.append(leveret.current_job().attempt)
        if leveret.current_job().attempt == 1:
            raise ValueError("once")

    worker.start(threads=1)
    for n, name in enumerate(["elsewhere", "default.DQ", "default.XQ", "", "\x00"]):
        body = {
            "queue_name": name,
            "actor_name": "work.do",
            "args": [],
            "kwargs": {},
            "options": {},
            "message_id": f"e{n}",
            "message_timestamp": 0,
        }
        worker.raw(json.dumps(body).encode(), key=f"default.{n}")
    worker.noted(10)
    worker.settled()
    assert worker.ready("leveret.dead.default") == 0


def test_options_null_does_not_stop_the_consumer(worker):
    """Stock's consumer crashes on it, and after its restart again, for ever."""

    @worker.actor("work.do")
    def do():
        worker.notes.append(1)

    worker.start()
    body = json.loads(dramatiq.Message("default", "work.do", (), {}, {}).encode())
    worker.raw(json.dumps({**body, "options": None}).encode(), key="default.x")
    worker.send("work.do")
    worker.noted(1)
    assert worker.letters()[0].reason == "bad-envelope"


# ---------------------------------------------------------------------------------- time limits


def test_time_limits_that_end_with_the_run_lose_no_outcome(worker):
    """Stock's late exception lands in a hook or the ack: a dead thread, or a lost message.

    The runs last about as long as the limit, so that the exception comes at every possible place.
    """
    worker.broker.add_middleware(Failing("none", None))
    jobs = 60

    @worker.actor("work.spin", time_limit=timedelta(milliseconds=60), max_retries=0)
    def spin(n: int):
        end = time.monotonic() + 0.02 + n / jobs * 0.12
        while time.monotonic() < end:
            pass

    worker.start(threads=2)
    ids = [worker.send("work.spin", {"n": n}) for n in range(jobs)]
    worker.settled(timeout=60)
    ends = []
    for job in ids:
        events = {r["event"] for r in worker.records(job)} & {"succeeded", "dead"}
        assert len(events) == 1, job
        ends += events
    assert set(ends) == {"succeeded", "dead"}
    assert worker.worker.health().faults == ()
    for letter in worker.letters(ends.count("dead")):
        assert "time limit of 0.06 s" in letter.headers["x-leveret-error"]


def test_an_async_actor_is_interrupted_retried_and_awaited(worker):
    """Coroutines have time limits, attempts and results like any other actor."""

    @worker.actor("work.sleep", time_limit=timedelta(milliseconds=300), backoff=AT_ONCE)
    async def sleep(n: int):
        attempt = leveret.current_job().attempt
        worker.notes.append((attempt, asyncio.get_running_loop().is_running()))
        if attempt == 1:
            await asyncio.sleep(30)
        await asyncio.sleep(0.001)
        return n * 2

    worker.start(threads=2)
    job = worker.send("work.sleep", {"n": 21})
    records = worker.records(job, "retrying", "succeeded")
    assert records[-1]["result"] == 42
    assert worker.notes == [(1, True), (2, True)]
    (retrying,) = [r for r in records if r["event"] == "retrying"]
    assert retrying["error"]["type"].endswith("TimeLimitExceeded")


# --------------------------------------------------------------------------- the delayed heap


def test_twenty_thousand_delayed_jobs_do_not_grow_the_worker(worker):
    """Stock holds each of them in a heap in memory; here they wait in the broker."""

    @worker.actor("work.do")
    def do(n: int):
        worker.notes.append(n)

    worker.start()
    worker.send("work.do", {"n": -1})
    worker.noted(1)
    due = now_plus(timedelta(hours=1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with leveret.Publisher(worker.vhost.url("publisher")) as publisher:
        publisher.publish_many(
            (("work.do", {"n": n}) for n in range(20_000)), at=due, queue="default"
        )
    held = sum(len(s.held) for s in worker.worker._source._sessions.values())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert held == 0
    assert worker.notes == [-1]
    assert grown < 40 * 1024  # KiB; the publisher in this process has its share of it
    for digit in range(7):
        for value in range(1, 16):
            worker.channel.queue_purge(f"leveret.delay.{digit}.{value:x}")


# ------------------------------------------------------------------- moving over from Dramatiq


class MovedBroker(RabbitmqBroker):
    """A stock broker whose exchange is `leveret.jobs`; all else is Dramatiq's."""

    def declare_queue(self, queue_name, *, ensure=False):
        """Declare nothing: this user may not, and need not."""
        self.queues.add(queue_name)

    @property
    def channel(self):
        """Return the channel, which publishes to the other exchange."""
        channel = super().channel
        if not hasattr(channel, "stock_publish"):
            channel.stock_publish = channel.basic_publish
            channel.basic_publish = lambda exchange="", **rest: channel.stock_publish(
                exchange=JOBS, **rest
            )
        return channel


def test_a_stock_publisher_moves_over_by_changing_its_exchange(worker):
    """Its messages run, its delayed ones when they are due, its retries are counted on."""
    stock = MovedBroker(url=worker.vhost.url("publisher"), confirm_delivery=True)

    @dramatiq.actor(broker=stock, actor_name="work.do", queue_name="default")
    def publishing(a, b): ...

    @worker.actor("work.do", backoff=AT_ONCE)
    def do(a: int, b: int):
        worker.notes.append((a, b, leveret.current_job().attempt, time.time()))
        if a == 3 and leveret.current_job().attempt == 1:
            raise ValueError("once")

    worker.start()
    publishing.send(1, b=2)
    (first,) = worker.noted(1)
    assert first[:3] == (1, 2, 1)
    begin = time.time()
    delayed = publishing.send_with_options(args=(2, 2), delay=700)
    worker.noted(2)
    assert worker.notes[1][:3] == (2, 2, 1)
    assert 0.65 <= worker.notes[1][3] - begin < 5
    assert worker.records(delayed.message_id, "snoozed", "succeeded")
    publishing.send(3, 4)
    worker.noted(4)
    assert [note[:3] for note in worker.notes[2:]] == [(3, 4, 1), (3, 4, 2)]
    stock.close()


def test_stock_actors_are_declared_with_stock_options(worker):
    """`min_backoff`, `max_retries`, `throws` and `time_limit` in milliseconds mean the same."""

    class NoUseError(Exception):
        pass

    @dramatiq.actor(
        broker=worker.broker, max_retries=1, min_backoff=0, max_backoff=1, time_limit=60_000
    )
    def twice():
        worker.notes.append("twice")
        raise ValueError

    @dramatiq.actor(broker=worker.broker, throws=NoUseError, min_backoff=1, max_backoff=2)
    def thrower():
        worker.notes.append("thrower")
        raise NoUseError

    @dramatiq.actor(broker=worker.broker, min_backoff=1, max_backoff=2)
    def asks():
        worker.notes.append("asks")
        if worker.notes.count("asks") == 1:
            raise dramatiq.errors.Retry(delay=10)

    worker.start()
    worker.send("twice")
    worker.send("thrower")
    asked = worker.send("asks")
    assert {(x.properties.type, x.reason) for x in worker.letters(2)} == {
        ("twice", "exhausted"),
        ("thrower", "refused"),
    }
    worker.records(asked, "retrying", "succeeded")
    assert sorted(worker.notes) == ["asks", "asks", "thrower", "twice", "twice"]


# ---------------------------------------------------------------------------------- the outcomes


class SoonError(Exception):
    """An error that says when to come back."""

    def __init__(self, seconds):
        super().__init__("busy")
        self.retry_after = seconds


def test_retry_after_is_honoured_and_never_early(worker):
    """An exception's `retry_after` replaces the backoff, which would be minutes here."""

    @worker.actor("work.do", backoff=Backoff(base=timedelta(minutes=9)))
    def do():
        worker.notes.append(time.monotonic())
        if len(worker.notes) == 1:
            raise SoonError(0.6)

    worker.start()
    worker.records(worker.send("work.do"), "succeeded")
    assert 0.6 <= worker.notes[1] - worker.notes[0] < 5


def test_a_snooze_uses_no_attempt(worker):
    """However often a job is put off, its attempts are all there."""

    @worker.actor("work.do", max_retries=0)
    def do():
        worker.notes.append(leveret.current_job().attempt)
        if len(worker.notes) < 4:
            raise leveret.Snooze(0.05, "not yet")

    worker.start()
    records = worker.records(worker.send("work.do"), "succeeded")
    assert worker.notes == [1, 1, 1, 1]
    assert [r["event"] for r in records].count("snoozed") == 3


def test_retries_are_for_the_classes_that_were_named(worker):
    """`dead_on` wins over `retry_on`, and what neither names is dead at once."""

    @worker.actor("work.do", retry_on=OSError, dead_on=PermissionError, backoff=AT_ONCE)
    def do(kind: str):
        attempt = leveret.current_job().attempt
        worker.notes.append((kind, attempt))
        if attempt == 1:
            raise {"os": OSError, "permission": PermissionError, "value": ValueError}[kind](kind)

    worker.start()
    ids = {kind: worker.send("work.do", {"kind": kind}) for kind in ("os", "permission", "value")}
    worker.records(ids["os"], "retrying", "succeeded")
    dead = {x.properties.message_id: x for x in worker.letters(2)}
    assert set(dead) == {ids["permission"], ids["value"]}
    assert {x.reason for x in dead.values()} == {"refused"}
    assert dead[ids["value"]].headers["x-leveret-error-type"] == "builtins.ValueError"
    assert "raise {" in dead[ids["value"]].headers["x-leveret-traceback"]


def test_a_dead_signal_and_a_used_up_job_say_which_they_are(worker):
    """One was refused on the first attempt, the other exhausted on its last."""

    @worker.actor("work.do", max_retries=2, backoff=AT_ONCE)
    def do(kind: str):
        worker.notes.append(kind)
        raise leveret.Dead("no such customer") if kind == "dead" else ValueError("again")

    worker.start()
    worker.send("work.do", {"kind": "dead"})
    refused = worker.letters()[0]
    worker.send("work.do", {"kind": "tired"})
    exhausted = worker.letters()[0]
    assert (refused.reason, refused.headers["x-leveret-error"]) == ("refused", "no such customer")
    assert (exhausted.reason, exhausted.headers["x-leveret-attempt"]) == ("exhausted", 3)
    assert worker.notes == ["dead", "tired", "tired", "tired"]


def test_the_header_max_retries_replaces_the_actors_limit(worker):
    """For this job, and all its attempts."""

    @worker.actor("work.do", max_retries=9, backoff=AT_ONCE)
    def do():
        worker.notes.append(leveret.current_job().attempt)
        raise ValueError

    worker.start()
    worker.send("work.do", max_retries=1)
    assert worker.letters()[0].headers["x-leveret-max-retries"] == 1
    assert worker.notes == [1, 2]


def test_a_job_that_has_expired_is_not_started(worker):
    """It is a dead letter whose reason is its time."""

    @worker.actor("work.do")
    def do():
        worker.notes.append("ran")

    job = worker.send("work.do", expires=0.001)
    worker.start()
    letter = worker.letters()[0]
    assert (letter.reason, letter.properties.message_id) == ("expired", job)
    assert worker.records(job, "expired")
    assert worker.notes == []


def test_urgent_actors_run_before_others_that_wait(worker):
    """Among what a worker holds, lower priorities come first."""
    gate = threading.Event()

    @worker.actor("work.block")
    def block():
        worker.notes.append("block")
        gate.wait(30)

    @worker.actor("work.slow", priority=10)
    def slow(n: int):
        worker.notes.append(("slow", n))

    @worker.actor("work.urgent", priority=-10)
    def urgent(n: int):
        worker.notes.append(("urgent", n))

    worker.start(threads=1, prefetch=20)
    worker.send("work.block")
    worker.noted(1)
    for n in range(4):
        worker.send("work.slow", {"n": n})
        worker.send("work.urgent", {"n": n})
    wait_until(lambda: len(worker.worker._work) == 8, what="eight wait")
    gate.set()
    worker.noted(9)
    assert worker.notes[1:] == [
        *(("urgent", n) for n in range(4)),
        *(("slow", n) for n in range(4)),
    ]


def test_the_running_job_is_known_to_its_actor_and_nobody_else(worker):
    """`current_job()` has what the publisher gave; outside of a run it is None."""

    @worker.actor("work.do")
    def do():
        job = leveret.current_job()
        worker.notes.append(
            (job.id, job.actor, job.queue, job.attempt, job.priority, job.correlation_id)
        )

    worker.start()
    job = worker.send("work.do", correlation_id="order-7", priority=3, job_id="my-id")
    worker.noted(1)
    assert worker.notes == [("my-id", "work.do", "default", 1, 3, "order-7")]
    assert job == "my-id"
    assert leveret.current_job() is None


def test_an_actor_publishes_further_jobs_over_its_workers_connection(worker):
    """`.send()` within a run waits for the confirm, and the new job runs."""

    @worker.actor("work.next")
    def following(n: int):
        worker.notes.append(n)

    @worker.actor("work.first")
    def first():
        for n in range(3):
            following.send_with_options(kwargs={"n": n}, queue="default")

    worker.start(threads=2)
    worker.send("work.first")
    assert sorted(worker.noted(3)) == [0, 1, 2]


def test_draining_gives_back_what_was_not_started_and_waits_for_what_was(worker):
    """Nothing is lost, nothing runs twice, and the broker has the rest at once."""
    gate = threading.Event()

    @worker.actor("work.wait")
    def wait(n: int):
        worker.notes.append(n)
        gate.wait(30)

    worker.start(threads=2, prefetch=10)
    for n in range(10):
        worker.send("work.wait", {"n": n})
    worker.noted(2)
    timer = threading.Timer(0.3, gate.set)
    timer.start()
    assert worker.stop(grace=20) is True
    timer.join()
    assert len(worker.notes) == 2
    wait_until(lambda: worker.ready(work_queue("default")) == 8, what="eight are back")


def test_the_same_id_twice_runs_twice_and_is_one_job_in_every_record(worker):
    """Publishing again after a doubt is safe: the ledger sees one job; claims are for effects."""

    @worker.actor("work.do")
    def do():
        worker.notes.append(leveret.current_job().id)

    worker.start()
    for _ in range(2):
        assert worker.send("work.do", job_id="order-17") == "order-17"
    worker.noted(2)
    wait_until(
        lambda: len([r for r in worker.records("order-17") if r["event"] == "succeeded"]) == 2
    )
    assert set(worker.notes) == {"order-17"}


def test_a_copy_that_was_cut_off_keeps_everything_a_publisher_gave(worker):
    """The dead letter has the properties and headers of the original, beside our own."""
    worker.start()
    worker.raw(
        b"{}",
        key="default.no.body",
        message_id="m",
        correlation_id="c",
        reply_to="r",
        app_id="a",
        priority=3,
        timestamp=1234,
        content_type="application/json",
        headers={"x-theirs": ["deep", {"n": 1}], "traceparent": "t"},
    )
    letter = worker.letters()[0]
    found = letter.properties
    assert (found.message_id, found.correlation_id, found.reply_to) == ("m", "c", "r")
    assert (found.app_id, found.priority, found.timestamp) == ("a", 3, 1234)
    assert letter.headers["x-theirs"] == ["deep", {"n": 1}]
    assert letter.headers["x-leveret-routing-key"] == "default.no.body"
