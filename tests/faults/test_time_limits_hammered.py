"""Time limits that land where a run ends."""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import timedelta

from dramatiq.middleware import Middleware

from leveret import names
from leveret.worker import timelimit

RUNS = 1000
LIMIT = 0.01


class Hooks(Middleware):
    """Counts the after-hooks that came to their end."""

    def __init__(self) -> None:
        self.after: Counter[str] = Counter()

    def after_process_message(self, _broker, message, **_what) -> None:
        """Take long enough to be hit by a limit that comes too late."""
        time.sleep(0.0005)
        self.after[message.message_id] += 1


def test_a_time_limit_at_the_end_of_a_run_costs_no_outcome_and_no_thread(
    node, publisher, books, workshop, monkeypatch
):
    """Each of 1000 runs has one after-hook and one outcome, and only who returned succeeded."""
    monkeypatch.setattr(timelimit, "_POLL_SECONDS", 0.0005)
    hooks = Hooks()
    workshop.broker.add_middleware(hooks)
    returned: Counter[str] = Counter()
    dice = random.Random(7)

    def limited(n: int = 0) -> int:
        workshop.count(workshop.starts)
        end = time.monotonic() + dice.uniform(0.7, 1.15) * LIMIT
        while time.monotonic() < end:
            time.sleep(0.0001)
        workshop.count(returned)
        return n

    workshop.actor("probe.limited", time_limit=timedelta(seconds=LIMIT), max_retries=0)(limited)
    everything = publisher.publish_many(
        (("probe.limited", {"n": n}) for n in range(RUNS)), queue="default"
    )
    worker = workshop.start(node.url("worker"), threads=4)
    books.wait_settled(everything)
    assert worker.health().faults == ()
    assert workshop.stop(worker)
    books.read()
    outcomes = books.outcomes(everything)
    assert outcomes.total() == RUNS
    assert set(outcomes) == {"succeeded", "dead"}
    assert {len(books.dead_letters[job_id]) for job_id in books.dead_letters} == {1}
    assert len(books.dead_letters) == outcomes["dead"]
    assert workshop.starts == dict.fromkeys(everything, 1)
    assert hooks.after == dict.fromkeys(everything, 1)
    succeeded = {
        job_id for job_id in everything if books.records[job_id][-1]["event"] == "succeeded"
    }
    assert succeeded <= set(returned)
    reasons = {letters[0]["x-leveret-error-type"] for letters in books.dead_letters.values()}
    assert reasons == {"dramatiq.middleware.time_limit.TimeLimitExceeded"}
    assert books.left_in(names.work_queue("default")) == 0
