"""docs/runbooks/processes.md and index.md: a process that does not come up, and a first look."""

from __future__ import annotations

from tests.support.runbooks import Page
from tests.support.waiting import wait_until

PAGE = Page("processes")
INDEX = Page("index")


@PAGE.walks("LeveretProcessDown")
def test_a_process_that_ends_again_and_again_says_why(site):
    """A setting was changed for the worse: its last line names it, and taking it back mends it."""
    site.start("relay").wait_ready()
    site.kubectl(
        ["-n", "leveret", "set", "env", "deployment/leveret-relay", "LEVERET_MAX_BODY_BYTES=lots"]
    )
    relay = site.process("relay")
    wait_until(lambda: relay.process.poll() is not None, timeout=40, what="the relay ends")
    assert relay.process.returncode == 2
    with PAGE.section("LeveretProcessDown", site.console()) as section:
        pods, log = section.run(NAME="relay")
        assert "CrashLoopBackOff" in pods
        (line,) = log.strip().splitlines()
        assert "LEVERET_MAX_BODY_BYTES is 'lots'" in line
        alive, ready = section.run(may_fail=["curl"], HOST=site.address("relay"))
        assert alive.status == ready.status == 7
        section.run(NAME="relay")
        again = site.process("relay")
        wait_until(lambda: again.process.poll() is not None, timeout=40, what="it ends again")
        section.run(NAME="relay")
        site.wait_ready("relay")
        ready, queues, waits = section.run(HOST=site.address("relay"))
        assert '"ready": true' in ready
        assert queues.row("leveret.default")
        assert "the outbox is empty" in waits


@INDEX.walks("When nothing is known")
def test_a_first_look_tells_of_a_site_that_is_well(site):
    """The canary has come through, queues are empty and consumed, and the broker is in order."""
    for name in ("relay", "recorder", "scheduler", "worker-scheduled"):
        site.start(name)
    site.wait_ready("relay", "recorder", "scheduler", "worker-scheduled")
    console = site.console()
    wait_until(
        lambda: not console.shell("leveret schedules run leveret.beat").status,
        timeout=60,
        what="the canary is sent",
    )
    wait_until(
        lambda: site.process("scheduler").metric("leveret_canary_age_seconds") < 3600,
        timeout=60,
        what="the canary is back",
    )
    site.counted("leveret.scheduled", consumers=1)
    with INDEX.section("When nothing is known", console) as section:
        canary, queues, workers, waits, groups, check, alarms = section.run()
        assert "leveret.beat" in canary
        assert queues.row("leveret.scheduled")["consumers"] == "1"
        assert workers.row("scheduled")
        assert "the outbox is empty" in waits
        assert len(groups.splitlines()) <= 1
        assert "as the table wants it" in check
        assert "no alarms" in alarms


def test_both_pages_are_walked_through():
    """No command of them is without its proof."""
    assert PAGE.left_out() == []
    assert INDEX.left_out() == []
