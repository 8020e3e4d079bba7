"""Workers that are killed while they work."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.waiting import wait_until


def publish(publisher, actor: str, count: int, **arguments) -> list[str]:
    """Publish jobs and return their ids."""
    return publisher.publish_many((actor, {"n": n, **arguments}) for n in range(count))


def assert_succeeded(books, job_ids: list[str], count: int) -> None:
    """Each job has succeeded once.

    What one process gives back may reach its sibling just before that ends, too. Such a job has
    been charged twice, and takes the way through the quarantine lane.
    """
    outcomes = books.outcomes(job_ids)
    assert outcomes["succeeded"] == count
    assert set(outcomes) <= {"succeeded", "quarantined"}


def test_a_killed_child_loses_nothing_and_starts_again_only_what_ran(
    pool, publisher, books, journal
):
    """Of 204 jobs exactly the 4 that ran at the kill start twice, and all succeed."""
    workers = pool(threads=4, prefetch=50)
    done = publish(publisher, "probe.run", 100)
    books.wait_settled(done)
    held = publish(publisher, "probe.hold", 4)
    wait_until(lambda: len(journal.running()) == 4, timeout=20, what="all threads are busy")
    waiting = publish(publisher, "probe.run", 100)
    [child] = workers.children()
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: set(workers.children()) - {child}, timeout=20, what="a new child")
    journal.open_gate("gate")
    everything = [*done, *held, *waiting]
    books.wait_settled(everything)
    starts = journal.starts()
    assert sorted(job_id for job_id, count in starts.items() if count > 1) == sorted(held)
    assert {job_id: count for job_id, count in starts.items() if count > 1} == dict.fromkeys(
        held, 2
    )
    assert len(starts) == 204
    assert books.fates(everything) == {"succeeded": 204}
    assert workers.metric("leveret_worker_restarts_total") == 1


def test_a_killed_pool_loses_nothing_and_the_next_pool_goes_on(pool, publisher, books, journal):
    """Launcher and children die at once; of 120 jobs the 6 that ran start twice."""
    first = pool(threads=3, processes=2, prefetch=10)
    held = publish(publisher, "probe.hold", 6)
    wait_until(lambda: len(journal.running()) == 6, timeout=20, what="all threads are busy")
    waiting = publish(publisher, "probe.run", 114)
    first.kill_everything()
    journal.open_gate("gate")
    pool(threads=4)
    books.wait_settled([*held, *waiting])
    starts = journal.starts()
    assert {job_id: count for job_id, count in starts.items() if count > 1} == dict.fromkeys(
        held, 2
    )
    assert len(starts) == 120
    assert_succeeded(books, [*held, *waiting], 120)


def test_children_notice_that_their_launcher_is_dead(pool, publisher, books, journal):
    """They finish what runs, give the rest back, and leave no process behind."""
    workers = pool(threads=2, processes=2, prefetch=10)
    held = publish(publisher, "probe.hold", 4)
    wait_until(lambda: len(journal.running()) == 4, timeout=20, what="all threads are busy")
    waiting = publish(publisher, "probe.run", 20)
    workers.kill()
    journal.open_gate("gate")
    wait_until(lambda: not workers.processes(), timeout=20, what="no process is left")
    pool(threads=2)
    books.wait_settled([*held, *waiting])
    assert set(journal.starts().values()) == {1}
    assert_succeeded(books, [*held, *waiting], 24)


def test_siblings_of_a_killed_child_go_on(pool, publisher, books, journal):
    """A job in another process is not disturbed, and new jobs run before the dead child is back."""
    workers = pool(threads=1, processes=2, prefetch=1)
    held = publish(publisher, "probe.hold", 2)
    wait_until(lambda: len(journal.running()) == 2, timeout=20, what="both children are busy")
    victim, survivor = (entry.pid for entry in journal.entries("start"))
    os.kill(victim, signal.SIGKILL)
    journal.open_gate("gate")
    books.wait_settled(held)
    assert survivor in workers.children()
    assert survivor in {entry.pid for entry in journal.entries("end")}
    assert sorted(journal.starts().values()) == [1, 2]
    wait_until(lambda: len(workers.children()) == 2, timeout=20, what="the child is back")
    assert workers.is_ready() or workers.wait_ready()


@pytest.mark.parametrize(
    ("point", "actor", "starts", "outcomes"),
    [
        ("run-ended", "probe.run", {1: 2}, {"succeeded": 1}),
        ("settled", "probe.run", {1: 2}, {"succeeded": 2}),
        ("run-ended", "probe.fail_once", {1: 2, 2: 1}, {"retrying": 1, "succeeded": 1}),
        ("settled", "probe.fail_once", {1: 2, 2: 2}, {"retrying": 2, "succeeded": 2}),
        ("settled", "probe.refuse", {1: 2}, {"dead": 2}),
    ],
)
def test_a_death_between_the_run_and_the_ack_loses_nothing(
    pool, publisher, books, journal, *, point, actor, starts, outcomes
):
    """The job is delivered again, so its one run at the kill starts twice, and it is settled."""
    pool(
        threads=1,
        actors=("tests.support.faultjobs", "tests.support.killpoints"),
        variables={"FAULTS_KILL_AT": point},
    )
    job_id = publisher.send(actor)

    def finished() -> bool:
        books.read()
        return (journal.folder / "killed").exists() and books.outcomes([job_id]) == outcomes

    wait_until(finished, timeout=30, every=0.1, what=f"the outcomes {outcomes}")
    by_attempt = journal.starts_by_attempt()
    assert {attempt: count for (_, attempt), count in by_attempt.items()} == starts
