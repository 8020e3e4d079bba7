"""The worker's small parts: its queue, its time limits, its prefetch."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pika
import pytest
from dramatiq.middleware import TimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

from leveret.message import Job, new_id
from leveret.metrics import JOB_QUEUE_TIME
from leveret.outcome import Succeeded
from leveret.worker.counts import Counts
from leveret.worker.delivery import Delivery, Session
from leveret.worker.prefetch import PrefetchGovernor
from leveret.worker.timelimit import TimeLimits
from leveret.worker.workqueue import WorkQueue

ROOT = Path(__file__).parents[2]


def delivery(tag):
    """Make a delivery."""
    session = Session(None, "default", "leveret.default")
    return Delivery(session, tag, "default.a", pika.BasicProperties(), b"")


# ---------------------------------------------------------------------------------- WorkQueue


@given(st.lists(st.integers(-3, 3), max_size=50))
def test_lower_priorities_come_first_and_equals_in_order(priorities):
    """A stable priority queue."""
    queue = WorkQueue()
    for tag, priority in enumerate(priorities):
        queue.put(delivery(tag), priority)
    assert len(queue) == len(priorities)
    found = [queue.get(0.0).tag for _ in priorities]
    assert found == sorted(range(len(priorities)), key=lambda tag: (priorities[tag], tag))
    assert queue.get(0.0) is None


def test_clearing_takes_what_waits_and_the_queue_goes_on():
    """Tokens of what was cleared wake somebody for nothing, and for no harm."""
    queue = WorkQueue()
    for tag in range(3):
        queue.put(delivery(tag))
    assert [d.tag for d in queue.clear()] == [0, 1, 2]
    queue.put(delivery(9))
    found = [queue.get(0.01) for _ in range(4)]
    assert [d.tag for d in found if d is not None] == [9]


def test_many_threads_get_each_delivery_once():
    """None twice, none never."""
    queue, found, wanted = WorkQueue(), Counter(), 4000

    def take():
        while True:
            got = queue.get(1.0)
            if got is None or got.tag < 0:
                return
            found[got.tag] += 1

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for tag in range(wanted):
        queue.put(delivery(tag), tag % 3)
    for _ in threads:
        queue.put(delivery(-1), 99)
    for thread in threads:
        thread.join(10)
    assert found == Counter(range(wanted))


# --------------------------------------------------------------------------------- TimeLimits


@pytest.fixture
def limits():
    """Return time limits with their watchdog."""
    made = TimeLimits()
    yield made
    made.close()


def spin(seconds):
    """Use up time in Python, where an exception can land at any instruction."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


def test_a_run_that_takes_too_long_is_interrupted_within_it(limits):
    """It can catch the exception, clean up, and must then give way."""
    cleaned = []

    def run():
        try:
            spin(30)
        finally:
            cleaned.append(True)

    begin = time.monotonic()
    with pytest.raises(TimeLimitExceeded):
        limits.limited(0.1, run)
    assert cleaned == [True]
    assert time.monotonic() - begin < 5


def test_a_run_within_its_limit_is_left_alone_and_so_is_one_without(limits):
    """What it returns or raises comes out."""
    assert limits.limited(30, lambda: 5) == 5
    assert limits.limited(None, lambda: 6) == 6
    with pytest.raises(KeyError):
        limits.limited(30, lambda: {}["x"])


def test_a_run_that_swallows_the_interruption_has_returned(limits):
    """Its value counts, and nothing comes later."""

    def run():
        try:
            spin(30)
        except TimeLimitExceeded:
            return "swallowed"

    assert limits.limited(0.05, run) == "swallowed"
    spin(0.2)


def test_an_interruption_never_lands_outside_of_its_run(limits):
    """Runs of about the length of their limit, in several threads: the worst case, many times.

    Code between the runs stands for settling; an exception there would be a lost outcome.
    """
    outside, ended = [], Counter()

    def work(seed):
        dice = random.Random(seed)
        try:
            for _ in range(120):
                try:
                    limits.limited(0.03, lambda: spin(dice.uniform(0.0, 0.12)))
                    ended["returned"] += 1
                except TimeLimitExceeded:
                    ended["interrupted"] += 1
                for _ in range(2000):
                    pass
        except BaseException as error:  # noqa: BLE001 - that is what is looked for
            outside.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outside == []
    assert sum(ended.values()) == 480
    assert min(ended["returned"], ended["interrupted"]) > 20


_INTERRUPTED = """
import sys, time
from leveret.worker.timelimit import TimeLimits

def spin():
    while True:
        time.sleep(0)

def called():
    return "goes on"

limits = TimeLimits()
try:
    limits.limited(0.05, spin)
except BaseException as error:
    limits.close()
    sys.settrace(lambda *_: None)
    print(type(error).__name__, called())
"""


def test_an_interruption_leaves_nothing_for_the_interpreter_to_look_for():
    """CPython up to 3.12 would look for it for ever, and stand still where it traces."""
    answer = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    assert answer.stdout == "TimeLimitExceeded goes on\n"


# --------------------------------------------------------------------------- PrefetchGovernor


@given(st.integers(1, 64), st.lists(st.floats(0, 1e4), max_size=100))
def test_the_prefetch_keeps_every_thread_busy_and_is_bounded(threads, durations):
    """From two for each thread to 64, whatever jobs take."""
    governor = PrefetchGovernor(threads)
    for seconds in durations:
        governor.observe(seconds)
        assert 2 * threads <= governor.adapt() <= 64 * threads


def test_short_jobs_are_held_in_large_numbers_and_long_ones_in_small():
    """It follows when the work changes, within some hundred jobs."""
    governor = PrefetchGovernor(4)
    for _ in range(300):
        governor.observe(0.0005)
    assert governor.adapt() == 4 * 64
    for _ in range(300):
        governor.observe(2.0)
    assert governor.adapt() == 4 * 2


def test_it_changes_only_by_a_factor_of_two():
    """Every change costs a subscription."""
    governor = PrefetchGovernor(4)
    values = []
    for step in range(400):
        governor.observe(0.01 + 0.003 * (step % 2))
        values.append(governor.adapt())
    assert len(set(values[1:])) <= 2


def test_a_fixed_prefetch_stays():
    """The operator has said so."""
    governor = PrefetchGovernor(4, fixed=3)
    for _ in range(50):
        governor.observe(1e-6)
    assert governor.adapt() == 3


def test_a_worker_does_not_load_what_talks_to_the_database():
    """Plain jobs never touch PostgreSQL, and its libraries are a third of a process's memory."""
    code = (
        "import sys, services.worker.child;"
        "print([n for n in ('sqlalchemy', 'psycopg', 'fsspec', 'httpx') if n in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert answer.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------- Counts


@pytest.mark.parametrize(
    ("run", "due", "waited"),
    [
        pytest.param(0, None, 3.0, id="from its publish"),
        pytest.param(0, 1.0, 1.0, id="from when it was due"),
        pytest.param(1, None, None, id="a replay does not say since when"),
        pytest.param(1, 1.0, 1.0, id="the retry of a replay does"),
    ],
)
def test_time_in_the_queue_is_counted_from_when_the_job_could_have_run(run, due, waited):
    """A job that was dead for a day has not waited in the queue for a day."""
    actor = f"wait.{run}-{due}"
    began = time.time()
    done = delivery(1)
    done.started_at, done.ended_at = began + 3.0, began + 4.0
    due_at = None if due is None else datetime.fromtimestamp(began + 3.0 - due, UTC)
    done.job = Job(actor=actor, id=new_id(), run=run, due_at=due_at)
    Counts().settled(done, Succeeded(None), actor=actor, duration=1.0)
    samples = {
        sample.name.rpartition("_")[2]: sample.value
        for family in JOB_QUEUE_TIME.collect()
        for sample in family.samples
        if sample.labels.get("actor") == actor
    }
    assert samples["count"] == (0 if waited is None else 1)
    assert samples["sum"] == pytest.approx(waited or 0.0, abs=0.05)
