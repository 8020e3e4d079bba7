"""docs/runbooks/ledger.md, on an outbox, a ledger and a database to which it has happened."""

from __future__ import annotations

from contextlib import ExitStack
from urllib.parse import urlsplit

import psycopg
import pytest

from leveret import names, outbox
from tests.support.prometheus import Prometheus, Target
from tests.support.recorders import migrated
from tests.support.runbooks import Page
from tests.support.waiting import wait_until

PAGE = Page("ledger")


def enqueue(url, count=1, **columns):
    """Commit jobs to the outbox; return their ids."""
    with psycopg.connect(url) as connection:
        return [
            outbox.enqueue(connection, "probe.run", {"n": n}, queue="bulk", **columns)
            for n in range(count)
        ]


def holding(stack, url, statement):
    """Leave a transaction open behind a statement, as somebody at a prompt does."""
    connection = psycopg.connect(url, application_name="psql")
    stack.callback(connection.close)
    connection.execute(statement)
    return connection.info.backend_pid


@PAGE.walks("LeveretOutboxStuck")
def test_jobs_that_nobody_publishes_are_freed(site):
    """The relay is dead, and somebody holds the rows: both are seen, both are mended."""
    relay = site.start("relay").wait_ready()
    site.crash("relay")
    jobs = enqueue(site.database, 3)
    with ExitStack() as stack:
        pid = holding(stack, site.database, "SELECT * FROM leveret_outbox FOR UPDATE")
        with PAGE.section("LeveretOutboxStuck", site.console()) as section:
            waits, check, alarms = section.run()
            assert [row["job"] for row in waits.table()] == jobs
            assert {row["state"] for row in waits.table()} == {"waiting"}
            assert "as the table wants it" in check
            assert "no alarms" in alarms
            pods, log = section.run()
            assert "CrashLoopBackOff" in pods
            assert "relay.starting" in log
            [[(found, application, state, _, query)]] = section.run()
            assert (found, application, state) == (pid, "psql", "idle in transaction")
            assert "FOR UPDATE" in query
            section.run()
            site.wait_ready("relay")
            assert site.process("relay") is not relay
            wait_until(lambda: site.process("relay").metric("leveret_outbox_pending") == 3)
            assert section.run(PID=pid) == [[(True,)]]
            site.counted(names.work_queue("bulk"), 3)
            (waits,) = section.run()
            assert "the outbox is empty" in waits


@PAGE.walks("LeveretOutboxFailed")
def test_jobs_that_cannot_be_published_are_mended_and_leave(site):
    """One is too large, one has a wrong queue: each says so, and leaves when it is mended."""
    relay = site.start("relay").wait_ready()
    with psycopg.connect(site.database) as connection:
        large = outbox.enqueue(
            connection,
            "probe.run",
            {"n": 1, "x": "y" * 2_000_000},
            queue="bulk",
            max_body_bytes=4_000_000,
        )
        wrong = outbox.enqueue(connection, "probe.run", {"n": 2}, queue="blk")
    wait_until(lambda: relay.metric("leveret_outbox_failed") == 2, timeout=40, what="both failed")
    with PAGE.section("LeveretOutboxFailed", site.console()) as section:
        (failed,) = section.run()
        assert "1048576 are the limit" in failed.row(large)["error"]
        assert "ACCESS_REFUSED" in failed.row(wrong)["error"]
        section.run()
        site.wait_ready("relay")
        [[(actor, queue, _)]] = section.run(QUEUE="bulk", JOB=wrong)
        assert (actor, queue) == ("probe.run", "bulk")
        (tried,) = section.run()
        assert tried.startswith("2 jobs")
        site.counted(names.work_queue("bulk"), 2)
        (failed,) = section.run()
        assert "nothing failed" in failed


@PAGE.walks("LeveretLedgerLagging")
def test_a_ledger_that_is_behind_is_seen_and_caught_up(site):
    """The recorder is dead, and somebody holds its table: both are seen, both are mended."""
    site.start("recorder").wait_ready()
    site.crash("recorder")
    jobs = site.publish(queue="bulk", count=3)
    site.counted(names.LEDGER, 3, consumers=0)
    with ExitStack() as stack:
        pid = holding(stack, site.database, "LOCK TABLE jobs IN EXCLUSIVE MODE")
        with PAGE.section("LeveretLedgerLagging", site.console()) as section:
            (queues,) = section.run()
            assert queues.row(names.LEDGER)["ready"] == "3"
            assert queues.row(names.LEDGER)["consumers"] == "0"
            pods, log = section.run()
            assert "CrashLoopBackOff" in pods
            assert "recorder.starting" in log
            [[(found, application, state, *_)]] = section.run()
            assert (found, application, state) == (pid, "psql", "idle in transaction")
            section.run()
            site.process("recorder").wait_ready("/livez")
            assert section.run(PID=pid) == [[(True,)]]
            site.wait_ready("recorder")
            site.counted(names.LEDGER, 0, consumers=1)
            queues, listed = section.run()
            assert queues.row(names.LEDGER)["consumers"] == "1"
            assert {row["id"] for row in listed.table()} == set(jobs)


@PAGE.walks("LeveretLedgerNearItsBound")
def test_a_ledger_that_fills_up_is_given_room_and_read(site, tmp_path):
    """It is more than half full; nothing is shed, and the audit holds in the end."""
    vhost = site.broker.vhost
    port = urlsplit(site.broker.node.prometheus_url).port
    jobs = site.publish(queue="bulk", count=30)
    site.counted(names.LEDGER, 30, consumers=0)
    site.counted(names.work_queue("bulk"), 30)
    # Bodies alone, or with their properties: that depends on the broker.
    bound = int(1.5 * vhost.management.queue(vhost.name, names.LEDGER)["message_bytes"])
    policy = {"pattern": r"^leveret\.ledger$", "definition": {"max-length-bytes": bound}}
    vhost.management.put_policy(vhost.name, "leveret-ledger", **policy)
    with (
        Prometheus(tmp_path, [Target.broker(port)], rules=()) as seen,
        PAGE.section("LeveretLedgerNearItsBound", site.console(seen)) as section,
    ):
        seen.wait_scraped(1)
        [[size]] = section.run()
        assert bound / 2 < size.value < bound
        policies, queues = section.run()
        assert f'"max-length-bytes":{bound}' in policies
        assert queues.row(names.LEDGER)["consumers"] == "0"
        section.run()
        site.publish(queue="bulk", count=30)
        section.run()
        site.wait_ready("recorder")
        site.counted(names.LEDGER, 0, consumers=1)
        site.counted(names.work_queue("bulk"), 60)
        queues, audit = section.run()
        assert queues.row(names.LEDGER)["consumers"] == "1"
        assert audit.startswith("60 published = 60 live")
    assert len(jobs) == 30


@pytest.fixture
def server(private_postgres):
    """Return a database server of a test's own."""
    return private_postgres()


@PAGE.walks("LeveretDatabaseDown")
def test_a_database_that_is_gone_is_seen_and_found_again(site_on, server):
    """What was published meanwhile is in the ledger when it is back; nothing was restarted."""
    site = site_on(migrated(server.url()))
    recorder = site.start("recorder").wait_ready()
    server.kill()
    jobs = site.publish(queue="bulk", count=2)
    wait_until(lambda: recorder.get("/readyz")[0] == 503, timeout=40, what="it is not ready")
    with PAGE.section("LeveretDatabaseDown", site.console()) as section:
        listed, settings, ready = section.run(
            may_fail=["leveret jobs", "curl"], HOST=site.address("recorder")
        )
        assert listed.status == 1
        assert "no connection to the database" in listed
        assert "refused" in listed
        assert "postgresql://postgres:***@" in settings
        assert ready.status
        assert '"ready": false' in ready
        (log,) = section.run()
        assert "ledger.database_away" in log
        server.start()
        recorder.wait_ready()
        site.counted(names.LEDGER, 0, consumers=1)
        listed, waits, ready = section.run(HOST=site.address("recorder"))
        assert listed.table()[0]["id"] in jobs
        assert "the outbox is empty" in waits
        assert '"ready": true' in ready


def _connected(url, application):
    """Count the connections of an application."""
    counted = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    with psycopg.connect(url) as connection:
        [(count,)] = connection.execute(counted, (application,)).fetchall()
    return count


@PAGE.walks("LeveretDatabaseConnectionsShort")
def test_connections_that_leak_are_found_and_ended(site_on, server):
    """A program has taken all of them: a relay cannot start, and does when they are ended."""
    url = migrated(server.url())
    password = "not-a-secret"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_connections = 20")
        connection.execute(f"CREATE ROLE app LOGIN PASSWORD '{password}' IN ROLE pg_read_all_data")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
    server.restart()
    theirs = server.url(user="app", password=password)
    site = site_on(url)
    with ExitStack() as stack:
        leaked = 0
        while leaked < 100:
            try:
                made = psycopg.connect(theirs, application_name="shop", autocommit=True)
            except psycopg.OperationalError:
                break
            stack.callback(made.close)
            leaked += 1
        assert leaked == 17
        refused = site.console(LEVERET_DATABASE_URL=theirs)
        assert "reserved" in refused.shell("leveret outbox list")
        with PAGE.section("LeveretDatabaseConnectionsShort", site.console()) as section:
            [[(taken, allowed, kept)]] = section.run()
            assert (taken, allowed, kept) == (18, 20, 3)
            [[(user, application, state, count, _), *_]] = section.run()
            assert (user, application, state, count) == ("app", "shop", "idle", leaked)
            assert section.run(NAME="shop") == [[(leaked,)]]
            wait_until(lambda: _connected(url, "shop") == 0, timeout=20, what="they have ended")
            [[(taken, _)]] = section.run()
            assert taken <= 3
            section.console = refused
            (waits,) = section.run()
            assert "the outbox is empty" in waits


def test_the_whole_page_is_walked_through():
    """No command of it is without its proof."""
    assert PAGE.left_out() == []
