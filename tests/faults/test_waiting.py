"""Waiting for a job while the database dies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from leveret.message import new_id
from leveret.results import Watcher
from leveret.store import engine
from leveret.store.migrate import upgrade
from tests.support.ledgers import Ledger


def test_who_waits_gets_the_result_although_the_database_was_killed(private_postgres):
    """The crash empties the table of watches; whoever waits writes its own again."""
    server = private_postgres()
    url = server.url()
    owner = engine(url, pool_size=1)
    upgrade(owner)
    owner.dispose()
    ids = [new_id() for _ in range(3)]
    # No fallback: only the watches, written anew, can tell of the last job.
    with Watcher(url, fallback_seconds=3600) as watcher, ThreadPoolExecutor() as pool:
        waits = [pool.submit(watcher.result, job_id, 100) for job_id in ids]
        with Ledger(url) as ledger:
            ledger.wait_watched(*ids)
            ledger.write(ids[0], "succeeded", result=b"0")
            assert waits[0].result(30) == 0
            ledger.write(ids[1], "running")
        server.kill()
        server.start()
        with Ledger(url) as ledger:
            ledger.wait_watched(*ids[1:])
            ledger.write(ids[1], "succeeded", result=b"1")
            assert waits[1].result(30) == 1
            ledger.write(ids[2], "succeeded", result=b"2")
            assert waits[2].result(30) == 2
