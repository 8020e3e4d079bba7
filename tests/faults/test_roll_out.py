"""A new release takes over while jobs flow: what `kubectl rollout` does, done natively."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leveret.publisher import Publisher

LONG = 2


class Stream:
    """Publishes jobs one after the other until it is stopped, as other services go on doing."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        #: The jobs that the broker has confirmed.
        self.accepted: list[str] = []

    def start(self) -> Stream:
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> list[str]:
        """Return all jobs that were accepted."""
        self._stop.set()
        self._thread.join(30)
        return self.accepted

    def wait_for(self, more: int) -> None:
        """Return when so many more have been accepted."""
        goal = len(self.accepted) + more
        wait_until(lambda: len(self.accepted) >= goal, timeout=30, what=f"{more} more jobs")

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            job = self._publisher.send("probe.run", {"n": len(self.accepted), "seconds": 0.02})
            self.accepted.append(job)


@pytest.fixture
def stream(publisher: Publisher) -> Iterator[Stream]:
    """Return a stream of jobs, stopped at the end."""
    made = Stream(publisher)
    yield made
    made.stop()


def ran_on(journal, workers, event: str = "end") -> list[str]:
    """Return the jobs of which a pool has written down this event."""
    children = set(workers.children())
    return [entry.job_id for entry in journal.entries(event) if entry.pid in children]


def assert_each_ran_once(books, journal, jobs: list[str]) -> None:
    """Each job started once and succeeded.

    What one pool gives back may reach another just before that drains, too. Such a job has been
    charged twice, and takes the way through the quarantine lane.
    """
    assert journal.starts() == dict.fromkeys(jobs, 1)
    fates = books.fates(jobs)
    assert fates["succeeded"] == len(jobs)
    assert set(fates) <= {"succeeded", "quarantined"}
    assert not any(books.dead_letters[job] for job in jobs)


def test_a_roll_out_loses_no_job_and_runs_none_twice(pool, publisher, books, journal, stream):
    """Two old pods, one surge: the new one is ready before an old one is told to go, twice.

    The long jobs of the old pods outlive the arrival of both successors, which work meanwhile. The
    old ones take nothing new, let the long jobs end, and end with status 0.
    """
    old = [pool(threads=2, prefetch=2), pool(threads=2, prefetch=2)]
    held = publisher.publish_many(("probe.hold", {"n": n}) for n in range(LONG))
    wait_until(lambda: len(journal.running()) == LONG, timeout=20, what="the long jobs run")
    stream.start()
    stream.wait_for(40)
    new = []
    for leaving in old:
        new.append(pool(threads=2, prefetch=2))
        stream.wait_for(20)
        leaving.signal(signal.SIGTERM)
        stream.wait_for(20)
    done = len(ran_on(journal, new[0]) + ran_on(journal, new[1]))
    stream.wait_for(40)
    wait_until(
        lambda: len(ran_on(journal, new[0]) + ran_on(journal, new[1])) > done + 20,
        timeout=30,
        what="the new pods work while the old ones drain",
    )
    assert set(held) <= journal.running()
    assert any(leaving.process.poll() is None for leaving in old)
    journal.open_gate("gate")
    assert [leaving.process.wait(30) for leaving in old] == [0, 0]
    assert [leaving.processes() for leaving in old] == [[], []]
    everything = [*stream.stop(), *held]
    books.wait_settled(everything)
    assert_each_ran_once(books, journal, everything)


def test_a_pool_that_is_scaled_to_none_leaves_its_jobs_to_the_next(
    pool, publisher, books, journal, stream
):
    """All pods go, jobs keep coming, a pod comes back: each job runs once, nothing is dead."""
    stream.start()
    workers = [pool(threads=2), pool(threads=2)]
    stream.wait_for(40)
    for each in workers:
        each.signal(signal.SIGTERM)
    assert [each.process.wait(30) for each in workers] == [0, 0]
    stream.wait_for(40)
    pool(threads=2)
    everything = stream.stop()
    books.wait_settled(everything)
    assert_each_ran_once(books, journal, everything)
