"""Every slot has one job, whichever scheduler dies, sleeps, is cut off or loses its clock."""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import takewhile

import psycopg
import pytest

from leveret.schedules.definition import job_id
from leveret.schedules.policy import Missed
from leveret.store import engine
from leveret.store.lease import Grant, Lease
from leveret.store.migrate import upgrade
from scheduler.scheduler import LEASE
from tests.support.proxies import TcpProxy
from tests.support.schedulerkills import FOLDER, HOW, POINT, POINTS, UNFENCED
from tests.support.schedulers import SchedulerProcess, create, every, query
from tests.support.waiting import wait_until

TERM = 2.0
#: How long the schedulers are maltreated; 600 is what the promise is measured with.
SECONDS = float(os.environ.get("LEVERET_TEST_SCHEDULER_SECONDS", "16"))
INTERVALS = (1, 1, 1, 1.001, 1.3, 1.7, 2.5, 3.14, 5, 7.77)
KILLABLE = "tests.support.schedulerkills"


@pytest.fixture
def timetable(fresh_database):
    """Return the URL of a database with Leveret's tables, of this test alone."""
    owner = engine(fresh_database, pool_size=1)
    try:
        upgrade(owner)
    finally:
        owner.dispose()
    return fresh_database


@pytest.fixture
def schedulers(tmp_path):
    """Return a function that starts a scheduler and waits for nothing."""
    made = []

    def start(url, **options):
        made.append(SchedulerProcess(url, folder=tmp_path, **options))
        return made[-1]

    yield start
    for each in made:
        each.signal(signal.SIGCONT)
        each.kill()
        print(each.log[-3000:])
        assert "Traceback" not in each.log


def holder(url) -> tuple[int | None, int]:
    """Return the process that has the lease, and the epoch."""
    rows = query(
        url,
        "SELECT split_part(holder, ':', 2)::int, epoch, expires_at > clock_timestamp() FROM leases",
    )
    if not rows:
        return None, 0
    pid, epoch, valid = rows[0]
    return (pid if valid else None), epoch


def expect_exactly_one_job_a_slot(url, definitions) -> list[float]:
    """Check all that the database says of slots and jobs; return how late each was, in seconds."""
    # Of one moment, since a scheduler may still be at work.
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        since = {
            name: (since, last)
            for name, since, last in connection.execute(
                "SELECT name, since, last_slot FROM schedules"
            )
        }
        rows = connection.execute(
            "SELECT schedule, slot, outcome, job_id, fired_at - due_at FROM schedule_slots"
        ).fetchall()
        jobs = [row[0] for row in connection.execute("SELECT job_id FROM leveret_outbox")]
    assert since.keys() == {definition.name for definition in definitions}
    expected = {
        (definition.name, slot)
        for definition in definitions
        for slot in takewhile(
            lambda slot, name=definition.name: slot <= since[name][1],
            definition.slots(since[definition.name][0]),
        )
    }
    assert {(name, slot) for name, slot, *_ in rows} == expected
    assert {outcome for _, _, outcome, *_ in rows} == {"fired"}
    assert Counter(jobs) == Counter(job_id(name, slot) for name, slot in expected)
    assert {job for *_, job, _ in rows} == set(jobs)
    late = [each.total_seconds() for *_, each in rows]
    assert min(late) >= 0, "a job was published before its slot"
    return late


class Sluggishness(threading.Thread):
    """Measures by how much this machine is late with something small, itself."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self._url = url
        self._ending = threading.Event()
        self.worst = 0.0

    def run(self):
        """Ask the database for nothing, again and again."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._ending.is_set():
                began = time.monotonic()
                self._ending.wait(0.05)
                connection.execute("SELECT 1")
                self.worst = max(self.worst, time.monotonic() - began - 0.05)

    def stop(self) -> float:
        """Return the worst, in seconds."""
        self._ending.set()
        self.join(30)
        return self.worst


class Fleet:
    """Five schedulers, each with its own way to the database; some with a clock that can be set."""

    #: None has the machine's clocks; of those that are faked, one keeps what counts seconds.
    FAKED = (True, True, False, True, False)

    def __init__(self, url, schedulers, stack):
        self._url = url
        self._start = schedulers
        self.proxies = [stack.enter_context(TcpProxy.before(url)) for _ in self.FAKED]
        self.members = [self._member(number) for number in range(len(self.FAKED))]
        self.asleep = {}
        self.done = Counter()

    def _member(self, number):
        variables = {"FAKETIME_DONT_FAKE_MONOTONIC": "1"} if number == 1 else {}
        return self._start(
            self.proxies[number].through(self._url),
            term=TERM,
            faked=self.FAKED[number],
            **variables,
        )

    def leader(self):
        """Return the number of the one that leads."""
        pid, _ = holder(self._url)
        for number, member in enumerate(self.members):
            if member.process.pid == pid:
                return number
        return None

    def kill(self, number):
        """Kill one, and start another in its place."""
        self.members[number].kill()
        self.members[number] = self._member(number)

    def sleep(self, number):
        """Stop one for two terms."""
        self.members[number].signal(signal.SIGSTOP)
        self.asleep[number] = time.monotonic() + 2 * TERM

    def wake(self):
        """Continue those that have been stopped for as long as they should."""
        for number, end in list(self.asleep.items()):
            if time.monotonic() > end:
                self.members[number].signal(signal.SIGCONT)
                del self.asleep[number]

    def cut(self, number):
        """End all its connections."""
        self.proxies[number].cut()

    def stall(self, number):
        """Let nothing through for longer than a term."""
        self.proxies[number].stall()
        threading.Timer(1.5 * TERM, self.proxies[number].resume).start()

    def jump(self, number):
        """Set a clock by an hour, ahead or back."""
        number = number if self.FAKED[number] else self.FAKED.index(True)
        self.members[number].jump(random.choice((3600, -3600, 0)))

    def maltreat(self):
        """Do one thing to one of them, which is the leader more often than not."""
        leader = self.leader()
        number = random.randrange(len(self.members))
        if leader is not None and random.random() < 0.7:
            number = leader
        if number in self.asleep:
            return
        act = random.choice((self.kill, self.kill, self.sleep, self.cut, self.stall, self.jump))
        self.done[act.__name__, number == leader] += 1
        act(number)


@pytest.mark.timeout(SECONDS + 120)
def test_every_slot_has_one_job_whatever_happens_to_schedulers(timetable, schedulers):
    """Killed, stopped, cut off, their clocks set by an hour: nothing is lost, doubled or early."""
    definitions = [
        every(f"s{number}", INTERVALS[number % len(INTERVALS)], missed=Missed.ALL)
        for number in range(50)
    ]
    with ExitStack() as stack:
        fleet = Fleet(timetable, schedulers, stack)
        for member in fleet.members:
            member.wait_ready()
        create(timetable, definitions)
        created = now_at(timetable)
        calm = wait_until(
            lambda: (
                query(
                    timetable, "SELECT min(coalesce(last_slot, since)) > %s FROM schedules", created
                )[0][0]
                and lateness_between(timetable, created, now_at(timetable))
            ),
            timeout=60,
            what="every schedule has fired",
            every=0.2,
        )
        sluggish = Sluggishness(timetable)
        sluggish.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            fleet.maltreat()
            # One trouble at a time, or what follows from each could not be told apart.
            pause = time.monotonic() + TERM + 1
            while time.monotonic() < min(pause, end):
                fleet.wake()
                time.sleep(0.1)
        for number in list(fleet.asleep):
            fleet.members[number].signal(signal.SIGCONT)
        now = now_at(timetable)
        wait_until(
            lambda: (
                query(timetable, "SELECT min(coalesce(last_slot, since)) > %s FROM schedules", now)[
                    0
                ][0]
                is True
            ),
            timeout=60,
            what="every schedule goes on",
        )
        slack = sluggish.stop()
        late = expect_exactly_one_job_a_slot(timetable, definitions)
        _, epoch = holder(timetable)
    print(
        f"{len(late)} slots, {epoch} epochs; late: median {statistics.median(calm) * 1000:.1f} ms "
        f"with a stable leader, {statistics.median(late) * 1000:.1f} ms in all, worst "
        f"{max(late):.2f} s; the machine: {slack:.2f} s; {dict(fleet.done)}"
    )
    assert max(late) <= TERM + 1 + 5 * slack


def now_at(url) -> datetime:
    """Return the database's time."""
    return query(url, "SELECT clock_timestamp()")[0][0]


def lateness_between(url, first, last):
    """Return how late the slots of a time were, in seconds."""
    return [
        late
        for (late,) in query(
            url,
            "SELECT extract(epoch FROM fired_at - due_at)::float8 FROM schedule_slots"
            " WHERE due_at > %s AND due_at <= %s",
            first,
            last,
        )
    ]


@pytest.mark.parametrize("point", POINTS)
def test_a_scheduler_killed_at_a_point_is_replaced(point, timetable, schedulers, tmp_path):
    """Whatever it had done by then: another takes over, and each slot has its job."""
    definitions = [every(f"s{number}", 1, missed=Missed.ALL) for number in range(5)]
    variables = {POINT: point, FOLDER: str(tmp_path)}
    dying = schedulers(timetable, module=KILLABLE, **variables)
    dying.wait_ready()
    schedulers(timetable)
    create(timetable, definitions)
    assert dying.process.wait(30) == -signal.SIGKILL
    now = now_at(timetable)
    wait_until(
        lambda: (
            query(timetable, "SELECT min(coalesce(last_slot, since)) > %s FROM schedules", now)[0][
                0
            ]
            is True
        ),
        timeout=60,
    )
    expect_exactly_one_job_a_slot(timetable, definitions)
    assert holder(timetable)[1] == 2


@pytest.mark.parametrize("fenced", [True, False])
def test_what_a_stopped_leader_sends_too_late_is_refused(fenced, timetable, schedulers, tmp_path):
    """It is stopped after it has asked its own clock; without the check, an old epoch would act."""
    create(timetable, [every("s", 1, missed=Missed.ALL)])
    variables = {POINT: "fire", FOLDER: str(tmp_path), HOW: "SIGSTOP"}
    if not fenced:
        variables[UNFENCED] = "1"
    stopped = schedulers(timetable, module=KILLABLE, term=1.0, **variables)
    wait_until((tmp_path / "fire").exists, timeout=60, what="it stops before its fire")
    with psycopg.connect(timetable, autocommit=True) as connection:
        other = Lease(Statements(connection), LEASE, holder="other", term=timedelta(minutes=5))
        grant = wait_until(lambda: granted(other.take()), timeout=60, what="another takes over")
    assert grant.epoch == 2
    assert query(timetable, "SELECT count(*) FROM schedule_slots") == [(0,)]
    stopped.signal(signal.SIGCONT)
    if fenced:
        wait_until(lambda: stopped.events("scheduler.fire_refused") == 1, timeout=60)
        wait_until(lambda: stopped.events("scheduler.standing_by") == 1, timeout=60)
        assert query(timetable, "SELECT count(*) FROM schedule_slots") == [(0,)]
        assert query(timetable, "SELECT count(*) FROM leveret_outbox") == [(0,)]
        assert stopped.get("/livez")[0] == 200
    else:
        wait_until(
            lambda: query(timetable, "SELECT count(*) > 0 FROM leveret_outbox")[0][0],
            timeout=60,
            what="an old epoch has published",
        )


def granted(answer) -> Grant | None:
    """Return a grant, if it is one."""
    return answer if isinstance(answer, Grant) else None


class Statements:
    """A connection, as a lease wants it."""

    def __init__(self, connection):
        self._connection = connection

    def run(self, statement, values):
        """Run a statement; return its rows."""
        cursor = self._connection.execute(statement, values)
        return [] if cursor.description is None else cursor.fetchall()
