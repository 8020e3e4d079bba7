"""Jobs that kill the worker process that runs them, and the jobs beside them."""

from __future__ import annotations

import pytest

from tests.support.waiting import wait_until


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killer_starts_twice_in_the_pool_and_once_alone_and_its_neighbours_succeed(
    pool, publisher, books, journal, processes
):
    """Then it is dead with the reason worker-killed; 30 neighbours use one attempt each."""
    workers = pool(threads=2, processes=processes, prefetch=8)
    first = [publisher.publish("probe.run", {"n": n}).job_id for n in range(10)]
    killer = publisher.publish("probe.die").job_id
    others = [publisher.publish("probe.run", {"n": n}).job_id for n in range(20)]
    everything = [*first, killer, *others]
    books.wait_settled(everything, timeout=90)
    assert journal.starts()[killer] == 3
    by_pid = {entry.pid for entry in journal.entries("start") if entry.job_id == killer}
    assert len(by_pid) == 3
    outcomes = books.outcomes([killer])
    assert outcomes == {"quarantined": 1, "dead": 1}
    [letter] = books.dead_letters[killer]
    assert letter["x-leveret-reason"] == "worker-killed"
    assert letter["x-leveret-attempt"] == 1
    neighbours = [*first, *others]
    assert set(books.outcomes(neighbours)) <= {"succeeded", "quarantined"}
    # What had ended and was not acked when its process died runs again; each run has one record.
    for job_id in neighbours:
        assert 1 <= books.outcomes([job_id])["succeeded"] <= journal.ends()[job_id] <= 3
    assert {attempt for _, attempt in journal.starts_by_attempt()} == {1}
    wait_until(lambda: workers.metric("leveret_worker_restarts_total") == 3, what="3 restarts")


def test_an_innocent_job_that_was_prefetched_beside_killers_succeeds_through_the_lane(
    pool, publisher, books, journal
):
    """Deaths of its worker charge it without a start; it runs once, alone, and succeeds."""
    killers = [publisher.publish("probe.die", {"n": n}).job_id for n in range(2)]
    innocents = [publisher.publish("probe.run", {"n": n}).job_id for n in range(3)]
    publisher.flush()
    pool(threads=1, prefetch=5)
    books.wait_settled([*killers, *innocents], timeout=90)
    assert sorted(journal.starts()[job_id] for job_id in killers) == [1, 3]
    assert books.outcomes(killers) == {"quarantined": 2, "dead": 2}
    assert [journal.starts()[job_id] for job_id in innocents] == [1, 1, 1]
    assert books.outcomes(innocents) == {"quarantined": 3, "succeeded": 3}
    for job_id in innocents:
        [final] = [record for record in books.records[job_id] if record["event"] == "succeeded"]
        assert final["attempt"] == 1
