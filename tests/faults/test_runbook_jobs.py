"""The runbook of jobs, run against what it is about: backlogs, retry storms, crashing workers."""

from __future__ import annotations

import pytest

from tests.support.prometheus import Prometheus, Target
from tests.support.runbooks import Page

pytestmark = pytest.mark.timeout(300)

PAGE = Page("jobs")
#: How many jobs are in each case.
BACKLOG, INVOICES, CODES = 600, 20, 5


def reports(count):
    """Return jobs that build reports."""
    return [("report.build", {"month": n + 1}) for n in range(count)]


def mails(actor, count):
    """Return jobs that need the mail server."""
    return [(actor, {"number": n + 1}) for n in range(count)]


def drained(shop, **states):
    """Return when all jobs have ended so, and the broker's statistics know it."""
    shop.wait_states(**states)
    for queue in ("default", "bulk", "quarantine.bulk"):
        shop.wait_queue(f"leveret.{queue}", messages=0)


@PAGE.walks("LeveretQueueTimeBudgetBurning")
def test_what_keeps_the_threads_of_a_pool_busy_is_found(shop):
    """One long job holds the only thread and the reports wait; with more threads they do not."""
    shop.pool("bulk", threads=1)
    (long,) = shop.publish([("report.build", {"month": 0})])
    shop.ledger.wait(long, "running")
    shop.publish(reports(30))
    shop.wait_queue("leveret.bulk", messages=31)
    shop.ledger.wait_value(1, "SELECT cardinality(running) FROM workers")
    console = shop.console(kubectl=shop.kubectl())
    with PAGE.section("LeveretQueueTimeBudgetBurning", console) as section:
        queues, workers, running = section.run(QUEUE="bulk")
        bulk = queues.row("leveret.bulk")
        assert (int(bulk["ready"]) + int(bulk["unacked"]), bulk["consumers"]) == (31, "1")
        assert bulk["oldest"].endswith(" ago")
        (worker,) = workers.table()
        assert (worker["queues"], worker["threads"], worker["running"]) == ("bulk", "1", "1")
        (job,) = running.table()
        assert (job["id"], job["actor"]) == (long, "report.build")
        spent = section.next(QUEUE="bulk")
        assert section.run(QUEUE="bulk") == [[]]  # nothing has ended yet
        assert section.run(QUEUE="bulk") == ["deployment.apps/leveret-worker-bulk scaled\n"]
        shop.gate.touch()
        drained(shop, succeeded=31)
        (queues,) = section.run()
        assert queues.row("leveret.bulk")["oldest"] == "-"
    ((actor, jobs, seconds, longest),) = console.sql(spent)
    assert (actor, jobs) == ("report.build", 31)
    assert longest < seconds  # the one was long, and 30 others took their moment each


@PAGE.walks("LeveretBacklogNotDraining", "Walk-through: a backlog")
def test_a_pool_that_is_gone_is_found_and_started(shop):
    """The queue has no consumer; who publishes into it is told; with workers all of it drains."""
    shop.pool("bulk")
    shop.ledger.wait_value(1, "SELECT count(*) FROM workers")
    shop.stop_pools()
    unwanted, *_ = shop.publish(reports(BACKLOG))
    shop.wait_queue("leveret.bulk", messages_ready=BACKLOG, consumers=0)
    # The first pod alone would take a minute; the broker needs seconds to tell how fast it is.
    console = shop.console(kubectl=shop.kubectl(first=1))
    with (
        PAGE.section("LeveretBacklogNotDraining", console) as section,
        PAGE.section("Walk-through: a backlog", console) as story,
    ):
        queues, workers, running = section.run(QUEUE="bulk")
        assert running.table() == []
        bulk = queues.row("leveret.bulk")
        assert (bulk["ready"], bulk["consumers"]) == (str(BACKLOG), "0")
        assert bulk["empty in"] == "never"
        assert [worker["queues"] for worker in workers.table()] == ["bulk"]
        ((actor, publisher, jobs, _oldest),) = section.run(QUEUE="bulk")[0]
        assert (actor, publisher, jobs) == ("report.build", "shop", BACKLOG)
        (cancelled,) = section.run(JOB=unwanted)
        assert "no worker starts it any more" in cancelled
        queues, workers = story.run()
        assert queues.row("leveret.bulk")["consumers"] == "0"

        story.run()
        shop.wait_shrinking("leveret.bulk")
        (queues,) = story.run()
        assert queues.row("leveret.bulk")["consumers"] == "1"
        section.run(QUEUE="bulk")
        story.run()
        shop.wait_queue("leveret.bulk", consumers=3)
        (queues,) = story.run()
        assert queues.row("leveret.bulk")["consumers"] == "3"

        drained(shop, succeeded=BACKLOG - 1, cancelled=1)
        waiting, audit = story.run()
        assert waiting.table() == []
        assert "every job is accounted for" in audit
        queues, audit = section.run()
        bulk = queues.row("leveret.bulk")
        assert (bulk["ready"], bulk["empty in"]) == ("0", "-")
        assert "every job is accounted for" in audit


@PAGE.walks("LeveretRetryStorm", "Walk-through: a retry storm")
def test_a_retry_storm_is_found_and_ended(shop):
    """The mail server is down: what fails of it is told, waits safely, and comes through later."""
    shop.pool("default")
    codes = shop.publish(mails("code.send", CODES))  # these have one attempt
    invoices = shop.publish(mails("invoice.send", INVOICES))
    shop.wait_states(retrying=INVOICES, dead=CODES)
    shop.ledger.wait_value(CODES, "SELECT count(*) FROM dead_letters")
    shop.wait_queue("leveret.default", consumers=1)
    console = shop.console(kubectl=shop.kubectl())
    with (
        PAGE.section("LeveretRetryStorm", console) as section,
        PAGE.section("Walk-through: a retry storm", console) as story,
    ):
        for errors, *others in (story.run(), section.run(JOB=invoices[0])):
            (storm,) = errors.table()
            assert (storm["actor"], storm["queue"]) == ("invoice.send", "default")
            assert 0 < int(storm["jobs"]) <= INVOICES  # some may just be tried
            assert "MailServerError: the mail server does not take invoice" in storm["error"]
            assert others[-1].row("leveret.default")["consumers"] == "1"
        shown, groups = others[:2]
        assert "httpx.ConnectError" in shown
        (shown,) = story.run(JOB=invoices[0])
        assert "retrying" in shown
        for (dead,) in (groups.table(), story.run()[0].table()):
            assert (dead["actor"], dead["reason"]) == ("code.send", "exhausted")
            assert dead["open"] == str(CODES)

        story.run()
        assert not shop.pools
        section.run(QUEUE="default")  # there is nothing left to stop
        shop.wait_states(retrying=INVOICES)
        tried = shop.ledger.value("SELECT sum(attempt) FROM jobs")
        shop.wait_queue("leveret.default", messages_ready=INVOICES, timeout=90)
        (queues,) = story.run()
        assert queues.row("leveret.default")["ready"] == str(INVOICES)
        assert shop.ledger.value("SELECT sum(attempt) FROM jobs") == tried

        shop.mail.start()
        story.run()
        section.run(QUEUE="default")  # it runs
        shop.wait_states(succeeded=INVOICES, dead=CODES)
        assert story.run()[0].table() == []
        (replayed,) = story.run()
        assert f"{CODES} of {CODES} published" in replayed
        assert f"{CODES} succeeded" in replayed
        (nothing,) = section.run(may_fail=["leveret dead replay"], ACTOR="code.send")
        assert "no open dead letter matches" in nothing
        drained(shop, succeeded=INVOICES + CODES)
        for well, audit in (section.run(), story.run()):
            assert well.table() == []
            assert "every job is accounted for" in audit
    assert len(shop.mail.taken) == INVOICES + CODES
    assert {shop.ledger.job(job_id)["run"] for job_id in codes} == {1}


@PAGE.walks("LeveretWorkersCrashing")
def test_a_job_that_kills_its_workers_is_found(shop, tmp_path):
    """It is taken out of service by itself, shown with its arguments, and set aside."""
    pool = shop.pool("bulk", threads=2)
    with Prometheus(tmp_path, [Target(pool.port)], rules=()) as prometheus:
        (killer, *_) = shop.publish([("picture.shrink", {"picture": "poster.tiff"}), *reports(10)])
        shop.ledger.wait(killer, "dead", timeout=90)
        shop.ledger.wait_value(1, "SELECT count(*) FROM dead_letters")
        (letter,) = shop.ledger.rows("SELECT id, reason FROM dead_letters")
        assert letter["reason"] == "worker-killed"
        with PAGE.section("LeveretWorkersCrashing", shop.console(prometheus)) as section:
            drained(shop, succeeded=10, dead=1)
            workers, dead, queues = section.run()
            assert len(workers.table()) >= 2
            (found,) = dead.table()
            assert (found["job"], found["actor"]) == (killer, "picture.shrink")
            assert queues.row("leveret.quarantine.bulk")["ready"] == "0"
            (suspect, *neighbours) = section.run()[0]
            assert suspect[:3] == (killer, "picture.shrink", "dead")
            assert {state for _, _, state, _ in neighbours} <= {"succeeded"}
            (shown,) = section.run(LETTER=letter["id"])
            assert '"picture": "poster.tiff"' in shown
            assert section.run(LETTER=letter["id"]) == ["1 dead letter discarded\n"]
            prometheus.wait("count_over_time(leveret_worker_restarts_total[1m]) > 2")
            ((restarts,),) = section.run()
            assert restarts.value >= 0
            (audit,) = section.run()
            assert "every job is accounted for" in audit
    assert pool.metric("leveret_worker_restarts_total") >= 2


def test_each_block_of_the_page_is_run():
    """A command of a runbook without a test is a hope."""
    assert PAGE.left_out() == []
