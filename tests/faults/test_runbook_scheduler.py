"""docs/runbooks/scheduler.md, on schedulers, workers and databases to which it has happened."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, timedelta

import psycopg
import pytest

from leveret.schedules import store
from leveret.schedules.definition import Definition
from leveret.schedules.trigger import Every
from leveret.store import engine
from tests.support.databases import temporary_database
from tests.support.prometheus import Prometheus
from tests.support.proxies import TcpProxy
from tests.support.recorders import migrated
from tests.support.runbooks import Page
from tests.support.schedulers import query
from tests.support.waiting import wait_until

PAGE = Page("scheduler")
BEAT = "leveret.beat"
#: A schedule that has been there for ten minutes, and has skipped what it should have fired.
SLOTS = """
UPDATE schedules SET since = now() - interval '10 min', last_slot = date_trunc('minute', now())
WHERE name = 'hourly';
INSERT INTO schedule_slots (schedule, slot, due_at, fired_at, outcome)
SELECT 'hourly', at, at, at, 'skipped'
FROM generate_series(date_trunc('minute', now()) - interval '10 min', date_trunc('minute', now()),
    '1 min') AS at
WHERE at NOT BETWEEN now() - interval '5 min' AND now() - interval '3 min';
"""


@pytest.fixture
def ticking(site):
    """Return the site with a schedule that has a slot each second, and a scheduler that leads."""
    done = site.console().shell(
        "leveret schedules add tick --actor probe.run --queue bulk --every 1s --missed skip"
    )
    assert not done.status, done
    site.start("scheduler", LEVERET_HOUSEKEEPING="false")
    site.wait_ready("scheduler")
    wait_until(lambda: fired(site), timeout=60, what="a slot has fired")
    return site


def fired(site):
    """Return how many slots were fired."""
    return query(site.database, "SELECT count(*) FROM schedule_slots WHERE outcome = 'fired'")[0][0]


def leads(scheduler):
    """Tell whether a process has the lease, as it says."""
    return scheduler.metric("leveret_scheduler_is_leader") == 1


def beats(site):
    """Return the jobs of the canary, the latest first."""
    rows = query(
        site.database,
        "SELECT job_id FROM schedule_slots WHERE schedule = %s AND outcome = 'fired'"
        " ORDER BY slot DESC",
        BEAT,
    )
    return [job for (job,) in rows]


@PAGE.walks("", "LeveretCanaryMissing", "LeveretCanarySlow", "LeveretSchedulerNoLeader")
def test_a_canary_that_does_not_come_back_is_followed_to_where_it_stopped(site):
    """First nobody works, then one long job is before it, then nobody sends it."""
    for name in ("scheduler", "relay", "recorder"):
        site.start(name)
    site.wait_ready("scheduler", "relay", "recorder")
    console = site.console()
    # The lease, as at the top of the page.
    wait_until(lambda: leads(site.process("scheduler")), timeout=40, what="a scheduler leads")
    with PAGE.section("", console) as section:
        [[(holder, epoch, _, valid)]] = section.run()
        assert holder
        assert epoch >= 1
        assert valid
    # No worker.
    assert not console.shell(f"leveret schedules run {BEAT}").status
    (job, *_) = wait_until(lambda: beats(site), timeout=40, what="a canary was sent")
    wait_until(lambda: site.messages("leveret.scheduled"), timeout=60, what="it is counted")
    wait_until(
        lambda: query(site.database, "SELECT 1 FROM jobs WHERE id = %s", job),
        timeout=40,
        what="the ledger knows the canary",
    )
    with PAGE.section("LeveretCanaryMissing", console) as section:
        shown, history, waits, queues, detail, workers, groups = section.run(JOB=job)
        assert BEAT in shown
        assert "fired" in [slot["outcome"] for slot in history.table()]  # not alone at a minute
        assert "the outbox is empty" in waits
        assert queues.row("leveret.scheduled")["consumers"] == "0"
        assert int(queues.row("leveret.scheduled")["ready"]) >= 1
        assert "queued" in detail
        assert "scheduled" not in workers
        assert len(groups.splitlines()) <= 1
        section.run(NAME="worker-scheduled")
        site.wait_ready("worker-scheduled")
        section.run()
        wait_until(
            lambda: query(
                site.database, "SELECT 1 FROM jobs WHERE id = %s AND state = 'succeeded'", job
            ),
            timeout=60,
            what="the canary is back",
        )
        (listed,) = section.run()
        assert "succeeded" in listed
    # One long job, and one thread.
    (long,) = site.publish("probe.hold", queue="scheduled")
    wait_until(
        lambda: query(
            site.database, "SELECT 1 FROM jobs WHERE id = %s AND state = 'running'", long
        ),
        timeout=60,
        what="a long job runs",
    )
    with PAGE.section("LeveretCanarySlow", console) as section:
        _, running = section.run()
        assert running.row(long)["actor"] == "probe.hold"
        section.run()
        site.wait_ready("worker-scheduled")
        # Some of them may wait behind the long job: its worker has taken them already.
        sent = site.publish(BEAT, 8, queue="scheduled", arguments={})
        ended = "SELECT count(*) FROM jobs WHERE id = ANY (%s) AND state = 'succeeded'"
        wait_until(
            lambda: query(site.database, ended, sent)[0][0],
            timeout=60,
            what="a canary passes the long job",
        )
        site.counted("leveret.scheduled", consumers=2)
        queues, listed = section.run()
        assert queues.row("leveret.scheduled")["consumers"] == "2"
        assert "succeeded" in listed
    # No scheduler.
    scheduler = site.process("scheduler")
    site.crash("scheduler")
    with PAGE.section("LeveretSchedulerNoLeader", console) as section:
        pods, log = section.run()
        assert "CrashLoopBackOff" in pods
        assert "scheduler." in log
        (ready,) = section.run(may_fail=["curl"], HOST=site.address("scheduler"))
        assert ready.status == 7
        section.run()
        assert site.process("scheduler") is not scheduler
        wait_until(lambda: leads(site.process("scheduler")), timeout=60, what="another leads")
        _, planned = section.run(NAME=BEAT, TIME="10m")
        assert "to publish" in planned


@PAGE.walks("LeveretSchedulesLate", "LeveretScheduleSlotsMissed")
def test_slots_that_are_late_or_missed_are_named_and_made_good(ticking):
    """A lock keeps them from firing; then no scheduler is there, and they are skipped."""
    site, console = ticking, ticking.console()
    with closing(psycopg.connect(site.database, application_name="psql")) as holder:
        holder.execute("LOCK TABLE leveret_outbox IN EXCLUSIVE MODE")
        pid = holder.info.backend_pid
        wait_until(
            lambda: query(
                site.database,
                "SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))",
                pid,
            ),
            timeout=40,
            what="the scheduler is blocked",
        )
        with PAGE.section("LeveretSchedulesLate", console) as section:
            [rows] = section.run()
            (held,) = [row for row in rows if row[0] == pid]
            assert (held[1], held[4]) == ("psql", "idle in transaction")
            # The scheduler gives up after a while and tries again, so it may not be there just now.
            assert {row[1] for row in rows if pid in row[5]} <= {"leveret-scheduler-fire"}
            before = fired(site)
            assert section.run(PID=pid) == [[(True,)]]
            wait_until(lambda: fired(site) > before, timeout=60, what="slots fire again")
            (history,) = section.run(NAME="tick")
            assert "fired" in {row["outcome"] for row in history.table()}
    site.kill("scheduler")
    begin = query(site.database, "SELECT clock_timestamp()")[0][0]
    wait_until(
        lambda: (
            query(site.database, "SELECT clock_timestamp()")[0][0] > begin + timedelta(seconds=5)
        ),
        timeout=40,
        what="slots have passed",
    )
    # What is late by less than three terms is fired all the same.
    site.start("scheduler", LEVERET_HOUSEKEEPING="false", LEVERET_SCHEDULER_LEASE="1")
    skipped = "SELECT 1 FROM schedule_slots WHERE schedule = 'tick' AND outcome = 'skipped'"
    wait_until(lambda: query(site.database, skipped), timeout=60, what="slots were skipped")
    with PAGE.section("LeveretScheduleSlotsMissed", console) as section:
        (history,) = section.run(NAME="tick")
        assert {row["outcome"] for row in history.table()} == {"skipped (missed)"}
        planned, published = section.run(NAME="tick", TIME=begin.astimezone(UTC).isoformat())
        assert planned.strip()
        assert published.strip()
        (left,) = section.run(NAME="tick")
        assert len(left.splitlines()) < len(history.splitlines())


@PAGE.walks("LeveretScheduleGaps")
def test_slots_that_are_lost_are_named_and_fired(site):
    """Two rows are gone, as after a restored backup: the audit names both, and makes them good."""
    made = engine(site.database, pool_size=1)
    with made.begin() as connection:
        definition = Definition(
            name="hourly", actor="probe.run", trigger=Every(timedelta(minutes=1))
        )
        store.create(connection, definition, origin="api", by="test")
    made.dispose()
    query(site.database, SLOTS)
    console = site.console(LEVERET_HOUSEKEEPING="true")
    site.start("recorder").wait_ready()
    with PAGE.section("LeveretScheduleGaps", console) as section:
        (named,) = section.run(may_fail=["leveret audit"])
        assert named.status == 1
        assert named.count("schedule-gap") == 2
        (repaired,) = section.run()
        assert repaired.count("done") >= 1
        site.start("relay").wait_ready()
        site.start("scheduler").wait_ready()
        settled, _ = section.run()
        assert "schedule-gap" not in settled


@PAGE.walks("LeveretSchedulerTwoLeaders")
def test_two_leaders_are_told_apart_by_their_databases(site, checkout, tmp_path):
    """One of them has another database; started anew with the same, one leads."""
    with (
        temporary_database(checkout, "other") as other,
        Prometheus(tmp_path, rules=()) as prometheus,
    ):
        right = site.start("scheduler")
        wrong = site.start("scheduler", LEVERET_DATABASE_URL=migrated(other))
        for scheduler in (right, wrong):
            scheduler.wait_ready()
        prometheus.scrape(site.targets("scheduler"))
        prometheus.wait("sum(leveret_scheduler_is_leader) == 2")
        with PAGE.section("LeveretSchedulerTwoLeaders", site.console(prometheus)) as section:
            [leaders] = section.run()
            assert len(leaders) == 2
            [[(holder, _, valid)]] = section.run()
            assert valid
            assert f"-{right.process.pid}-" in holder or str(right.process.pid) in holder
            (settings,) = section.run()
            assert site.database.rpartition("/")[2] in settings
            section.run()
            site.wait_ready("scheduler")
            now = site.targets("scheduler")
            prometheus.scrape(now)
            these = "|".join(f".*:{target.port}" for target in now)
            prometheus.wait(
                f'sum(leveret_scheduler_is_leader{{instance=~"{these}"}}) == 1 and count(up) == 2'
                f' and count(up{{instance=~"{these}"}} == 1) == 2'
            )
            [[led]] = section.run()
            assert led.value == 1
        site.kill("scheduler")


@PAGE.walks("LeveretSchedulerLeaseNotRenewed")
def test_a_lease_that_is_not_renewed_says_why_and_rides_out_stalls(site, tmp_path):
    """The way to the database stalls; a longer term is what helps where that is usual."""
    with TcpProxy.before(site.database) as proxy, Prometheus(tmp_path, rules=()) as prometheus:
        scheduler = site.start("scheduler", LEVERET_DATABASE_URL=proxy.through(site.database))
        wait_until(lambda: scheduler.is_ready() and leads(scheduler), timeout=60, what="it leads")
        prometheus.scrape(site.targets("scheduler"))
        prometheus.wait('sum(leveret_scheduler_lease_renewals_total{outcome="renewed"}) > 0')
        proxy.stall()
        prometheus.wait('sum(leveret_scheduler_lease_renewals_total{outcome="failed"}) > 0')
        proxy.resume()
        with PAGE.section("LeveretSchedulerLeaseNotRenewed", site.console(prometheus)) as section:
            [outcomes] = section.run()
            assert {sample.labels["outcome"] for sample in outcomes} >= {"renewed", "failed"}
            (log,) = section.run()
            assert "lease" in log
            section.run()
            again = site.process("scheduler")
            wait_until(lambda: again.is_ready() and leads(again), timeout=60, what="it leads")
            prometheus.scrape(site.targets("scheduler"))
            prometheus.wait("max(leveret_scheduler_lease_seconds) == 30")
            [[share]] = section.run()
            assert share.value > 1 / 3
        site.kill("scheduler")


def test_the_whole_page_is_walked_through():
    """No command of it is without its proof."""
    assert PAGE.left_out() == []
