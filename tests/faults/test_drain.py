"""Workers that are asked to end."""

from __future__ import annotations

import pytest

from leveret import names
from tests.support.waiting import wait_until

QUEUE = names.work_queue("default")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_drain_lets_running_jobs_end_and_gives_the_others_back_at_once(
    pool, publisher, books, journal, processes
):
    """4 run to their end; 26 that were prefetched are in the queue before; the status is 0."""
    workers = pool(threads=4 // processes, processes=processes, prefetch=40 // processes)
    held = publisher.publish_many(("probe.hold", {"n": n}) for n in range(4))
    wait_until(lambda: len(journal.running()) == 4, timeout=20, what="all threads are busy")
    waiting = publisher.publish_many(("probe.run", {"n": n}) for n in range(26))
    wait_until(lambda: books.left_in(QUEUE) == 0, what="all are prefetched")
    workers.drain()
    wait_until(lambda: books.left_in(QUEUE) == 26, what="what was not started is back")
    assert len(journal.running()) == 4
    assert workers.process.poll() is None
    journal.open_gate("gate")
    assert workers.process.wait(20) == 0
    assert workers.processes() == []
    books.wait_settled(held)
    assert books.unsettled(waiting) == set(waiting)
    assert set(journal.starts()) == set(held)
    pool(threads=2)
    books.wait_settled(waiting)
    assert set(journal.starts().values()) == {1}
    outcomes = books.outcomes([*held, *waiting])
    assert outcomes["succeeded"] == 30
    # What one process gives back may reach the other just before that drains, too: two charges.
    assert set(outcomes) <= {"succeeded", "quarantined"}
    assert processes == 2 or outcomes["quarantined"] == 0


def test_a_job_that_outlasts_the_grace_goes_back_to_its_queue(pool, publisher, books, journal):
    """The worker ends although 2 jobs run on; the next one starts both again, and they succeed."""
    workers = pool(threads=2, grace=0.5)
    held = publisher.publish_many(("probe.hold", {"n": n}) for n in range(2))
    wait_until(lambda: len(journal.running()) == 2, timeout=20, what="all threads are busy")
    workers.drain()
    workers.process.wait(20)
    assert workers.processes() == []
    wait_until(lambda: books.left_in(QUEUE) == 2, what="both are back")
    journal.open_gate("gate")
    pool(threads=2)
    books.wait_settled(held)
    assert journal.starts() == dict.fromkeys(held, 2)
    assert books.fates(held) == {"succeeded": 2}
