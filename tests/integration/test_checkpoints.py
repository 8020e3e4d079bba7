"""Checkpoints: what one attempt writes down, the next one reads."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest

import leveret
from leveret.errors import ConfigurationError, DatabaseUnavailable, LeveretError
from tests.support.waiting import wait_until

SOON = leveret.Backoff(base=timedelta(seconds=0.1), jitter=False)


def test_the_next_attempt_goes_on_where_the_last_one_was(worker, ledger_database):
    """A checkpoint is handed back to the attempt after the one that failed."""

    @worker.actor("work.do", backoff=SOON)
    def work():
        job = leveret.current_job()
        page = (job.checkpointed or {"page": 0})["page"]
        worker.notes.append((job.attempt, page))
        job.checkpoint({"page": page + 1})
        if page < 2:
            raise ConnectionError("not yet")

    worker.start(database_url=ledger_database)
    job = worker.send("work.do")
    worker.records(job, "succeeded")
    assert worker.notes == [(1, 0), (2, 1), (3, 2)]


def kept(url, job):
    """Return how many checkpoints a job has in the database."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM checkpoints WHERE job_id = %s", [job])
        return row.fetchone()[0]


def test_a_checkpoint_goes_when_the_job_has_succeeded_and_stays_when_it_died(
    worker, ledger_database
):
    """A replay of the dead one goes on from it."""

    @worker.actor("work.do", max_retries=0)
    async def work(fail: bool):
        job = leveret.current_job()
        await asyncio.to_thread(job.checkpoint, {"at": 3})
        if fail:
            raise ConnectionError("no luck")

    worker.start(database_url=ledger_database)
    good = worker.send("work.do", {"fail": False})
    dead = worker.send("work.do", {"fail": True})
    worker.records(good, "succeeded")
    worker.records(dead, "dead")
    wait_until(lambda: kept(ledger_database, good) == 0, timeout=20, what="it is deleted")
    assert kept(ledger_database, dead) == 1


@pytest.mark.parametrize("bad", [[1], {"n": float("nan")}, {"o": object()}, {"x": "y" * 65_536}])
def test_what_cannot_be_a_checkpoint_is_refused(worker, ledger_database, bad):
    """And what was there before stays."""

    @worker.actor("work.do")
    def work():
        job = leveret.current_job()
        job.checkpoint({"page": 1})
        with pytest.raises(ValueError, match="checkpoint"):
            job.checkpoint(bad)
        worker.notes.append(job.checkpointed)

    worker.start(database_url=ledger_database)
    worker.records(worker.send("work.do"), "succeeded")
    assert worker.notes == [{"page": 1}]


def test_without_a_database_an_actor_is_told_so(worker):
    """By the name of the setting, or that it cannot be reached."""

    @worker.actor("work.do")
    def work():
        with pytest.raises(LeveretError) as caught:
            leveret.current_job().checkpoint({})
        worker.notes.append(caught.value)

    worker.start()
    worker.records(worker.send("work.do"), "succeeded")
    worker.stop()
    worker.start(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    worker.records(worker.send("work.do"), "succeeded")
    first, second = worker.notes
    assert isinstance(first, ConfigurationError)
    assert "LEVERET_DATABASE_URL" in str(first)
    assert isinstance(second, DatabaseUnavailable)
