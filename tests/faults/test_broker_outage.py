"""A broker that is killed, and comes back."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Self

from leveret.message import Job, new_id
from tests.support.waiting import wait_until


def outage(broker, seconds: float = 0.0) -> None:
    """Kill the broker; bring it back, so that it was away for at least these seconds."""
    killed = time.monotonic()
    broker.kill()
    starting = 3.0
    wait_until(lambda: time.monotonic() - killed >= seconds - starting, timeout=60)
    broker.start()
    wait_until(lambda: time.monotonic() - killed >= seconds, timeout=60)


class Crowd:
    """Publishes in every way that there is, until it is told to stop."""

    def __init__(self, publisher) -> None:
        self._publisher = publisher
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=way) for way in (self._send, self._pipeline, self._on_asyncio)
        ]
        self._many = threading.Thread(target=self._publish_many)
        #: Ids of jobs whose publishing has returned.
        self.accepted: list[str] = []
        self.errors: list[BaseException] = []

    def __enter__(self) -> Self:
        for thread in (*self._threads, self._many):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in (*self._threads, self._many):
            thread.join(90)
            assert not thread.is_alive(), thread

    def _send(self) -> None:
        while not self._stop.is_set():
            self._try(lambda: [self._publisher.send("probe.run")])

    def _pipeline(self) -> None:
        while not self._stop.is_set():
            receipts = [self._publisher.publish("probe.run") for _ in range(20)]
            self._try(lambda receipts=receipts: [receipt.wait() for receipt in receipts])

    def _publish_many(self) -> None:
        def endless():
            while not self._stop.is_set():
                yield Job(actor="probe.run", id=new_id(), queue="default")
                self._stop.wait(0.002)

        self._try(lambda: self._publisher.publish_many(endless()))

    def _on_asyncio(self) -> None:
        async def one() -> str:
            return await self._publisher.publish("probe.run")

        async def burst() -> list[str]:
            return await asyncio.gather(*(one() for _ in range(20)))

        while not self._stop.is_set():
            self._try(lambda: asyncio.run(burst()))

    def _try(self, publish) -> None:
        try:
            self.accepted += publish()
        except Exception as error:  # noqa: BLE001 - counted
            self.errors.append(error)
            self._stop.set()


def test_publishers_ride_through_a_broker_that_is_away_for_ten_seconds(
    broker, publisher, books, pool
):
    """Threads, pipelines, publish_many and asyncio: no call fails, and no accepted job is lost."""
    with Crowd(publisher) as crowd:
        wait_until(lambda: len(crowd.accepted) > 200, timeout=20, what="they publish")
        before = len(crowd.accepted)
        outage(broker, seconds=10)
        wait_until(
            lambda: len(crowd.accepted) > before + 200 or crowd.errors,
            timeout=60,
            what="they publish again",
        )
    assert crowd.errors == []
    assert len(crowd.accepted) == len(set(crowd.accepted)) > 400
    pool(threads=8)
    books.wait_settled(crowd.accepted)
    assert books.outcomes(crowd.accepted)["dead"] == 0
    assert {books.outcomes([job_id])["succeeded"] for job_id in crowd.accepted} <= {1, 2}


def test_a_broker_killed_under_running_jobs_loses_none_and_starts_none_twice(
    broker, publisher, books, journal, pool
):
    """The worker lives: what runs over the outage is settled by its redelivery."""
    # Room for all: the broker may deliver what nobody had before what the lost session had.
    workers = pool(threads=4, prefetch=200)
    held = publisher.publish_many(("probe.hold", {"n": n}) for n in range(4))
    waiting = publisher.publish_many(("probe.run", {"n": n}) for n in range(100))
    wait_until(lambda: len(journal.running()) == 4, timeout=20, what="all threads are busy")
    outage(broker)
    wait_until(
        lambda: workers.metric("leveret_redeliveries_adopted_total") == 4,
        timeout=60,
        what="the running jobs are delivered again",
    )
    journal.open_gate("gate")
    books.wait_settled([*held, *waiting])
    assert journal.started_again() == {}
    assert books.fates([*held, *waiting]) == {"succeeded": 104}
    assert workers.metric("leveret_settlements_void_total") == 0


def test_a_broker_killed_under_load_loses_nothing(broker, publisher, books, journal, pool):
    """Of 2000 short jobs, at most the 20 that the broker had not seen acked start twice.

    Their outcome records may come again: sent anew because their confirms were lost, and with the
    redelivery of the job.
    """
    everything = publisher.publish_many(
        ("probe.run", {"n": n, "seconds": 0.002}) for n in range(2000)
    )
    pool(threads=4, prefetch=20)
    wait_until(lambda: len(journal.starts()) > 300, timeout=30, what="some have run")
    outage(broker)
    books.wait_settled(everything, timeout=90)
    assert len(journal.starts()) == 2000
    again = journal.started_again()
    assert set(again.values()) <= {2}
    assert len(again) <= 20
    outcomes = books.outcomes(everything)
    assert set(outcomes) == {"succeeded"}
    assert 2000 <= outcomes["succeeded"] <= 2000 + 2 * 20


def test_a_broker_killed_while_jobs_wait_in_the_wheel_loses_none_and_lets_none_go_early(
    broker, publisher, books, journal, pool
):
    """200 delayed jobs and 20 retries come back with the broker."""
    workers = pool(threads=4)
    due = time.time() + 12
    delayed = publisher.publish_many(
        (("probe.run", {"n": n}) for n in range(200)), delay=due - time.time()
    )
    retried = publisher.publish_many(("probe.fail_once", {"n": n}) for n in range(20))
    wait_until(
        lambda: workers.metric("leveret_retries_total") == 20, timeout=20, what="the first attempts"
    )
    outage(broker)
    books.wait_settled([*delayed, *retried], timeout=90)
    started = {
        record["id"]: record["started_at"]
        for job_id in delayed
        for record in books.records[job_id]
        if record["event"] == "succeeded"
    }
    assert min(started.values()) >= due - 0.05
    assert books.outcomes(delayed)["dead"] == 0
    assert len(journal.starts()) == 220
    assert len(started) == 200
    assert {books.outcomes([job_id])["succeeded"] for job_id in retried} <= {1, 2}
