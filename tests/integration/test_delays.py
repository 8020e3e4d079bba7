"""Delayed jobs on a real broker: never early, in order, and never lost (P4)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pika
import pytest

import leveret
from leveret import Backoff, wheel
from leveret.errors import InvalidJob
from leveret.message import new_id
from leveret.names import DELAY
from tests.support.waiting import wait_until


@pytest.fixture
def running(worker):
    """Return a running worker whose actor notes when it ran."""

    @worker.actor("work.do", backoff=Backoff(base=timedelta(0), cap=timedelta(0)))
    def do(n: int, *, fails: int = 0):
        worker.notes.append((n, time.time()))
        if leveret.current_job().attempt <= fails:
            raise ValueError(n)

    for digit in range(wheel.DIGITS):
        for value in range(1, wheel.RADIX):
            worker.channel.queue_purge(f"leveret.delay.{digit}.{value:x}")
    worker.start(threads=2)
    return worker


def test_no_delayed_job_is_early_and_none_is_lost(running):
    """Two hundred random moments within four seconds, given as delays and as times."""
    begin = time.time()
    wanted = {}
    for n in range(200):
        seconds = (n * 37 % 200) / 50
        if n % 2:
            receipt = running.publisher.publish("work.do", {"n": n}, queue="default", delay=seconds)
            wanted[n] = time.time() - 0.05 + seconds  # its clock started a moment before
        else:
            at = datetime.fromtimestamp(begin + seconds, UTC)
            receipt = running.publisher.publish("work.do", {"n": n}, queue="default", at=at)
            wanted[n] = at.timestamp()
        receipt.wait()
    notes = running.noted(200, timeout=30)
    assert sorted(n for n, _ in notes) == list(range(200))
    early = {n: wanted[n] - at for n, at in notes if at < wanted[n]}
    assert not early
    late = sorted(at - wanted[n] for n, at in notes)
    assert late[len(late) // 2] < 1.0


def test_jobs_with_clearly_different_delays_come_in_their_order(running):
    """A second apart is more than the wheel's unit and a hop."""
    for n, seconds in ((3, 2.4), (1, 0.2), (2, 1.3)):
        running.send("work.do", {"n": n}, delay=seconds)
    assert [n for n, _ in running.noted(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "when",
    [
        {"delay": 0},
        {"delay": timedelta(0)},
        {"at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"at": datetime(1, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
def test_no_delay_and_a_time_in_the_past_mean_now(running, when):
    """They do not pass through the wheel."""
    running.send("work.do", {"n": 1}, **when)
    running.noted(1)


def test_a_delay_of_all_zeros_goes_straight_to_its_queue(running):
    """As another client may write it."""
    running.raw(b'{"n": 4}', exchange=DELAY, key="0.0.0.0.0.0.0.default.work.do")
    assert running.noted(1)[0][0] == 4


@pytest.mark.parametrize("key", ["default.work.do", "g.0.0.0.0.0.1.default.work.do", "1.default.x"])
def test_a_key_without_seven_digits_is_refused_on_the_delay_exchange(running, key):
    """By the broker, since the publisher's permission says what such a key looks like."""
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
        running.raw(b"{}", exchange=DELAY, key=key)


def test_the_longest_delay_waits_in_the_last_queues(running):
    """310 days fit, and a second more does not."""
    job = running.send("work.do", {"n": 1}, delay=wheel.HORIZON - timedelta(hours=1))
    letter = running.letters(queue="leveret.delay.6.f")[0]
    assert letter.properties.message_id == job
    with pytest.raises(InvalidJob, match="horizon"):
        running.send("work.do", {"n": 1}, delay=wheel.HORIZON + timedelta(seconds=5))


@pytest.mark.parametrize("milliseconds", [0, 1, 300])
def test_an_expiration_shorter_than_the_delay_expires_the_job_and_never_runs_it(
    running, milliseconds
):
    """The broker lets go of it early; the worker sees why, and does not run it."""
    running.raw(
        b'{"n": 1}',
        exchange=DELAY,
        key="0.0.0.0.0.0.f.default.work.do",
        type="work.do",
        message_id="short",
        expiration=str(milliseconds),
    )
    letter = running.letters()[0]
    assert (letter.reason, letter.properties.message_id) == ("expired", "short")
    assert running.records("short", "expired")
    assert running.notes == []


def test_an_expiration_between_two_hops_expires_the_job_too(running):
    """It outlives the first queue and not the second."""
    running.raw(
        b'{"n": 1}',
        exchange=DELAY,
        key="0.0.0.0.0.1.5.default.work.do",
        type="work.do",
        expiration="900",
    )
    assert running.letters()[0].reason == "expired"
    assert running.notes == []


def test_an_expiration_longer_than_the_delay_is_harmless(running):
    """The job is due before it would expire."""
    begin = time.time()
    running.raw(
        b'{"n": 1}',
        exchange=DELAY,
        key="0.0.0.0.0.0.4.default.work.do",
        type="work.do",
        expiration="60000",
    )
    ((_, at),) = running.noted(1)
    assert at - begin >= 0.4


def test_retries_wait_in_the_wheel_and_come_back_every_time(worker):
    """Trips of one job through the same two queues: no cycle is suspected, none is early.

    With the `x-death` of the trip before, the broker would drop the second one without a word.
    """
    two_hops = Backoff(base=timedelta(seconds=1.7), cap=timedelta(seconds=1.7), jitter=False)

    @worker.actor("work.fail", backoff=two_hops)
    def fail():
        worker.notes.append(time.time())
        if len(worker.notes) < 3:
            raise ValueError

    worker.start()
    worker.records(worker.send("work.fail"), "succeeded")
    waits = [later - sooner for sooner, later in pairwise(worker.notes)]
    assert len(waits) == 2
    assert min(waits) >= 1.69


def test_a_delayed_job_that_fails_is_retried_after_its_trips(running):
    """The delay's own deaths are taken off the copy."""
    job = running.send("work.do", {"n": 1, "fails": 2}, delay=0.3)
    running.records(job, "succeeded")
    assert len(running.notes) == 3


def test_a_delayed_job_with_an_odd_key_is_kept(running):
    """The broker holds it, lets go of it, and parks it where nobody is bound."""
    running.raw(
        b"{}",
        exchange=DELAY,
        key="0.0.0.0.0.0.1.elsewhere.work.do",
        message_id="odd",
        role="owner",
    )
    assert running.letters(queue="leveret.unroutable")[0].properties.message_id == "odd"


def test_three_thousand_due_at_one_moment_all_come(running):
    """A crowd in one queue of the wheel: none early, none lost, none twice."""
    due = datetime.now(UTC) + timedelta(seconds=6)
    ids = running.publisher.publish_many(
        (("work.do", {"n": n}) for n in range(3000)), at=due, queue="default"
    )
    assert len(set(ids)) == 3000
    running.noted(3000, timeout=60)
    running.settled(timeout=30)
    assert sorted(n for n, _ in running.notes) == list(range(3000))
    assert min(at for _, at in running.notes) >= due.timestamp()


def test_forged_deaths_cannot_make_a_delayed_job_vanish_unseen(running):
    """Whatever RabbitMQ makes of a client's `x-death`, the ledger has seen the job.

    Before 4.0 the broker believes it: a job that claims to have been in the next queue is a cycle
    to it, and goes. Such a client has thrown away its own job, and nobody else's.
    """
    job = new_id()
    running.raw(
        b'{"n": 1}',
        exchange=DELAY,
        key="0.0.0.0.0.1.1.default.work.do",
        type="work.do",
        message_id=job,
        headers={
            "x-death": [
                {"queue": "leveret.delay.0.1", "reason": "expired", "count": 1, "exchange": "x"}
            ]
        },
    )
    seen = []

    def in_ledger():
        method, properties, _ = running.channel.basic_get("leveret.ledger", auto_ack=True)
        if method is not None:
            seen.append(properties.message_id)
        return job in seen

    wait_until(in_ledger, what="the ledger has seen it")
    running.send("work.do", {"n": 2}, delay=1.7)
    wait_until(lambda: 2 in [n for n, _ in running.notes], what="the next one runs")


def test_a_job_that_is_far_from_due_goes_round_again(running):
    """A wait beyond the horizon takes several rounds, and nothing of it is left out."""
    due = datetime.now(UTC) + wheel.HORIZON + timedelta(days=30)
    job = new_id()
    running.raw(
        b'{"n": 1}',
        type="work.do",
        message_id=job,
        headers={"x-leveret-due-at": due.isoformat()},
    )
    (record,) = running.records(job, "snoozed")
    assert abs(record["due_at"] - due.timestamp()) < 5
    top = f"leveret.delay.{wheel.DIGITS - 1}.{wheel.RADIX - 1:x}"
    (letter,) = running.letters(1, queue=top)
    assert letter.properties.message_id == job
    assert letter.headers["x-leveret-attempt"] == 1
    assert running.notes == []
