"""The canary's way through every process, as operators see it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from leveret.housekeeping import BEAT
from leveret.housekeeping.actors import SHIPPED
from leveret.schedules import run
from leveret.store import engine
from tests.support.pools import WorkerPool
from tests.support.recorders import RecorderProcess, migrated
from tests.support.relays import RelayProcess
from tests.support.schedulers import SchedulerProcess, query
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.brokers import Vhost

ACTORS = {"LEVERET_ACTORS": "tests.support.faultjobs", "LEVERET_HOUSEKEEPING": "true"}


def _beat(url: str) -> str:
    """Send a canary now instead of at the next full minute; return its job's id."""
    made = engine(url, pool_size=1)
    try:
        with made.begin() as connection:
            return run.run(connection, BEAT, by="test").job_id
    finally:
        made.dispose()


def test_a_canary_is_timed_from_its_schedule_to_the_ledger(
    fresh_vhost: Vhost, fresh_database: str, tmp_path: Path
) -> None:
    """Its round trip and its age are in the scheduler's metrics; and stopping it takes both out."""
    url = migrated(fresh_database)
    fresh_vhost.declare({shipped.name: "scheduled" for shipped in SHIPPED})
    scheduler = SchedulerProcess(url, folder=tmp_path, **ACTORS)
    others = [
        RelayProcess(fresh_vhost, url, folder=tmp_path, LEVERET_DATABASE_URL=url),
        RecorderProcess(fresh_vhost.environment("recorder"), url, tmp_path),
    ]
    pool = WorkerPool(fresh_vhost.environment(), tmp_path, queues="scheduled", variables=ACTORS)
    try:
        scheduler.wait_ready()
        wait_until(
            lambda: query(url, "SELECT count(*) FROM schedules") == [(len(SHIPPED),)],
            timeout=30,
            what="the shipped schedules are there",
        )
        sent = _beat(url)
        wait_until(
            lambda: not math.isnan(scheduler.metric("leveret_canary_seconds")),
            timeout=60,
            what="the canary is timed",
        )
        seconds = scheduler.metric("leveret_canary_seconds")
        assert 0 < seconds < 60
        assert 0 <= scheduler.metric("leveret_canary_age_seconds") < 120
        state = query(url, "SELECT state FROM jobs WHERE id = %s", sent)
        assert state == [("succeeded",)]
        query(url, "UPDATE schedules SET paused_at = now(), paused_by = 'test'")
        wait_until(
            lambda: math.isnan(scheduler.metric("leveret_canary_age_seconds")),
            timeout=30,
            what="there is no canary",
        )
    finally:
        pool.kill_everything()
        for process in (scheduler, *others):
            process.kill()
