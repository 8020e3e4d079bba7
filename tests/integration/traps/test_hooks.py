"""Traps of stock Dramatiq 2.2.1: a middleware whose hook fails."""

from __future__ import annotations

import dramatiq
import pytest

import leveret
from tests.support.hooks import Failing
from tests.support.workers import AT_ONCE


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
