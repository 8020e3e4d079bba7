"""A working stack in which everything happens that dashboards show, and a Prometheus that looks on.

`Scene` starts it; `Scene.play` publishes a load of jobs of which some fail, die, come back, or kill
their worker. `Scene.until_told` returns when every kind of event has happened.
"""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import psycopg
from sqlalchemy import text

from leveret import outbox
from leveret.housekeeping import BEAT
from leveret.housekeeping.actors import CHECK, SHIPPED
from leveret.schedules import run, store
from leveret.schedules.definition import Definition
from leveret.schedules.policy import Missed
from leveret.schedules.trigger import Every
from leveret.store import api_keys, engine
from tests.support.apis import ApiProcess
from tests.support.brokers import PrivateBroker
from tests.support.databases import temporary_database
from tests.support.pools import WorkerPool
from tests.support.processes import ROOT, bare_environment
from tests.support.prometheus import RULES, Prometheus, Target
from tests.support.recorders import RecorderProcess, migrated
from tests.support.relays import RelayProcess
from tests.support.schedulers import SchedulerProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compose.native.paths import Checkout
    from tests.support.processes import OurProcess

#: What the pools load. This process does not: other modules have actors of the same names.
MODULE = "tests.support.scenejobs"
#: Which queue each of its actors has.
ACTORS = {
    "order.charge": "critical",
    "email.send": "default",
    "webhook.deliver": "default",
    "image.resize": "bulk",
    "report.build": "bulk",
    "stock.count": "scheduled",
}
#: What is often published, of which actor, with which fates and for how long it runs (seconds).
LOAD: Sequence[tuple[float, str, Mapping[str, float], tuple[float, float]]] = (
    (0.30, "order.charge", {"fine": 0.99, "flaky": 0.01}, (0.005, 0.03)),
    (0.34, "email.send", {"fine": 0.96, "flaky": 0.03, "refused": 0.01}, (0.01, 0.08)),
    (
        0.25,
        "webhook.deliver",
        {"fine": 0.8, "flaky": 0.14, "hopeless": 0.03, "snooze": 0.03},
        (0.02, 0.2),
    ),
    (0.09, "image.resize", {"fine": 0.98, "flaky": 0.02}, (0.05, 0.4)),
    (0.02, "report.build", {"fine": 0.9, "refused": 0.1}, (0.4, 2.0)),
)


class Scene:
    """All of Leveret's processes on a broker and a database of their own, and what scrapes them.

    ``pools`` names each worker pool with its queues and threads. The rules' windows of hours and
    days are cut to minutes when ``hurried``, so that they have a value at once.
    """

    def __init__(
        self,
        checkout: Checkout,
        folder: Path,
        *,
        pools: Mapping[str, tuple[str, int]],
        schedulers: int = 1,
        hurried: bool = True,
        interval: float = 1.0,
    ) -> None:
        self._ending = ExitStack()
        self._folder = folder
        self._stop = threading.Event()
        self._loads: list[threading.Thread] = []
        self._chance = random.Random(5)
        try:
            self._start(checkout, pools, schedulers)
            self.prometheus = self._watch(hurried=hurried, interval=interval)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything."""
        self._stop.set()
        for load in self._loads:
            load.join(30)
        self._ending.close()

    # ------------------------------------------------------------------------------------ the stack

    def _start(
        self, checkout: Checkout, pools: Mapping[str, tuple[str, int]], schedulers: int
    ) -> None:
        self.began = time.time()
        self.broker = PrivateBroker(checkout)
        self._ending.callback(self.broker.destroy)
        vhost = self.broker.vhost.declare({**ACTORS, **{one.name: "scheduled" for one in SHIPPED}})
        self.url = migrated(self._ending.enter_context(temporary_database(checkout, "scene")))
        self._engine = engine(self.url, pool_size=2)
        self._ending.callback(self._engine.dispose)
        self._schedule()
        shared = {
            "LEVERET_DATABASE_URL": self.url,
            "LEVERET_HOUSEKEEPING": "true",
            "LEVERET_ACTORS": MODULE,
        }
        self.processes: dict[str, OurProcess] = {
            "recorder": RecorderProcess(vhost.environment("recorder"), self.url, self._folder),
            "relay": RelayProcess(vhost, folder=self._folder, LEVERET_DATABASE_URL=self.url),
            "api": ApiProcess(
                self.url, self._folder, actors=(MODULE,), variables=vhost.environment("api")
            ),
        }
        for name, (queues, threads) in pools.items():
            self.processes[f"worker-{name}"] = WorkerPool(
                vhost.environment(),
                self._folder,
                queues=queues,
                threads=threads,
                actors=(MODULE,),
                variables=shared,
            )
        for number in range(schedulers):
            self.processes[f"scheduler-{number}"] = SchedulerProcess(
                self.url, folder=self._folder, **shared
            )
        for process in self.processes.values():
            self._ending.callback(
                process.kill_everything if isinstance(process, WorkerPool) else process.kill
            )
        for process in self.processes.values():
            process.wait_ready()
        with self._engine.begin() as connection:
            _, key = api_keys.create(
                connection, name="scene", scopes=("publish", "read"), created_by="test"
            )
        self._http = self._ending.enter_context(
            httpx.Client(
                base_url=self.processes["api"].url,
                headers={"Authorization": f"Bearer {key}"},
                timeout=30,
                trust_env=False,
            )
        )

    def _schedule(self) -> None:
        """Make schedules; of one, many slots have passed before the first scheduler comes up."""
        with self._engine.begin() as connection:
            for name, seconds, missed in (
                ("stock.each-second", 1, Missed.SKIP),
                ("stock.each-other-second", 2, Missed.ONCE),
            ):
                definition = Definition(
                    name=name,
                    actor="stock.count",
                    arguments={"seconds": 0.05},
                    trigger=Every(timedelta(seconds=seconds)),
                    missed=missed,
                )
                store.create(connection, definition, origin="api", by="test")
            connection.execute(
                text(
                    "UPDATE schedules SET since = since - interval '1 min',"
                    " next_due_at = next_due_at - interval '1 min' WHERE missed = 'skip'"
                )
            )

    def _watch(self, *, hurried: bool, interval: float) -> Prometheus:
        node = int(re.findall(r":(\d+)/", self.broker.node.prometheus_url)[0])
        targets = [Target.broker(node), Target(node, job="rabbitmq-alarms")]
        for name, process in self.processes.items():
            service, _, pool = name.partition("-")
            labels = {"service": service} | ({"pool": pool} if service == "worker" else {})
            targets.append(Target(process.port, labels=labels))
        rules = sorted(RULES.glob("*.yaml"))
        if hurried:
            rules = [self._hurry(path) for path in rules]
        prometheus = Prometheus(self._folder, targets, rules=rules, interval=interval)
        self._ending.callback(prometheus.close)
        prometheus.wait_scraped(len(targets))
        return prometheus

    def _hurry(self, path: Path) -> Path:
        made = self._folder / path.name
        short = re.sub(r"\[\w+:\w+\]", "[5m:2s]", path.read_text())
        made.write_text(re.sub(r"^ +interval: .*$", "", short, flags=re.MULTILINE))
        return made

    # ------------------------------------------------------------------------------------- the load

    def play(self, rate: float) -> None:
        """Publish so many jobs a second from now on, until the end or another `play`."""
        self._rate = rate
        if not self._loads:
            for target in (self._publish, self._ask):
                self._loads.append(threading.Thread(target=target, daemon=True))
                self._loads[-1].start()

    def put(self, actor: str, number: int = 1, **arguments: Any) -> list[str]:
        """Publish some jobs by the outbox; return their ids."""
        with psycopg.connect(self.url) as connection:
            return outbox.enqueue_many(connection, [(actor, arguments)] * number)

    def misaddress(self) -> None:
        """Write a job for a queue that there is not, which stays in the outbox with its error."""
        with psycopg.connect(self.url) as connection:
            outbox.enqueue(connection, "email.send", queue="nowhere")

    def canary(self) -> None:
        """Send a canary, and a check of schedules, now instead of when their time has come."""
        wait_until(lambda: self._has(BEAT) and self._has(CHECK), timeout=60, what="housekeeping")
        with self._engine.begin() as connection:
            for name in (BEAT, CHECK):
                run.run(connection, name, by="test")

    def replay(self, actor: str) -> None:
        """Publish all dead letters of an actor again."""
        done = subprocess.run(
            [sys.executable, "-m", "leveret", "dead", "replay", "--actor", actor, "--yes"],
            cwd=ROOT,
            env={**bare_environment(), "LEVERET_DATABASE_URL": self.url},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _has(self, schedule: str) -> bool:
        with self._engine.begin() as connection:
            return store.get(connection, schedule) is not None

    def _publish(self) -> None:
        """Write what a moment brings into the outbox, until the end."""
        owed = 0.0
        with psycopg.connect(self.url) as connection:
            while not self._stop.wait(0.2):
                owed += self._rate * 0.2
                jobs = [self._job() for _ in range(int(owed))]
                owed -= len(jobs)
                trace, span = (self._chance.getrandbits(bits) for bits in (128, 64))
                outbox.enqueue_many(connection, jobs, traceparent=f"00-{trace:032x}-{span:016x}-01")
                connection.commit()

    def _ask(self) -> None:
        """Use the HTTP API as others do, until the end."""
        while not self._stop.wait(0.5):
            actor, arguments = self._job()
            self._http.post("/v1/jobs", json={"actor": actor, "arguments": arguments})
            self._http.get("/v1/jobs", params={"limit": 20})
            self._http.get("/v1/jobs/none-such")

    def _job(self) -> tuple[str, dict[str, Any]]:
        (_, actor, fates, (least, most)) = self._chance.choices(
            LOAD, weights=[share for share, *_ in LOAD]
        )[0]
        (fate,) = self._chance.choices(list(fates), weights=list(fates.values()))
        seconds = math.exp(self._chance.uniform(math.log(least), math.log(most)))
        arguments: dict[str, Any] = {"seconds": round(seconds, 4), "fate": fate}
        if fate == "snooze":
            arguments["until"] = time.time() + 2
        return actor, arguments


__all__ = ["LOAD", "Scene"]
