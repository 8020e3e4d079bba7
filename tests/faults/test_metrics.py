"""Metrics of real processes: each moves when it should, and a killed process takes no count away.

`test_every_metric_moves` is the table of what moves what: it fails for a metric that nothing in it
has moved.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
import psycopg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from sqlalchemy import text

from leveret import metrics, names
from leveret.deadletters import Selection, create_replay
from leveret.housekeeping import BEAT, CHECK
from leveret.outbox import enqueue
from leveret.schedules.definition import job_id
from leveret.store import engine as make_engine
from leveret.store import migrate
from tests.support.apis import ApiProcess
from tests.support.pools import WorkerPool
from tests.support.processes import ask
from tests.support.prometheus import Prometheus, Target
from tests.support.proxies import TcpProxy
from tests.support.recorders import RecorderProcess
from tests.support.relays import RelayProcess, held_transaction
from tests.support.schedulers import SchedulerProcess, create, every
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from tests.support.brokers import PrivateBroker
    from tests.support.faultjobs import Journal
    from tests.support.processes import OurProcess

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


# ---------------------------------------------------------------------------------- killed children


def _kill_children(workers: WorkerPool) -> None:
    old = set(workers.children())
    for child in old:
        os.kill(child, signal.SIGKILL)
    wait_until(
        lambda: len(workers.children()) == len(old) and not old & set(workers.children()),
        timeout=30,
        what="new children",
    )
    workers.wait_ready()


def _folder(workers: WorkerPool) -> Path:
    """Return where the children of a pool count."""
    variables = Path(f"/proc/{workers.children()[0]}/environ").read_bytes().split(b"\0")
    [found] = (v for v in variables if v.startswith(b"PROMETHEUS_MULTIPROC_DIR="))
    return Path(found.decode().partition("=")[2])


def test_counts_are_exact_when_children_are_killed(pool, publisher, books, journal):
    """Over three generations of two children, each run and each publish is counted once."""
    workers = pool(threads=1, processes=2)
    job_ids: list[str] = []
    for generation in (1, 2, 3):
        job_ids += publisher.publish_many(("probe.run", {"n": n}) for n in range(20))
        job_ids += publisher.publish_many(("probe.fail_once", {"n": n}) for n in range(3))
        job_ids += publisher.publish_many(("probe.spawn", {"count": 4}) for _ in range(2))
        books.wait_settled(job_ids)
        spawned = _wait_spawned(journal, job_ids, 8 * generation)
        books.wait_settled(spawned)
        wanted = books.fates([*job_ids, *spawned])
        wait_until(
            lambda wanted=wanted: _counted(workers) == wanted,
            timeout=30,
            what=f"the pool has counted {wanted}",
        )
        _kill_children(workers)
        assert _counted(workers) == wanted
        assert workers.metric("leveret_jobs_published_total", queue="any") == len(spawned)
        assert workers.metric("leveret_publish_confirm_seconds_count") == len(spawned)
        assert workers.metric("leveret_job_duration_seconds_count") == wanted.total()
        assert workers.metric("leveret_retries_total") == wanted["retrying"]
    assert workers.metric("leveret_worker_restarts_total") == 6
    assert workers.metric("leveret_worker_threads") == 2
    files = {path.name for path in _folder(workers).iterdir()}
    pids = {name.removesuffix(".db").rpartition("_")[2] for name in files}
    assert pids <= {"gone", *map(str, workers.children())}
    assert journal.started_again().keys() <= set(job_ids)


def _wait_spawned(journal: Journal, published: list[str], count: int) -> set[str]:
    """Return the jobs that jobs have published, when so many have run."""
    wait_until(
        lambda: len(set(journal.ends()) - set(published)) == count,
        timeout=30,
        what="the jobs that jobs have published have run",
    )
    return set(journal.ends()) - set(published)


def _counted(workers: WorkerPool) -> Counter[str]:
    _, page = ask(workers.port, "/metrics", "application/openmetrics-text")
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "leveret_jobs_total":
                found[sample.labels["outcome"]] += int(sample.value)
    return found


# ---------------------------------------------------------------------------------------- exemplars


def test_prometheus_finds_the_trace_of_a_job_that_ran_in_a_child(pool, publisher, books, tmp_path):
    """From how long it ran, how long it waited, and that it died, to the trace that it was of."""
    workers = pool(threads=2, processes=2)
    job_ids = [
        publisher.send("probe.run", {"seconds": 0.03}, traceparent=TRACEPARENT),
        publisher.send("probe.refuse", traceparent=TRACEPARENT),
    ]
    books.wait_settled(job_ids)
    selectors = (
        'leveret_job_duration_seconds_bucket{actor="probe.run",le="0.05"}',
        'leveret_job_queue_time_seconds_bucket{actor="probe.run"}',
        'leveret_jobs_total{actor="probe.refuse",outcome="dead"}',
    )
    with Prometheus(tmp_path, [Target(workers.port)], rules=[]) as prometheus:
        for selector in selectors:
            [exemplar, *_] = wait_until(
                lambda selector=selector: prometheus.traced(selector),
                timeout=60,
                every=0.2,
                what=f"an exemplar of {selector}",
            )
            assert exemplar["labels"] == {"trace_id": TRACE}
            assert float(exemplar["value"]) > 0
        assert prometheus.value("sum(leveret_job_duration_seconds_count)") == 2


# ------------------------------------------------------------------------------------- each of them


class Stage:
    """All processes of Leveret, on a broker and a database of one test."""

    def __init__(self, broker: PrivateBroker, database: str, folder: Path) -> None:
        self.broker, self.database = broker, database
        self.node = broker.vhost
        self.proxy = TcpProxy.before(self.node.url("worker"))
        environment = self.node.environment("worker")
        environment["LEVERET_AMQP_URL"] = self.proxy.through(environment["LEVERET_AMQP_URL"])
        self.pool = WorkerPool(environment, folder, threads=2, processes=2, prefetch=4)
        self.processes: dict[str, OurProcess] = {
            metrics.WORKER: self.pool,
            metrics.RECORDER: RecorderProcess(self.node.environment("recorder"), database, folder),
            metrics.RELAY: RelayProcess(
                self.node, database, folder=folder, LEVERET_DATABASE_URL=database
            ),
            metrics.SCHEDULER: SchedulerProcess(database, folder=folder),
            metrics.API: ApiProcess(database, folder),
        }
        #: Metrics that were seen to move.
        self.moved: set[str] = set()

    def wait_ready(self) -> None:
        """Return when all of them do their work."""
        for process in self.processes.values():
            process.wait_ready()

    def close(self) -> None:
        """End everything."""
        self.pool.kill_everything()
        for process in self.processes.values():
            process.kill()
        self.proxy.close()

    def shows(
        self, name: str, process: str, wanted: Callable[[float], bool], /, **labels: str
    ) -> float:
        """Return the value of a metric of the table when a process shows one that is wanted."""
        metric = getattr(metrics, name)
        assert process in metrics.shown_by(metric), f"the table says that {process} has no {name}"
        [described] = metric.describe()
        suffix = {"counter": "_total", "histogram": "_count"}.get(described.type, "")
        sample = described.name + suffix
        value = 0.0

        def is_wanted() -> bool:
            nonlocal value
            value = self.processes[process].metric(sample, **labels)
            return wanted(value)

        try:
            wait_until(is_wanted, timeout=60, every=0.1)
        except TimeoutError:
            raise AssertionError(f"{sample}{labels} of the {process} is {value}") from None
        self.moved.add(name)
        return value


def some(value: float) -> bool:
    """Want more than nothing."""
    return value > 0


def exactly(wanted: float) -> Callable[[float], bool]:
    """Want one value."""
    return lambda value: value == wanted


@pytest.fixture
def database(fresh_database: str) -> str:
    """Return a database with tables, a schedule whose slots have passed, and a canary's past."""
    owner = make_engine(fresh_database, pool_size=1)
    try:
        migrate.upgrade(owner)
        create(
            fresh_database,
            [every("late", 3600), every("often", 1), every(BEAT, 86_400), every(CHECK, 86_400)],
        )
        _write_history(owner)
    finally:
        owner.dispose()
    return fresh_database


_LATE = """UPDATE schedules SET since = since - interval '6 h', next_due_at = next_due_at
    - CASE WHEN name = 'late' THEN interval '6 h' ELSE interval '0' END"""
_SLOT = """INSERT INTO schedule_slots (schedule, slot, job_id, cause, due_at, fired_at)
    VALUES (:schedule, :slot, :job_id, 'schedule', :slot, :slot)"""
_RAN = """INSERT INTO jobs (id, created_at, state, updated_at, result)
    VALUES (:job_id, :slot, 'succeeded', CAST(:slot AS timestamptz) + interval '2 s', :result)"""
_OVERDUE = """INSERT INTO jobs (id, created_at, state, due_at)
    VALUES ('overdue', now(), 'retrying', now() - interval '2 min')"""


def _write_history(owner: Engine) -> None:
    with owner.begin() as connection:
        connection.execute(text(_LATE))
        connection.execute(text(_OVERDUE))
        slot = connection.scalar(text("SELECT date_trunc('second', now() - interval '1 min')"))
        for schedule, result in ((BEAT, None), (CHECK, b'{"gaps": 3}')):
            values: dict[str, Any] = {
                "schedule": schedule,
                "slot": slot,
                "job_id": job_id(schedule, slot),
                "result": result,
            }
            connection.execute(text(_SLOT), values)
            connection.execute(text(_RAN), values)


@pytest.fixture
def stage(broker: PrivateBroker, database: str, tmp_path: Path) -> Iterator[Stage]:
    """Return all processes, ready."""
    made = Stage(broker, database, tmp_path)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()
        broker.control("set_vm_memory_high_watermark", "0.4")


@pytest.mark.timeout(300)
def test_every_metric_moves(stage, publisher, journal):
    """What is done to a whole stack, and which metrics of which process tell of it."""
    shows, worker = stage.shows, metrics.WORKER
    with held_transaction(stage.database):
        for process in stage.processes:
            shows("BUILD_INFO", process, exactly(1), process=process)
        shows("WORKER_THREADS", worker, exactly(4))
        _schedule(stage)
        _run_jobs(stage, publisher)
        _look_at_dead_letters(stage)
        _ask_for_what_is_not_there(stage)
        shows("DATABASE_OLDEST_TRANSACTION", metrics.SCHEDULER, some)
    _delay_the_recorder(stage, publisher)
    _lose_connections(stage, publisher, journal)
    _kill_a_child(stage)
    _fill_the_outbox(stage)
    assert stage.moved == set(metrics.__all__), "a metric of the table that nothing has moved"


def _schedule(stage: Stage) -> None:
    """Have a scheduler lead, miss slots, fire others, and look at the database."""
    shows, scheduler = stage.shows, metrics.SCHEDULER
    shows("SCHEDULER_IS_LEADER", scheduler, exactly(1))
    shows("SCHEDULER_LEASE", scheduler, exactly(2))
    shows("SCHEDULER_LEASE_REMAINING", scheduler, some)
    shows("SCHEDULER_LEASE_RENEWALS", scheduler, some, outcome="renewed")
    shows("SCHEDULES", scheduler, exactly(4), origin="api", state="active")
    shows("SCHEDULE_SLOTS", scheduler, some, schedule="often", outcome="fired")
    shows("SCHEDULE_LATENESS", scheduler, some)
    shows("SCHEDULE_MISSED", scheduler, lambda value: value in {5, 6}, schedule="late")
    shows("CANARY_SECONDS", scheduler, exactly(2))
    shows("CANARY_AGE", scheduler, lambda value: value >= 60)
    shows("SCHEDULE_GAPS", scheduler, exactly(3))
    shows("JOBS_OVERDUE", scheduler, exactly(1))
    shows("JOBS_OVERDUE_OLDEST", scheduler, lambda value: value >= 120)
    shows("DATABASE_UP", scheduler, exactly(1))
    shows("DATABASE_SIZE", scheduler, lambda value: value > 1_000_000)
    used = shows("DATABASE_CONNECTIONS", scheduler, lambda value: value >= 5)
    shows("DATABASE_CONNECTIONS_LIMIT", scheduler, lambda value: value > used)


def _run_jobs(stage: Stage, publisher: Any) -> None:
    """Run jobs: three succeed, one at its second attempt, one publishes two, one dies."""
    shows, worker = stage.shows, metrics.WORKER
    publisher.publish_many(("probe.run", {"n": n}) for n in range(3))
    publisher.send("probe.fail_once")
    publisher.send("probe.spawn", {"count": 2})
    publisher.send("probe.refuse")
    shows("JOBS", worker, exactly(5), actor="probe.run", outcome="succeeded")
    shows("JOBS", worker, exactly(1), actor="probe.fail_once", outcome="succeeded")
    shows("JOBS", worker, exactly(1), actor="probe.refuse", outcome="dead", queue="default")
    shows("RETRIES", worker, exactly(1), actor="probe.fail_once")
    shows("JOB_DURATION", worker, exactly(5), actor="probe.run")
    shows("JOB_QUEUE_TIME", worker, exactly(5), actor="probe.run")
    shows("SETTLEMENT", worker, lambda value: value >= 9, queue="default")
    shows("JOBS_PUBLISHED", worker, exactly(2), queue="any")
    shows("PUBLISH_CONFIRM", worker, exactly(2))
    shows("JOBS_PUBLISHED", metrics.RELAY, some, queue="any")
    shows("RELAY_PUBLISHED", metrics.RELAY, some)
    shows("RELAY_BATCH", metrics.RELAY, some)


def _look_at_dead_letters(stage: Stage) -> None:
    """Store dead letters and their groups, set aside what nobody can read, and replay one.

    The scheduler's own jobs, which no queue wants, are dead letters as well.
    """
    shows, recorder = stage.shows, metrics.RECORDER
    shows("LEDGER_EVENTS", recorder, exactly(1), kind="retrying")
    shows("LEDGER_BATCH_SECONDS", recorder, some)
    refused = {"actor": "probe.refuse", "queue": "default", "reason": "refused"}
    shows("DEAD_LETTERS", recorder, exactly(1), **refused)
    shows("DEAD_LETTER_GROUPS", recorder, exactly(2))
    connection = pika.BlockingConnection(pika.URLParameters(stage.node.amqp_url))
    try:
        wire = pika.BasicProperties(type="leveret.records")
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(names.OUTCOMES, "records", b"not JSON", wire)
    finally:
        connection.close()
    shows("LEDGER_REJECTS", recorder, exactly(1))
    owner = make_engine(stage.database, pool_size=1)
    try:
        with owner.begin() as transaction:
            create_replay(transaction, Selection(actor="probe.refuse"), requested_by="test")
    finally:
        owner.dispose()
    shows("REPLAYED", metrics.RELAY, exactly(1))
    shows("DEAD_LETTERS", recorder, exactly(2), **refused)


def _ask_for_what_is_not_there(stage: Stage) -> None:
    """Ask the API for paths that are made up; they are no labels."""
    api = stage.processes[metrics.API]
    for number in range(30):
        api.get(f"/made/up/{number}")
        api.get(f"/v1/jobs/{number}")
    stage.shows("HTTP_REQUESTS", metrics.API, exactly(30), route="unknown", status="404")
    stage.shows("HTTP_DURATION", metrics.API, lambda value: value >= 60)
    page = api.get("/metrics")[1]
    assert "made" not in page
    assert "/v1/jobs/2" not in page


def _delay_the_recorder(stage: Stage, publisher: Any) -> None:
    """Lock a table, so that the ledger lags."""
    with psycopg.connect(stage.database) as connection:
        connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        publisher.send("probe.run")
        stage.shows("LEDGER_LAG", metrics.RECORDER, lambda value: value > 0.5)
    stage.shows("LEDGER_LAG", metrics.RECORDER, exactly(0))


def _lose_connections(stage: Stage, publisher: Any, journal: Any) -> None:
    """Cut the pool off while four jobs end; their redeliveries are settled by these runs."""
    shows, worker = stage.shows, metrics.WORKER
    publisher.publish_many(("probe.hold", {"n": n}) for n in range(7))
    shows("JOBS_IN_PROGRESS", worker, exactly(4))
    shows("JOBS_PREFETCHED", worker, exactly(3))
    stage.proxy.refuse()
    shows("BROKER_CONNECTIONS_LOST", worker, exactly(4))
    journal.open_gate("gate")
    shows("SETTLEMENTS_VOID", worker, lambda value: value >= 4)
    stage.proxy.resume()
    shows("JOBS", worker, exactly(7), actor="probe.hold", outcome="succeeded")
    shows("REDELIVERIES_ADOPTED", worker, some)
    shows("JOBS_IN_PROGRESS", worker, exactly(0))


def _kill_a_child(stage: Stage) -> None:
    """Kill a child: the launcher starts another, and what the first has counted is still there."""
    os.kill(stage.pool.children()[0], signal.SIGKILL)
    stage.shows("WORKER_RESTARTS", metrics.WORKER, exactly(1))
    stage.shows("JOBS", metrics.WORKER, exactly(7), actor="probe.hold", outcome="succeeded")
    stage.shows("WORKER_THREADS", metrics.WORKER, exactly(4))


def _fill_the_outbox(stage: Stage) -> None:
    """Take the broker's memory: it takes no jobs any more, and what is written stays."""
    shows, relay = stage.shows, metrics.RELAY
    insert = "INSERT INTO leveret_outbox (actor, body) VALUES ('not an actor', '{}')"
    with psycopg.connect(stage.database) as connection:
        connection.execute(insert)
    shows("OUTBOX_FAILED", relay, exactly(1))
    stage.broker.control("set_vm_memory_high_watermark", "0.0000001")
    with psycopg.connect(stage.database) as connection:
        enqueue(connection, "probe.run")
    shows("PUBLISH_UNCONFIRMED", relay, some)
    shows("BROKER_BLOCKED", relay, exactly(1))
    shows("BROKER_BLOCKED", metrics.WORKER, exactly(1))  # by its heartbeats
    # These take their time, which they take together.
    shows("DEAD_LETTERS_OPEN", metrics.RECORDER, lambda value: value >= 2)
    shows("DEAD_LETTER_GROUPS_OPEN", metrics.RECORDER, exactly(2))
    shows("PUBLISH_FAILURES", relay, some, reason="timeout")
    shows("OUTBOX_PENDING", relay, some)
    shows("OUTBOX_OLDEST", relay, some)
    stage.broker.control("set_vm_memory_high_watermark", "0.4")
    shows("BROKER_BLOCKED", relay, exactly(0))
    shows("OUTBOX_PENDING", relay, exactly(0))
    shows("PUBLISH_UNCONFIRMED", relay, exactly(0))
