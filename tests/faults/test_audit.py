"""The audit, after everything has been killed; and of what is really missing."""

from __future__ import annotations

import json
import random
import threading
import time
from datetime import UTC, datetime

import httpx
import psycopg
import pytest

from leveret import Job, outbox
from leveret.errors import PublishError
from leveret.message import new_id
from leveret.publisher import Publisher
from leveret.store import engine
from leveret.store.migrate import upgrade
from tests.support import mixedjobs
from tests.support.systems import System
from tests.support.waiting import wait_until

#: Of twenty jobs, what each is, and how it has to end.
MIX = (
    *[("mix.fine", "succeeded")] * 13,
    *[("mix.flaky", "succeeded")] * 2,
    ("mix.doomed", "dead"),
    ("mix.exhausted", "dead"),
    ("mix.unknown", "dead"),
    ("mix.fine", "expired"),
    ("mix.slow", "succeeded"),
)
JOBS = 20_000
#: Slow jobs: only each tenth of those in the mix, or the test would wait for them alone.
SLOW_SHARE = 10
CHUNK = 500


@pytest.fixture
def system(private_broker, private_postgres, tmp_path):
    """Return a whole system of this test."""
    broker = private_broker({"channel_max": "500", "collect_statistics_interval": "1000"})
    broker.declare(mixedjobs.ACTORS)
    postgres = private_postgres()
    owner = engine(postgres.url(), pool_size=1)
    upgrade(owner)
    owner.dispose()
    made = System(broker, postgres, tmp_path, ["tests.support.mixedjobs"])
    made.start_all()
    yield made
    made.stop()


def plan():
    """Return every job as (id, actor, arguments, how it has to end)."""
    jobs = []
    for n in range(JOBS):
        actor, end = MIX[n % len(MIX)]
        if actor == "mix.slow" and n // len(MIX) % SLOW_SHARE:
            actor = "mix.fine"
        jobs.append((new_id(), actor, {"n": n}, end))
    random.Random(3).shuffle(jobs)
    return jobs


def job_of(job_id, actor, arguments, end):
    """Make the job; an expired one is one whose time is over before it can start."""
    expires = None
    if end == "expired":
        expires = datetime(2020, 1, 1, tzinfo=UTC)
    queue = "default" if actor == "mix.unknown" else None
    return Job(actor=actor, arguments=arguments, id=job_id, expires_at=expires, queue=queue)


def keep_trying(action, seconds=240.0):
    """Do something until it works: whoever publishes over AMQP or HTTP does it like that."""
    done = []

    def works():
        try:
            done.append(action())
        except (PublishError, psycopg.Error, httpx.HTTPError) as error:
            failures.append(error)
            return False
        return True

    failures: list[Exception] = []
    try:
        wait_until(works, timeout=seconds, every=0.2, what="it works")
    except TimeoutError as error:
        raise error from failures[-1]
    return done[0]


class Publishing:
    """Publishes the plan by the SDK, by the outbox and over HTTP, each in its own thread."""

    def __init__(self, system, jobs):
        self._system = system
        self.jobs = jobs
        key = json.loads(
            system.leveret("keys", "create", "test", "--scope", "publish", "--json").stdout
        )
        self._headers = {"Authorization": f"Bearer {key['token']}"}
        self.failures = []
        ends = (int(len(jobs) * 0.8), int(len(jobs) * 0.9))
        # Over HTTP only what the API lets pass: known actors, a time that is not over.
        by_http = [
            job for job in jobs[ends[1] :] if job[3] != "expired" and "unknown" not in job[1]
        ]
        others = [job for job in jobs[ends[1] :] if job not in by_http]
        parts = (
            (self._sdk, jobs[: ends[0]] + others),
            (self._outbox, jobs[ends[0] : ends[1]]),
            (self._http, by_http),
        )
        self._threads = [
            threading.Thread(target=self._guarded, args=part, daemon=True) for part in parts
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for thread in self._threads:
            thread.join(300)
        assert not self.failures, self.failures
        assert not any(thread.is_alive() for thread in self._threads)

    def _guarded(self, publish, jobs):
        try:
            for at in range(0, len(jobs), CHUNK):
                publish(jobs[at : at + CHUNK])
        except Exception as error:  # noqa: BLE001 - told by the test
            self.failures.append(error)

    def _sdk(self, jobs):
        with Publisher(self._system.broker.vhost.url(), timeout=10) as publisher:
            keep_trying(lambda: publisher.publish_many([job_of(*job) for job in jobs]))

    def _outbox(self, jobs):
        def insert():
            with psycopg.connect(self._system.postgres.url(), connect_timeout=5) as connection:
                outbox.enqueue_many(connection, [job_of(*job) for job in jobs])

        keep_trying(insert)

    def _http(self, jobs):
        body = {
            "jobs": [
                {"id": job_id, "actor": actor, "arguments": arguments}
                for job_id, actor, arguments, _ in jobs
            ]
        }

        def post():
            url = f"http://127.0.0.1:{self._system.ports['api']}/v1/jobs/batch"
            key = {"Idempotency-Key": jobs[0][0]}
            answer = httpx.post(url, json=body, headers={**self._headers, **key}, timeout=20)
            assert answer.status_code == 202 or answer.status_code >= 409, answer.text
            answer.raise_for_status()

        keep_trying(post)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_the_audit_is_exact_after_everything_was_killed_during_20000_jobs(system):
    """Recorder, relay, API, workers, broker and database, each killed more than once."""
    jobs = plan()
    dice = random.Random(11)
    deaths = dict.fromkeys((*system.ports, "broker", "postgres"), 0)
    rounds = ["recorder", "relay", "api", "worker"] * 3 + ["postgres", "broker"]
    dice.shuffle(rounds)
    rounds.append("postgres")
    with Publishing(system, jobs):
        for victim in rounds:
            time.sleep(dice.uniform(0.2, 1.0))  # the fault comes at a time of its own
            deaths[victim] += 1
            if victim == "broker":
                system.broker.kill()
                system.broker.start()
            elif victim == "postgres":
                system.postgres.kill()
                system.postgres.start()
            else:
                system.kill(victim)
                system.start(victim)
    system.wait_ready()

    with psycopg.connect(system.postgres.url(), autocommit=True) as ledger:

        def live():
            found = ledger.execute(
                "SELECT count(*) FROM jobs WHERE state NOT IN"
                " ('succeeded', 'dead', 'expired', 'cancelled')"
            ).fetchone()[0]
            waiting = ledger.execute("SELECT count(*) FROM leveret_outbox").fetchone()[0]
            known = ledger.execute("SELECT count(*) FROM jobs").fetchone()[0]
            return found + waiting + max(0, len(jobs) - known)

        wait_until(lambda: live() == 0, timeout=180, every=0.5, what="every job has its end")
        states = dict(ledger.execute("SELECT id, state FROM jobs").fetchall())
        letters = ledger.execute("SELECT count(DISTINCT job_id) FROM dead_letters").fetchone()[0]
    report = system.audit(wait=60)
    assert report["findings"] == []
    assert report["holds"], report
    assert report["published"] == len(jobs)
    assert report["live"] == 0
    wrong = {
        job_id: (actor, end, states.get(job_id))
        for job_id, actor, _, end in jobs
        if states.get(job_id) != end
    }
    assert not wrong, list(wrong.items())[:10]
    assert letters == sum(end != "succeeded" for *_, end in jobs)
    assert all(deaths.values())


@pytest.mark.faults
def test_jobs_that_are_really_missing_are_named_and_repaired(system):
    """A queue that somebody has purged; the ledger's copies go out again under their ids."""
    ids = {new_id() for _ in range(5)}
    later = new_id()
    system.kill("worker")
    with Publisher(system.broker.vhost.url()) as publisher:
        publisher.publish_many(
            [Job(actor="mix.fine", arguments={"n": n}, id=i) for n, i in enumerate(sorted(ids))]
        )
        publisher.send("mix.fine", {"n": 5}, delay=3600, job_id=later)
    with psycopg.connect(system.postgres.url(), autocommit=True) as ledger:
        counted = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'scheduled')"
        wait_until(lambda: ledger.execute(counted).fetchone()[0] == 6, timeout=30, what="6 rows")
        management = system.broker.vhost.management
        for queue in management.queues("leveret"):
            if queue["name"].startswith(("leveret.default", "leveret.delay.")):
                management.delete("queues", "leveret", queue["name"], "contents")
        report = system.audit(wait=20)
        assert not report["holds"]
        assert {finding["job_id"] for finding in report["findings"]} == {*ids, later}
        assert {finding["kind"] for finding in report["findings"]} == {"lost"}

        repaired = system.audit("--repair", wait=20)
        assert all(finding["repaired"] for finding in repaired["findings"])
        system.start("worker")
        done = "SELECT count(*) FROM jobs WHERE state = 'succeeded'"
        wait_until(lambda: ledger.execute(done).fetchone()[0] == 5, timeout=60, what="5 succeeded")
        wrote = ledger.execute("SELECT count(*) FROM audit_log WHERE action = 'audit.repair'")
        assert wrote.fetchone()[0] == 6
        rows = ledger.execute("SELECT state, due_at > now() FROM jobs WHERE id = %s", [later])
        assert rows.fetchone() == ("scheduled", True)
    report = system.audit(wait=30)
    assert report["holds"], report
    assert report["live"] == 1
