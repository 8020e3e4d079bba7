"""Traps of stock Dramatiq 2.2.1: what is acked, and when."""

from __future__ import annotations

import json
import threading

import dramatiq

import leveret
from tests.support.waiting import wait_until
from tests.support.workers import AT_ONCE, cut


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
