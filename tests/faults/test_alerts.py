"""Real faults on a real system: each raises its alert, and whoever is on call is told of it.

The rules are ours with all their minutes made seconds. Prometheus evaluates them, Alertmanager
sends what fires with our configuration, and a webhook of the test receives it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pika
import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from compose.native import ports
from leveret import names
from leveret.errors import PublishError
from leveret.message import new_id
from leveret.publisher import Publisher
from leveret.store import engine
from leveret.store.migrate import upgrade
from leveret.topology.table import LEDGER_POLICY_BYTES
from tests.support import mixedjobs
from tests.support.alerting import Alertmanager, Webhook, shortened
from tests.support.processes import ROOT, ask
from tests.support.prometheus import PER_OBJECT, RULES, Prometheus, Target
from tests.support.schedulers import SchedulerProcess
from tests.support.systems import System
from tests.support.waiting import wait_until

FILES = sorted(RULES.glob("*.yaml"))
#: By how much all times of the rules are divided.
FACTOR = 60
#: Limits in seconds that would take a minute to be passed.
GAUGES = ("leveret_outbox_oldest_seconds", "leveret_ledger_lag_seconds")
#: The ledger's queue counts as full with that much.
BOUND_BYTES = 20_000
ROW = (
    "INSERT INTO leveret_outbox (job_id, actor, body, hold_until, error)"
    " VALUES (%s, 'mix.fine', '{}', %s, %s)"
)


class Load:
    """Publishes a job of each of its actors ten times a second, in a thread; a context manager."""

    def __init__(self, url: str) -> None:
        self.actors: tuple[str, ...] = ("mix.fine",)
        self.publisher = Publisher(url, timeout=5)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self.publisher.close(1)

    def _run(self):
        n = 0
        while not self._over.wait(0.1):
            for actor in self.actors:
                n += 1
                with contextlib.suppress(PublishError):
                    self.publisher.publish(actor, {"n": n})


class Scene:
    """The whole system, whoever watches it, and the faults that can be done to it."""

    def __init__(self, broker, postgres, folder: Path, values) -> None:
        self.broker = broker
        self.postgres = postgres
        self.system = System(broker, postgres, folder, ["tests.support.mixedjobs"])
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.system.stop)
        self.system.start_all()
        self.scheduler = SchedulerProcess(postgres.url(), folder=folder, term=10)
        self._stack.enter_context(self.scheduler)
        wait_until(lambda: self.scheduler.leads, timeout=60, every=0.2, what="the scheduler leads")
        self.load = self._stack.enter_context(Load(broker.vhost.url("publisher")))
        plugin = broker.node._port("prometheus")
        self.told = self._stack.enter_context(Webhook())
        alertmanager = ports.choose()
        self.prometheus = self._stack.enter_context(
            Prometheus(
                folder,
                [
                    *(Target(port) for port in self.system.ports.values()),
                    Target(self.scheduler.port),
                    Target.broker(plugin),
                    Target(plugin, job="rabbitmq-alarms"),
                ],
                rules=shortened(folder, FACTOR, gauges=GAUGES, values=values),
                alertmanagers=[alertmanager],
            )
        )
        # Until everything has answered once, minutes that are seconds take it for dead.
        self.prometheus.wait_scraped(len(self.system.ports) + 3)
        wait_until(lambda: not self.prometheus.alerts(), timeout=60, every=0.2, what="it is calm")
        self._stack.enter_context(Alertmanager(folder, self.told, port=alertmanager))

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def pools_children(self) -> list[int]:
        """Return the process ids of the pool's children."""
        launcher = self.system._running["worker"].pid
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_text().split("\0")
                group = (folder / "stat").read_text().rpartition(")")[2].split()[2]
                if int(group) == launcher and "services.worker.child" in words:
                    found.append(int(folder.name))
        return found

    def crash_children(self) -> None:
        """Kill both children of the pool, and return when they are gone."""
        killed = wait_until(
            lambda: len(now := self.pools_children()) >= 2 and now,
            timeout=60,
            every=0.05,
            what="two children",
        )
        for child in killed:
            os.kill(child, signal.SIGKILL)
        wait_until(lambda: not set(killed) & set(self.pools_children()), timeout=20, every=0.05)

    def check(self, name: str, **labels: str) -> None:
        """Wait until the webhook is told of an alert, and by whom and what it was."""
        told = self.told.wait(name, **labels)
        assert told.receiver == ("page" if told.labels["severity"] == "critical" else "ticket")
        page, _, anchor = told.annotations["runbook_url"].partition("#")
        assert f"\n## {name}\n" in (ROOT / page).read_text()
        assert anchor == name.lower()
        for text in told.annotations.values():
            assert text
            assert "{{" not in text
            assert "error expanding" not in text


def purge(vhost, queue):
    """Throw away what waits in a queue."""
    connection = pika.BlockingConnection(pika.URLParameters(vhost.amqp_url))
    connection.channel().queue_purge(queue)
    connection.close()


@pytest.fixture
def scene(request, private_broker, private_postgres, tmp_path):
    """Return the system in working order, with nothing to tell of."""
    broker = private_broker({"collect_statistics_interval": "500"})
    broker.vhost.declare(mixedjobs.ACTORS)
    postgres = private_postgres()
    owner = engine(postgres.url(), pool_size=1)
    upgrade(owner)
    owner.dispose()
    made = Scene(broker, postgres, tmp_path, request.param)
    try:
        yield made
    finally:
        made.close()


def test_the_broker_shows_what_rules_read(broker):
    """Each release (try `make test RABBITMQ=4.3`) has the names and labels that rules expect."""
    port = broker.node._port("prometheus")
    shown = {
        sample.name: sample.labels
        for page in ("/metrics", PER_OBJECT)  # the labels of the last one count
        for family in text_string_to_metric_families(ask(port, page)[1])
        for sample in family.samples
        if sample.labels.get("queue", names.LEDGER) == names.LEDGER
    }
    read = set(re.findall(r"rabbitmq_\w+", "\n".join(path.read_text() for path in FILES)))
    assert len(read) >= 9
    assert read <= shown.keys()
    for name in read:
        if name.startswith("rabbitmq_queue_"):
            assert shown[name] == {"vhost": broker.vhost.name, "queue": names.LEDGER}


def test_the_ledger_has_the_bound_that_its_alert_knows():
    """The recorded bound is that of the policy which `leveret topology apply` sets."""
    [expression] = [
        rule["expr"]
        for path in FILES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if rule.get("record") == "leveret:ledger_bound_bytes"
    ]
    assert expression == f"vector({LEDGER_POLICY_BYTES})"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("scene", [{"leveret:ledger_bound_bytes": BOUND_BYTES}], indirect=True)
def test_faults_reach_whoever_is_on_call_with_their_runbook(scene):
    """A healthy system under load says nothing; then alert after alert comes for its fault."""
    scene.prometheus.wait('sum(leveret_jobs_total{outcome="succeeded"}) > 50')
    scene.prometheus.wait('count_over_time(up{job="rabbitmq"}[1h]) > 10')
    # A process that had no time to answer for a second or two is down, to rules that are so quick.
    assert scene.told.told() == [] or scene.prometheus.query("min_over_time(up[1h]) == 0")

    # Jobs that fail, workers that die, an outbox that does not move, a disk that is nearly full.
    scene.load.actors = ("mix.fine", "mix.stormy", "mix.doomed")
    node = scene.broker.vhost.management.get("nodes")[0]
    scene.broker.control("set_disk_free_limit", str(int(node["disk_free"] * 0.6)))
    with psycopg.connect(scene.postgres.url(), autocommit=True) as locker:
        stuck = new_id()
        soon = datetime.now(UTC) + timedelta(seconds=2)
        locker.execute(ROW, (new_id(), "infinity", "it cannot be encoded"))
        locker.execute(ROW, (stuck, soon, None))
        with locker.transaction():
            locker.execute("SELECT FROM leveret_outbox WHERE job_id = %s FOR UPDATE", (stuck,))
            for _ in range(3):
                scene.crash_children()
            for name in (
                "LeveretWorkersCrashing",
                "LeveretOutboxFailed",
                "LeveretDeadLettersGrowing",
                "LeveretNewFailure",
                "LeveretRetryStorm",
                "LeveretBrokerDiskLow",
            ):
                scene.check(name)
            scene.check("LeveretOutboxStuck", cause="slow")

    # Processes that are gone.
    scene.system.kill("recorder")
    dead = f'{{queue="{names.dead_queue("default")}"}}'
    scene.prometheus.wait(  # they stay, as nobody takes them any more
        f"rabbitmq_queue_messages{dead} > 0 and on (queue) rabbitmq_queue_consumers{dead} == 0"
    )
    scene.load.actors = ("mix.fine",)
    for name in ("worker", "relay"):
        scene.system.kill(name)
    scene.scheduler.kill()
    scene.load.publisher.publish_many(("mix.fine", {"n": "1" * 5000}) for _ in range(10))
    for name, labels in (
        ("LeveretQueueWithoutConsumers", {"queue": "default"}),
        ("LeveretLedgerLagging", {"cause": "recorder"}),
        ("LeveretLedgerNearItsBound", {}),
        ("LeveretDeadLettersNotRecorded", {"queue": names.dead_queue("default")}),
        ("LeveretOutboxStuck", {"cause": "relay"}),
        ("LeveretSchedulerNoLeader", {}),
        ("LeveretProcessDown", {"cause": "one"}),
        ("LeveretProcessDown", {"cause": "all", "process": "recorder"}),
    ):
        scene.check(name, **labels)

    # And the broker.
    scene.broker.control("set_vm_memory_high_watermark", "0.0000001")
    scene.check("LeveretBrokerAlarm", resource="memory")
    scene.broker.kill()
    scene.check("LeveretBrokerDown", cause="broker")


@pytest.mark.skipif(
    "LEVERET_ALL_ALERTS" not in os.environ, reason="it takes minutes: set LEVERET_ALL_ALERTS"
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scene", [{"leveret:queue_time_objective_seconds": 1}], indirect=True)
def test_slow_faults_reach_whoever_is_on_call_as_well(scene):
    """Too many jobs, jobs that hang, a wheel that stands still, a database that is full or gone."""
    broker, vhost = scene.broker, scene.broker.vhost
    scene.load.actors = ("mix.slow",) * 6
    scene.load.publisher.publish_many(("mix.slow", {"n": n}) for n in range(600))
    scene.check("LeveretBacklogNotDraining", cause="slow", queue="bulk")
    scene.check("LeveretQueueTimeBudgetBurning", window="1h", queue="bulk")

    scene.load.actors = ()
    purge(vhost, names.work_queue("bulk"))
    vhost.management.delete("exchanges", vhost.name, names.DUE)
    for n in range(5):
        scene.load.publisher.publish("mix.fine", {"n": n}, delay=0.3)
    scene.check("LeveretDelayWheelStuck", cause="broker")
    broker.vhost.declare(mixedjobs.ACTORS)

    with contextlib.ExitStack() as stack:
        limit = scene.prometheus.value("max(leveret_database_connections_limit)")
        for _ in range(
            int(limit * 0.95 - scene.prometheus.value("max(leveret_database_connections)"))
        ):
            stack.enter_context(psycopg.connect(scene.postgres.url()))
        scene.check("LeveretDatabaseConnectionsShort")

    scene.load.publisher.publish_many(
        (("mix.hang", {"n": n}) for n in range(2000)), queue="critical"
    )
    scene.check("LeveretBacklogNotDraining", cause="stuck", queue="critical")

    scene.postgres.kill()
    scene.check("LeveretDatabaseDown")
