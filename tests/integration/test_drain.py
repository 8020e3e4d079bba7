"""The end of a worker: what it had not started goes back, and no job is charged for it."""

from __future__ import annotations

import threading

from leveret.names import work_queue
from tests.support.waiting import wait_until


def test_a_drain_gives_back_what_was_not_started_and_charges_no_job(worker):
    """One job runs to its end; those that were held with it are in the queue again, as if new."""
    entered, gate = threading.Event(), threading.Event()

    @worker.actor("drain.hold")
    def hold(number):
        entered.set()
        gate.wait(20)

    worker.start(threads=1, prefetch=8)
    ids = [worker.send("drain.hold", {"number": number}) for number in range(6)]
    assert entered.wait(10)
    wait_until(lambda: worker.ready(work_queue("default")) == 0)
    stopped: list[bool] = []
    stopping = threading.Thread(target=lambda: stopped.append(worker.stop(20)))
    stopping.start()
    wait_until(lambda: worker.ready(work_queue("default")) == 5)
    gate.set()
    stopping.join(20)
    assert stopped == [True]
    letters = worker.letters(5, queue=work_queue("default"))
    assert sorted(letter.properties.message_id for letter in letters) == sorted(ids[1:])
    for letter in letters:
        assert letter.headers.get("x-delivery-count", 0) == 0
        assert "x-leveret-kills" not in letter.headers


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
