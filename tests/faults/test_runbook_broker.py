"""docs/runbooks/broker.md, on a broker to which it has happened."""

from __future__ import annotations

from leveret import names
from leveret.errors import PublisherBlocked
from tests.support.runbooks import Page
from tests.support.sites import ACTORS
from tests.support.waiting import wait_until

PAGE = Page("broker")
WHEEL = names.wheel_queue(0, 3)


@PAGE.walks("LeveretQueueWithoutConsumers")
def test_a_queue_that_nobody_consumes_is_seen_and_served(site):
    """The row of the queue has no consumer; with a pool it has one, and becomes empty."""
    queue = names.work_queue("bulk")
    site.publish(queue="bulk", count=3)
    site.counted(queue, 3)
    recorder = site.start("recorder")
    site.start("worker-critical")
    recorder.wait_ready()
    site.wait_ready("worker-critical")
    with PAGE.section("LeveretQueueWithoutConsumers", site.console()) as section:
        queues, workers = section.run()
        assert queues.row(queue)["ready"] == "3"
        assert queues.row(queue)["consumers"] == "0"
        assert "bulk" not in workers
        (pods,) = section.run()
        assert "leveret-worker-critical" in pods
        assert "leveret-worker-bulk" not in pods
        section.run(QUEUE="bulk")
        site.wait_ready("worker-bulk")
        site.counted(queue, 0, consumers=1)
        queues, workers = section.run()
        assert queues.row(queue)["consumers"] == "1"
        assert queues.row(queue)["ready"] == "0"
        assert workers.row("bulk")


@PAGE.walks("LeveretDelayWheelStuck")
def test_what_the_wheel_cannot_hand_on_is_seen_and_freed(site):
    """An exchange is gone and a queue is full: each is named, and mended, and all jobs arrive."""
    broker, vhost, full = site.broker, site.broker.vhost, names.work_queue("default")
    # This queue of the wheel tries again each second, and not every ten.
    name = "dead_letter_worker_publisher_confirm_timeout"
    broker.control("eval", f"application:set_env(rabbit, {name}, 1000).")
    vhost.management.delete_queue(vhost.name, WHEEL)
    broker.declare(ACTORS)
    vhost.management.put_policy(
        vhost.name, "short", pattern=r"^leveret\.default$", definition={"max-length": 1}
    )
    try:
        site.publish(queue="default", count=2)
        vhost.management.delete("exchanges", vhost.name, names.DUE)
        site.publish(queue="default", count=2, delay=0.3)
        wait_until(
            lambda: (
                (vhost.management.queue(vhost.name, WHEEL) or {}).get("messages") == 2
                and not (vhost.management.queue(vhost.name, WHEEL) or {}).get("messages_ready")
            ),
            timeout=40,
            what="two jobs are due, and still in the wheel",
        )
        recorder = site.start("recorder").wait_ready()
        wait_until(lambda: recorder.metric("leveret_ledger_events_total") >= 4, timeout=40)
        with PAGE.section("LeveretDelayWheelStuck", site.console()) as section:
            check, wheel, policies, queues = section.run(
                may_fail=["leveret topology check"],
            )
            assert check.status == 1
            assert f"missing: exchange {names.DUE}" in check
            assert wheel.split() == [WHEEL, "2", "0"]
            assert '{"max-length":1}' in policies
            assert queues.row(full)["ready"] == "2"
            assert queues.row("(due,", "wheel)")["ready"] == "2"
            (late,) = section.run()
            assert late == []  # they are not late by a minute yet
            (applied,) = section.run()
            assert "stand" in applied
            broker.wait_until_kept(WHEEL)
            section.run(NAME="short", QUEUE="default")
            wait_until(lambda: site.waiting(full) == 4, timeout=60, what="all jobs have arrived")
            site.counted(WHEEL, 0)
            check, wheel = section.run()
            assert "as the table wants it" in check
            assert wheel == ""
    finally:
        vhost.management.delete_policy(vhost.name, "short")


@PAGE.walks("LeveretBrokerAlarm")
def test_alarms_are_named_and_ended(site, publisher):
    """Memory and disk: publishers are refused while they stand, and a job gets through after."""
    site.broker.control("set_vm_memory_high_watermark", "0.0000001")
    site.broker.control("set_disk_free_limit", "900000GB")

    def refused():
        try:
            publisher.publish("probe.run")
        except PublisherBlocked:
            return True
        return False

    try:
        wait_until(refused, timeout=30, what="publishers are refused")
        with PAGE.section("LeveretBrokerAlarm", site.console()) as section:
            alarms, status, longest, queues = section.run()
            assert "memory" in alarms.lower()
            assert "disk" in alarms.lower()
            assert "Free Disk Space" in status
            assert "Memory" in status
            assert len(longest.splitlines()) == 5
            assert queues.row("leveret.default")
            section.run()
            checked, published = section.run(ACTOR="probe.run", QUEUE="default")
            assert "no local alarms" in checked
            assert published.strip()
    finally:
        site.broker.control("set_vm_memory_high_watermark", "0.4")
        site.broker.control("set_disk_free_limit", "200MB")


@PAGE.walks("LeveretBrokerDiskLow")
def test_a_disk_that_becomes_full_is_seen_before_the_alarm(site):
    """The room that is left stands beside the limit, and the longest queue is named."""
    free = wait_until(
        lambda: site.broker.vhost.management.get("nodes")[0].get("disk_free"),
        timeout=60,
        every=0.2,
        what="the broker tells of its disk",
    )
    site.broker.control("set_disk_free_limit", str(int(free * 0.6)))
    site.publish(queue="bulk", count=3)
    site.counted(names.work_queue("bulk"), 3)
    try:
        with PAGE.section("LeveretBrokerDiskLow", site.console()) as section:
            status, longest = section.run()
            assert "Low free disk space watermark" in status
            assert "leveret.bulk" in longest or "leveret.ledger" in longest.splitlines()[0]
            section.run()
            (status,) = section.run()
            assert "Low free disk space watermark: 1.0 gb" in status
    finally:
        site.broker.control("set_disk_free_limit", "200MB")


@PAGE.walks("LeveretBrokerDown")
def test_a_broker_that_is_gone_is_seen_and_started(site):
    """A job of before is still there, and what waited for the broker goes on."""
    kept = site.publish(queue="bulk")
    relay = site.start("relay").wait_ready()
    site.broker.kill()
    wait_until(lambda: relay.get("/readyz")[0] == 503, timeout=40, what="the relay has noticed")
    site.restarts["statefulset/leveret-rabbitmq-server"] = site.broker.start
    with PAGE.section("LeveretBrokerDown", site.console()) as section:
        connectivity, check = section.run(
            may_fail=["rabbitmq-diagnostics", "leveret topology check"]
        )
        assert connectivity.status
        assert "unable to perform an operation on node" in connectivity
        assert check.status == 1
        assert "did not answer" in check
        section.run()
        relay.wait_ready()
        site.counted("leveret.bulk", 1)
        connectivity, check, queues = section.run()
        assert "Successfully connected" in connectivity
        assert "as the table wants it" in check
        assert queues.row("leveret.bulk")["ready"] == "1"
    assert kept


def test_the_whole_page_is_walked_through():
    """No command of it is without its proof."""
    assert PAGE.left_out() == []
