"""An installation that somebody is on call for: processes, a broker and a database, to be broken.

Its `console` is where the commands of a runbook are run (`tests.support.runbooks`). RabbitMQ's
tools are the real ones, on the node of the test; ``kubectl`` does to the processes of the test what
it would do to those of a cluster.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
import psycopg
from psycopg import sql

from leveret import names
from leveret.housekeeping.actors import SHIPPED
from leveret.publisher import Publisher
from leveret.topology import build
from tests.support import faultjobs, oncejobs
from tests.support.processes import OurProcess
from tests.support.prometheus import Target
from tests.support.runbooks import Console
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.brokers import PrivateBroker
    from tests.support.forkedcommands import Commands
    from tests.support.runbooks import Queryable

#: Every actor that such a site knows, with its queue.
ACTORS: Mapping[str, str] = {
    **faultjobs.ACTORS,
    **oncejobs.ACTORS,
    **{shipped.name: "scheduled" for shipped in SHIPPED},
}
_MODULES = {
    "relay": ("services.relay",),
    "recorder": ("services.recorder",),
    "api": ("services.api",),
    "scheduler": ("scheduler",),
    **{
        f"worker-{queue}": (
            "services.worker",
            "--queues",
            queue,
            "--threads",
            "1",
            "--processes",
            "1",
        )
        for queue in names.DEFAULT_QUEUES
    },
}


class Site:
    """Processes by their names in a cluster: ``relay``, ``worker-bulk``, … None runs at first."""

    def __init__(
        self,
        broker: PrivateBroker,
        database: str,
        folder: Path,
        commands: Commands,
    ) -> None:
        self.broker = broker
        self.database = database
        self.commands = commands
        self._folder = folder
        self._processes: dict[str, list[OurProcess]] = {}
        self._variables: dict[str, dict[str, str]] = {}
        self._former: dict[str, dict[str, str]] = {}
        self._tools = folder / "tools"
        #: What ``kubectl rollout restart`` does to what is no process of ours.
        self.restarts: dict[str, Callable[[], object]] = {}
        broker.write_tools(self._tools)
        self._declare()
        empty(database)

    def _declare(self) -> None:
        """Bring the broker to the table, policies included, unless it is there."""
        vhost = self.broker.vhost
        there = {policy["name"] for policy in vhost.management.policies(vhost.name)}
        missing = [p for p in build(names.DEFAULT_QUEUES, {}).policies if p.name not in there]
        if not missing:
            return
        self.broker.declare(ACTORS)
        for policy in missing:
            vhost.management.put_policy(
                vhost.name,
                policy.name,
                pattern=policy.pattern,
                definition=policy.definition,
                apply_to=policy.apply_to,
            )

    # -------------------------------------------------------------------------------- processes

    def environment(self, role: str) -> dict[str, str]:
        """Return the settings of a process of this role."""
        return {
            **self.broker.vhost.environment(role),
            "LEVERET_DATABASE_URL": self.database,
            "LEVERET_ACTORS": f"{faultjobs.__name__},{oncejobs.__name__}",
            "LEVERET_SCHEDULER_LEASE": "2",
            faultjobs.FOLDER: str(self._folder),
        }

    def start(self, name: str, **variables: str) -> OurProcess:
        """Start one more process of a name, this one with these settings; returns at once."""
        role = name.partition("-")[0].replace("scheduler", "monitor")
        settings = {**self.environment(role), **self._variables.get(name, {}), **variables}
        words = ("-m", *_MODULES[name])
        made = OurProcess(name, words, settings, folder=self._folder, group=True)
        self._processes.setdefault(name, []).append(made)
        return made

    def crash(self, name: str) -> None:
        """Kill the process of a name that was started last; its log is still there."""
        process = self.process(name).process
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def kill(self, name: str) -> None:
        """Kill all processes of a name, with their children, and forget them."""
        for process in self._processes.pop(name, []):
            with suppress(ProcessLookupError):
                os.killpg(process.process.pid, signal.SIGKILL)
            process.process.wait(10)

    def close(self) -> None:
        """Kill everything."""
        for name in list(self._processes):
            for process in self._processes[name]:
                print(f"--- {name} said:\n{process.log[-2500:]}")
            self.kill(name)

    def process(self, name: str) -> OurProcess:
        """Return the process of a name that was started last."""
        return self._processes[name][-1]

    def address(self, name: str) -> str:
        """Return host and port of a process."""
        return self.process(name).url.partition("//")[2]

    def targets(self, name: str) -> list[Target]:
        """Return what Prometheus scrapes of all processes of a name."""
        return [Target(process.port) for process in self._processes.get(name, ())]

    def wait_ready(self, *process_names: str) -> None:
        """Return when these do their work."""
        for name in process_names:
            self.process(name).wait_ready()

    # ----------------------------------------------------------------------------------- its jobs

    def publish(
        self,
        actor: str = "probe.run",
        count: int = 1,
        *,
        arguments: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[str]:
        """Publish jobs as a service does; return their ids when the broker has them."""
        with Publisher(self.broker.vhost.url("publisher"), timeout=60) as publisher:
            given = [{"n": n} if arguments is None else arguments for n in range(count)]
            sent = [publisher.publish(actor, each, **options) for each in given]
            return [receipt.wait() for receipt in sent]

    def waiting(self, queue: str) -> int:
        """Return how many messages of a queue nobody holds."""
        url = self.broker.vhost.url("admin")
        connection = pika.BlockingConnection(pika.URLParameters(url))
        try:
            declared = connection.channel().queue_declare(queue, passive=True)
            return int(declared.method.message_count)
        finally:
            connection.close()

    def messages(self, queue: str) -> int:
        """Return how many messages of a queue the broker has counted."""
        vhost = self.broker.vhost
        return int((vhost.management.queue(vhost.name, queue) or {}).get("messages") or 0)

    def counted(
        self, queue: str, messages: int | None = None, *, consumers: int | None = None
    ) -> None:
        """Return when the broker's own counts of a queue, which are behind, say so."""
        management, vhost = self.broker.vhost.management, self.broker.vhost.name
        given = {"messages": messages, "consumers": consumers}
        wanted = {field: count for field, count in given.items() if count is not None}

        def as_wanted() -> bool:
            nonlocal found
            counts = management.queue(vhost, queue) or {}
            found = {field: counts.get(field) for field in wanted}
            return found == wanted

        found: dict[str, Any] = {}
        try:
            wait_until(as_wanted, timeout=60, every=0.1)
        except TimeoutError:
            raise TimeoutError(f"{queue} has not {wanted} after 60 s, but {found}") from None

    # --------------------------------------------------------------------------- who is on call

    def console(self, prometheus: Queryable | None = None, **settings: str) -> Console:
        """Return where commands are run, with the settings of an administrator and these."""
        path = f"{self._tools}{os.pathsep}{os.environ['PATH']}"
        return Console(
            environment={**self.environment("admin"), "PATH": path, **settings},
            stand_ins={"kubectl": self.kubectl},
            prometheus=prometheus,
            commands=self.commands,
        )

    def kubectl(self, words: list[str]) -> str:
        """Do what ``kubectl -n leveret …`` would do to the processes of a cluster."""
        assert words[:2] == ["-n", "leveret"], words
        plain = deque(word for word in words[2:] if not word.startswith("--"))
        options = dict(word[2:].split("=") for word in words[2:] if word.startswith("--"))
        match list(plain):
            case ["get", "pods"]:
                said = self._pods()
            case ["logs", what]:
                lines = self.process(_named(what)).log.splitlines()
                said = "\n".join(lines[-int(options["tail"]) :])
            case ["rollout", "restart", what] if what in self.restarts:
                self.restarts[what]()
                said = f"{what} restarted"
            case ["rollout", "restart", what]:
                said = self._restart(_named(what))
            case ["set", "env", what, *variables]:
                before = self._variables.setdefault(_named(what), {})
                self._former[_named(what)] = before
                self._variables[_named(what)] = before | dict(v.split("=", 1) for v in variables)
                said = self._restart(_named(what))
            case ["rollout", "undo", what]:
                self._variables[_named(what)] = self._former.pop(_named(what), {})
                said = self._restart(_named(what))
            case ["scale", what]:
                name, wanted = _named(what), int(options["replicas"])
                for _ in range(wanted - len(self._processes.get(name, ()))):
                    self.start(name)
                said = f"{what} scaled"
            case _:
                raise AssertionError(f"no test knows kubectl {words}")
        return said

    def _restart(self, name: str) -> str:
        count = len(self._processes.get(name, ())) or 1
        self.kill(name)
        for _ in range(count):
            self.start(name)
        return f"deployment.apps/leveret-{name} restarted"

    def _pods(self) -> str:
        rows = ["NAME                      READY  STATUS"]
        for name, processes in self._processes.items():
            for process in processes:
                ended = process.process.poll()
                ready = ended is None and process.is_ready()
                status = "Running" if ended is None else "CrashLoopBackOff"
                rows.append(f"leveret-{name:<18}{int(ready)}/1    {status}")
        return "\n".join(rows)


def empty(database: str) -> None:
    """Empty all tables of a database."""
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
        ).fetchall()
        tables = sql.SQL(", ").join(sql.Identifier(name) for (name,) in found)
        connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(tables))


def _named(what: str) -> str:
    """Return which process a deployment runs."""
    prefix = "deployment/leveret-"
    assert what.startswith(prefix), what
    return what.removeprefix(prefix)


__all__ = ["ACTORS", "Site"]
