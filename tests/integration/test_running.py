"""A job that runs: in which order, what it knows of itself, what it may publish."""

from __future__ import annotations

import threading

import leveret
from tests.support.waiting import wait_until


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
