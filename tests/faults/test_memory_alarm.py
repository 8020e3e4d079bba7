"""A broker that has no memory left for publishers."""

from __future__ import annotations

import time

import pytest

from leveret import names
from leveret.errors import PublisherBlocked
from tests.support.waiting import wait_until


def raise_alarm(broker, publisher) -> list:
    """Raise the memory alarm; return the receipts of jobs that were published before it showed."""
    broker.control("set_vm_memory_high_watermark", "0.0000001")
    receipts = []

    def is_blocked() -> bool:
        try:
            receipts.append(publisher.publish("probe.run"))
        except PublisherBlocked:
            return True
        return False

    wait_until(is_blocked, timeout=30, what="the broker blocks the publisher")
    return receipts


def test_publishers_fail_fast_and_workers_settle_when_the_alarm_is_over(
    broker, publisher, books, workshop
):
    """Of 24 jobs that were there, and those under way, none is lost and none starts twice."""
    worker = workshop.start(broker.vhost.url("worker"), threads=4, prefetch=50)
    held = publisher.publish_many(("probe.hold", {"n": n}) for n in range(4))
    wait_until(lambda: workshop.running() == 4, what="all threads are busy")
    waiting = publisher.publish_many(("probe.fail_once", {"n": n}) for n in range(20))
    receipts = raise_alarm(broker, publisher)
    try:
        began = time.monotonic()
        with pytest.raises(PublisherBlocked, match="blocks publishers"):
            publisher.send("probe.run")
        assert time.monotonic() - began < 1
        workshop.gate.set()
        wait_until(lambda: workshop.ends.total() >= 24, timeout=20, what="the jobs run on")
        assert books.unsettled([*held, *waiting]) == {*held, *waiting}
    finally:
        broker.control("set_vm_memory_high_watermark", "0.4")
    under_way = [receipt.wait() for receipt in receipts]
    books.wait_settled([*held, *waiting, *under_way, publisher.send("probe.run")])
    assert workshop.stop(worker)
    assert [workshop.starts[job_id] for job_id in held] == [1] * 4
    assert [workshop.starts[job_id] for job_id in waiting] == [2] * 20
    assert books.fates(held) == {"succeeded": 4}
    assert books.fates(waiting) == {"retrying": 20, "succeeded": 20}
    assert books.left_in(names.work_queue("default")) == 0


def test_a_publisher_is_free_again_when_the_broker_that_blocked_it_is_gone(
    broker, publisher, books, workshop
):
    """The alarm ends with the broker's life; what was under way arrives, and more is accepted."""
    receipts = raise_alarm(broker, publisher)
    broker.kill()
    broker.start()
    accepted = [receipt.wait() for receipt in receipts]
    accepted += publisher.publish_many(("probe.run", {"n": n}) for n in range(50))
    workshop.start(broker.vhost.url("worker"))
    books.wait_settled(accepted)
