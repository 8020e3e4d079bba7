"""Traps of stock Dramatiq 2.2.1: delayed jobs wait in the memory of a worker."""

from __future__ import annotations

import resource
from datetime import timedelta

import leveret
from leveret.message import now_plus


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
