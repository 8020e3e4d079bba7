"""What a pool's health checks and metrics say when something in it breaks."""

from __future__ import annotations

import http.client
import os
import signal

import pytest

from leveret import names
from tests.support.faultjobs import ACTORS
from tests.support.waiting import wait_until

OK, UNAVAILABLE = http.client.OK, http.client.SERVICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("actor", "fault"),
    [
        ("probe.deaf", "is stuck"),
        ("probe.block_io", "the IO thread does not run"),
    ],
)
def test_livez_fails_when_a_thread_is_stuck_or_dead(pool, publisher, journal, actor, fault):
    """It says which; before that all was well."""
    workers = pool(threads=2, actors=("tests.support.faultjobs", "tests.support.impatience"))
    assert workers.get("/livez")[0] == OK
    publisher.send(actor, queue="default")
    wait_until(
        lambda: any(fault in said for said in workers.faults()), timeout=20, what=f"{fault!r}"
    )
    assert workers.get("/livez")[0] == UNAVAILABLE
    assert workers.get("/readyz")[0] == UNAVAILABLE
    assert len(journal.entries("start")) == 1


def test_a_child_whose_io_thread_has_ended_is_replaced(pool, publisher, journal):
    """Nothing can be settled there any more; what ended it thrice is given up like any killer."""
    workers = pool(threads=2, actors=("tests.support.faultjobs", "tests.support.impatience"))
    first = set(workers.children())
    publisher.send("probe.end_io", queue="default")
    wait_until(
        lambda: workers.children() and not first & set(workers.children()),
        timeout=30,
        what="another child",
    )
    wait_until(lambda: len(journal.entries("start")) == 3, timeout=60, what="two runs and the lane")
    wait_until(lambda: workers.get("/readyz")[0] == OK, timeout=30, what="/readyz is well again")
    assert workers.get("/livez")[0] == OK


def test_readyz_fails_while_a_queue_is_not_consumed(broker, node, pool):
    """A deleted queue is no reason to restart the pool, which is ready when it is back."""
    workers = pool(queues="default,bulk", threads=1)
    assert workers.get("/readyz")[0] == OK
    node.management.delete_queue(node.name, names.work_queue("bulk"))
    wait_until(lambda: workers.get("/readyz")[0] == UNAVAILABLE, what="/readyz fails")
    assert workers.get("/livez")[0] == OK
    node.declare(ACTORS)
    wait_until(lambda: workers.get("/readyz")[0] == OK, timeout=20, what="/readyz is well again")
    broker.wait_until_kept(names.work_queue("bulk"))


def test_metrics_add_up_over_processes_and_survive_the_death_of_one(pool, publisher, books):
    """100 before a child is killed, 50 after it: 150; the gauges are those of the living."""
    workers = pool(threads=2, processes=2, prefetch=4)

    def succeeded() -> float:
        return workers.metric(
            "leveret_jobs_total", actor="probe.run", queue="default", outcome="succeeded"
        )

    books.wait_settled(publisher.publish_many(("probe.run", {"n": n}) for n in range(100)))
    wait_until(lambda: succeeded() == 100, what="100 jobs")
    wait_until(lambda: workers.metric("leveret_worker_threads") == 4, what="4 threads")
    victim = workers.children()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: workers.metric("leveret_worker_restarts_total") == 1, what="a restart")
    assert succeeded() == 100
    wait_until(lambda: len(workers.children()) == 2 and workers.is_ready(), timeout=20)
    books.wait_settled(publisher.publish_many(("probe.run", {"n": n}) for n in range(50)))
    wait_until(lambda: succeeded() == 150, what="150 jobs")
    assert workers.metric("leveret_job_duration_seconds_count", actor="probe.run") == 150
    wait_until(lambda: workers.metric("leveret_worker_threads") == 4, what="4 threads")
    wait_until(lambda: workers.metric("leveret_jobs_in_progress") == 0, what="none in progress")
