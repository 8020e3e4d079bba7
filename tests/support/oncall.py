"""A shop on Leveret in which something goes wrong, and whoever is on call for it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
import yaml

from compose.native import ports
from leveret import names
from leveret.names import DEFAULT_QUEUES
from leveret.publisher import Publisher
from leveret.topology import build
from tests.support import shopjobs
from tests.support.forkedcommands import Commands
from tests.support.pages import ROOT
from tests.support.pools import WorkerPool
from tests.support.recorders import Ledger, RecorderProcess
from tests.support.relays import RelayProcess
from tests.support.runbooks import Console
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.brokers import Vhost
    from tests.support.prometheus import Prometheus


#: A folder for each pool.
POOLS = ROOT / "k8s" / "base" / "pools"
#: The release of the shop in which everything works.
GOOD = "7.1"


class MailServer:
    """An HTTP server that takes mails once it is started; until then its port refuses them."""

    def __init__(self) -> None:
        taken: list[Any] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken.append(json.loads(body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.taken = taken
        # Bound and not listening: nobody else can have the port meanwhile.
        self._server = http.server.ThreadingHTTPServer(
            (ports.HOST, ports.choose()), Handler, bind_and_activate=False
        )
        self._server.server_bind()
        self._thread: threading.Thread | None = None
        self.url = f"http://{ports.HOST}:{self._server.server_port}/mails"

    def start(self) -> None:
        """Take mails."""
        self._server.server_activate()
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End."""
        if self._thread is not None:
            self._server.shutdown()
        self._server.server_close()


class Shop:
    """The processes of a shop, on a virtual host and a database of its own.

    A recorder and a relay run from the start, pools when a test or a page's command starts them.
    """

    def __init__(self, vhost: Vhost, database: str, folder: Path) -> None:
        self.vhost = vhost.declare(shopjobs.ACTORS)
        self.database = database
        self.folder = folder
        #: The file that lets the long report go.
        self.gate = folder / "gate"
        self.mail = MailServer()
        self.ledger = Ledger(database)
        self.commands = Commands()
        self.publisher = Publisher(vhost.url("publisher"), timeout=60, app_id="shop")
        self.pools: list[WorkerPool] = []
        self._releases: dict[WorkerPool, str] = {}
        self.relay = RelayProcess(vhost, folder=folder, LEVERET_DATABASE_URL=database)
        self.recorder: RecorderProcess | None = None
        self.start_recorder()
        self.relay.wait_ready()

    # -------------------------------------------------------------------------------- its processes

    def start_recorder(self) -> None:
        """Start the recorder, and return when it records."""
        environment = self.vhost.environment("recorder")
        self.recorder = RecorderProcess(environment, self.database, self.folder).wait_ready()

    def kill_recorder(self) -> None:
        """Kill the recorder (SIGKILL)."""
        if self.recorder is not None:
            self.recorder.kill()
            self.recorder = None

    def pool(self, queues: str = "default", *, release: str = GOOD, **options: Any) -> WorkerPool:
        """Start a pool of a release of the shop, and return when it is ready."""
        return self.start_pools(1, queues, release=release, **options)[0]

    def start_pools(
        self, count: int, queues: str, *, release: str, **options: Any
    ) -> list[WorkerPool]:
        """Start so many pools, and return when all are ready."""
        made = [
            WorkerPool(
                {**self.vhost.environment("worker"), "LEVERET_DATABASE_URL": self.database},
                self.folder,
                queues=queues,
                actors=("tests.support.shopjobs",),
                variables={
                    shopjobs.MAIL_URL: self.mail.url,
                    shopjobs.RELEASE: release,
                    shopjobs.GATE: str(self.gate),
                },
                **options,
            )
            for _ in range(count)
        ]
        self.pools += made
        self._releases |= dict.fromkeys(made, release)
        for pool in made:
            pool.wait_ready()
        return made

    def stop_pools(self, which: Sequence[WorkerPool] | None = None) -> None:
        """Drain these pools, or all, and return when they are gone."""
        ending = list(self.pools if which is None else which)
        for pool in ending:
            pool.drain()
        for pool in ending:
            pool.process.wait(40)
            self.pools.remove(pool)

    def reset(self) -> None:
        """End what a test has started, and forget all jobs; the recorder runs."""
        for pool in self.pools:
            pool.kill_everything()
        self.pools.clear()
        self.mail.stop()
        self.mail = MailServer()
        self.gate.unlink(missing_ok=True)
        if self.recorder is None:
            self.start_recorder()
        self.empty_queues()
        self.ledger.run(
            "TRUNCATE jobs, job_ids, attempts, dead_letters, dead_letter_groups, replays, workers,"
            " cancellations, leveret_outbox CASCADE"
        )

    def empty_queues(self) -> None:
        """Purge what waits for pools, and return when the recorder has read the rest.

        What a killed pool held comes back only when the broker has noticed its end.
        """
        connection = pika.BlockingConnection(pika.URLParameters(self.vhost.url("admin")))
        channel = connection.channel()

        def consumers(queue: str) -> int:
            found: int = channel.queue_declare(queue, passive=True).method.consumer_count
            return found

        for queue in build(DEFAULT_QUEUES, shopjobs.ACTORS).queues:
            if queue.name == names.LEDGER:
                continue
            if not queue.name.startswith((f"{names.DEAD}.", names.UNROUTABLE)):
                wait_until(
                    lambda name=queue.name: consumers(name) == 0,  # type: ignore[misc]
                    timeout=60,
                    what=f"nobody consumes {queue.name}",
                )
            channel.queue_purge(queue.name)
        connection.close()
        self.wait_queue(names.LEDGER, messages=0)

    def close(self) -> None:
        """End everything."""
        for pool in self.pools:
            pool.kill_everything()
        self.mail.stop()
        self.commands.close()
        self.publisher.close()
        self.ledger.close()
        self.kill_recorder()
        self.relay.kill()
        self._unbind()

    def _unbind(self) -> None:
        """Leave the virtual host to others as it was: without the actors of the shop."""
        wanted = build(DEFAULT_QUEUES, shopjobs.ACTORS).bindings
        others = set(build(DEFAULT_QUEUES, {}).bindings)
        connection = pika.BlockingConnection(pika.URLParameters(self.vhost.url("admin")))
        channel = connection.channel()
        for binding in set(wanted) - others:
            channel.queue_unbind(binding.destination, binding.source, binding.key)
        connection.close()

    # -------------------------------------------------------------------------- what a test asks it

    def publish(self, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Publish jobs, and return their ids when the ledger knows them all."""
        ids = self.publisher.publish_many(jobs)
        if self.recorder is not None:
            known = "SELECT count(*) FROM jobs WHERE id = ANY(%s)"
            self.ledger.wait_value(len(ids), known, ids, timeout=60)
        return ids

    def wait_states(self, timeout: float = 90.0, **counts: int) -> None:
        """Return when so many jobs are in each state, as the ledger says: ``succeeded=3``."""
        query = "SELECT state, count(*) FROM jobs GROUP BY state"

        def stand() -> dict[str, int]:
            return {row["state"]: row["count"] for row in self.ledger.rows(query)}

        wait_until(
            lambda: all(stand().get(state, 0) == count for state, count in counts.items()),
            timeout=timeout,
            every=0.1,
            what=f"{counts}, and not {stand()}",
        )

    def wait_queue(self, name: str, timeout: float = 60.0, **counts: int) -> None:
        """Return when the broker's statistics say so of a queue; they are some seconds old."""

        def stands() -> bool:
            found = self.vhost.management.queue(self.vhost.name, name) or {}
            return all(found.get(field) == count for field, count in counts.items())

        wait_until(stands, timeout=timeout, every=0.2, what=f"{name} has {counts}")

    def wait_shrinking(self, queue: str) -> None:
        """Return when `leveret queues` tells how fast a queue's consumers make it shorter."""

        def shrinks() -> bool:
            shown = self.console().shell("leveret queues").row(queue)
            return float(shown["out/s"]) > 0 and shown["consumers"] != "0"

        wait_until(shrinks, timeout=60, every=0.2, what=f"{queue} becomes shorter")

    # -------------------------------------------------------------------------- what the pages need

    def console(self, prometheus: Prometheus | None = None, **stand_ins: Any) -> Console:
        """Return where the commands of a page are run, as an administrator."""
        return Console(
            environment={
                **self.vhost.environment("admin"),
                "LEVERET_DATABASE_URL": self.database,
                "LEVERET_ACTORS": "tests.support.shopjobs",
            },
            commands=self.commands,
            prometheus=prometheus,
            stand_ins=stand_ins,
        )

    def kubectl(self, *, first: int = 8) -> Callable[[list[str]], str]:
        """Return what does here what kubectl does to a Deployment of a pool, or of the recorder.

        Its pods have eight threads, and as many as ``first`` where there was none.
        """

        def run(words: list[str]) -> str:
            match words:
                case ["-n", "leveret", "scale", "deployment", name, count]:
                    assert name in deployments(), f"there is no Deployment {name}"
                    queue = name.removeprefix("leveret-worker-")
                    replicas = int(count.removeprefix("--replicas="))
                    if not replicas:
                        self.stop_pools()
                    more = max(0, replicas - len(self.pools))
                    threads = 8 if self.pools else first
                    self.start_pools(more, queue, release=GOOD, threads=threads)
                    return f"deployment.apps/{name} scaled\n"
                case ["-n", "leveret", "rollout", "undo", "deployment", name]:
                    assert name in deployments(), f"there is no Deployment {name}"
                    before = [pool for pool in self.pools if self._releases[pool] != GOOD]
                    if before:
                        self.pool(name.removeprefix("leveret-worker-"), threads=8)
                    self.stop_pools(before)
                    return f"deployment.apps/{name} rolled back\n"
                case ["-n", "leveret", "rollout", "restart", "deployment", "leveret-recorder"]:
                    assert "leveret-recorder" in deployments()
                    self.kill_recorder()
                    self.start_recorder()
                    return "deployment.apps/leveret-recorder restarted\n"
            raise AssertionError(f"no test knows kubectl {words}")

        return run


def deployments() -> set[str]:
    """Return the names of the Deployments in k8s/."""
    found = {f"leveret-worker-{pool.parent.name}" for pool in POOLS.glob("*/pool.yaml")}
    for file in POOLS.parent.glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind"] == "Deployment":
                found.add(str(document["metadata"]["name"]))
    return found
