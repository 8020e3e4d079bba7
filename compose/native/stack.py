"""The stack of one checkout: a broker, a database, users, topology, and Leveret's processes.

The broker and the database are each, in this order: the server that the environment names, one
in Docker when an engine runs, a private one of this checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, unquote, urlsplit

import psycopg
from psycopg import sql

from compose.native import docker, envfile, passwords, ports, processes, releases
from compose.native.errors import StackError
from compose.native.postgres import PostgresServer
from compose.native.rabbitmq import Credentials, RabbitNode
from compose.native.service import Service, present
from leveret.errors import ManagementError
from leveret.management import Management, provision
from leveret.topology.roles import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compose.native.paths import Checkout

VHOST = "leveret"
#: The broker's administrator: it makes vhosts and users, and does none of the processes' work.
OWNER = "owner"
DATABASE = "leveret"
#: How long workers of a demonstration that was broken off may take to drain.
_DEMO_GRACE_SECONDS = 8.0
#: The roles whose processes use PostgreSQL.
_DATABASE_ROLES = ("admin", "publisher", "relay", "worker", "recorder", "api")


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A broker as its owner reaches it."""

    origin: str
    amqp_url: str
    management_url: str
    #: Whether it was there before us, and is not ours to stop.
    named: bool = False

    def url_for(self, user: str, password: str) -> str:
        """Return the AMQP URL (several, with commas, for a cluster's nodes) of another user."""
        nodes = self.amqp_url.split(",")
        return ",".join(_with_login(node, user, password).geturl() for node in nodes)

    def management_url_for(self, user: str, password: str) -> str:
        """Return the management API's URL for another user."""
        return _with_login(self.management_url, user, password).geturl()


@dataclass(frozen=True, kw_only=True)
class Database:
    """A database as Leveret's processes reach it."""

    origin: str
    url: str


class Stack:
    """The stack of one checkout. Its state is on disk and in its processes."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.data = checkout.open()
        names = (*ROLES, OWNER, "postgres", "database")
        self._passwords = passwords.ensure(checkout.passwords, names)
        release = releases.wanted()
        name = "rabbitmq" if release is None else f"rabbitmq-{release}"
        self.node = self._node_in(self.data / name)
        self.postgres = PostgresServer(self.data / "postgres", password=self._passwords["postgres"])
        self.services = [Service(checkout, kind) for kind in present()]
        #: Roles that get their permissions when the topology stands.
        self._withheld: tuple[str, ...] = ()

    def up(self) -> None:
        """Start what does not run yet; return when all of it is ready."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            starting = pool.submit(self._start_broker), pool.submit(self._start_database)
            broker, database = starting[0].result(), starting[1].result()
        print(f"broker:    {broker.origin}", flush=True)
        print(f"database:  {database.origin}", flush=True)
        previous = [service.environment() for service in self.services]
        self._write_environments(broker, database, least_privilege=self._provision(broker))
        with ThreadPoolExecutor(max_workers=2) as pool:
            commands = [("topology", "apply"), ("migrate",)]
            for preparing in [pool.submit(self._prepare, *command) for command in commands]:
                preparing.result()
        if self._withheld:
            self._provision(broker)
        for service, environment in zip(self.services, previous, strict=True):
            if environment != service.environment():
                service.stop()
            service.spawn()
        for service in self.services:
            name = f"{service.kind.name}:"
            print(f"{name:10} {service.wait_until_ready()}", flush=True)
        print(f"a client's environment: {self.checkout.env}", flush=True)

    def down(self) -> None:
        """Stop everything of this checkout; return when no process is left."""
        demo = self.checkout.demo_mark
        nodes = [self.node, *self._other_nodes()]
        ours = [
            *(pid for service in self.services for pid in service.processes()),
            *processes.marked(demo),
            *(pid for node in nodes for pid in node.processes()),
        ]
        processes.end(demo, grace_seconds=_DEMO_GRACE_SECONDS)
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(Service.stop, self.services))
        with ThreadPoolExecutor(max_workers=2) as pool:
            stops = [self.postgres.stop, *(node.stop for node in nodes)]
            for stopping in [pool.submit(stop) for stop in stops]:
                stopping.result()
        self._sweep()
        docker.down(self.checkout)
        processes.wait_reaped(ours)

    def clean(self) -> None:
        """Stop everything, and remove the volumes of the containers: their passwords go, too."""
        self.down()
        docker.remove_data(self.checkout)

    def status(self) -> list[tuple[str, str]]:
        """Return each part of the stack with what it does now."""
        broker = "stopped"
        if self.node.is_running():
            state = "ready" if self.node.is_ready() else "starting"
            broker = f"{state}, management at {self.node.management_url}"
        database = "stopped"
        if self.postgres.is_running():
            database = f"ready at {ports.HOST}:{self.postgres.port}"
        parts = [("private broker", broker), ("private database", database)]
        parts += docker.status(self.checkout)
        return [*parts, *((service.kind.name, service.status()) for service in self.services)]

    def _node_in(self, data: Path) -> RabbitNode:
        return RabbitNode(data, admin=self._credentials(OWNER), vhost=VHOST)

    def _other_nodes(self) -> list[RabbitNode]:
        """Return this checkout's nodes of other releases, each with its own data."""
        found = sorted(self.data.glob("rabbitmq*"))
        return [self._node_in(data) for data in found if data != self.node.data_dir]

    def _sweep(self) -> None:
        """Remove the servers that a test of this checkout has started, and could not remove."""
        for data in self.checkout.scratch():
            RabbitNode(data, admin=self._credentials(OWNER)).destroy()
            PostgresServer(data, password="").destroy()

    def _credentials(self, role: str) -> Credentials:
        return Credentials(f"leveret-{role}", self._passwords[role])

    def _start_broker(self) -> Broker:
        named = self._named("LEVERET_AMQP_URL")
        if named is not None:
            first = named.split(",")[0]
            management = os.environ.get("LEVERET_MANAGEMENT_URL") or _beside(first)
            where = urlsplit(first).hostname
            return Broker(
                origin=f"the one named by LEVERET_AMQP_URL, on {where}",
                amqp_url=named,
                management_url=management,
                named=True,
            )
        owner = self._credentials(OWNER)
        contained = docker.up(self.checkout, owner, self._passwords["postgres"])
        if contained is not None:
            login = f"{owner.user}:{owner.password}@{ports.HOST}"
            return Broker(
                origin=f"RabbitMQ in Docker, port {contained['amqp']}",
                amqp_url=f"amqp://{login}:{contained['amqp']}/{VHOST}",
                management_url=f"http://{login}:{contained['management']}",
            )
        for other in self._other_nodes():
            other.stop()
        self.node.start()
        management_url = _with_login(self.node.management_url, owner.user, owner.password).geturl()
        return Broker(
            origin=f"private RabbitMQ node, management at {self.node.management_url}",
            amqp_url=self.node.amqp_url(),
            management_url=management_url,
        )

    def _start_database(self) -> Database:
        named = self._named("LEVERET_DATABASE_URL")
        if named is not None:
            where = urlsplit(named).hostname
            return Database(origin=f"the one named by LEVERET_DATABASE_URL, on {where}", url=named)
        contained = docker.up(self.checkout, self._credentials(OWNER), self._passwords["postgres"])
        superuser = self._passwords["postgres"]
        if contained is not None:
            origin = f"PostgreSQL in Docker, port {contained['postgres']}"
            url = f"postgresql://postgres:{superuser}@{ports.HOST}:{contained['postgres']}/postgres"
        else:
            self.postgres.start()
            origin = f"private PostgreSQL, port {self.postgres.port}"
            url = self.postgres.url()
        return Database(origin=origin, url=_create_database(url, self._passwords["database"]))

    def _named(self, variable: str) -> str | None:
        """Return the URL in the environment, unless it is one that we wrote ourselves."""
        value = os.environ.get(variable)
        if not value:
            return None
        ours = [self.checkout.env, *self.checkout.env_d.glob("*.env")]
        written = {envfile.read(file).get(variable) for file in ours if file.exists()}
        return None if value in written and self.node.data_dir.exists() else value

    def _provision(self, broker: Broker) -> bool:
        """Create the users of all roles; return False when a named broker does not let us."""
        vhost = unquote(urlsplit(broker.amqp_url.split(",")[0]).path.removeprefix("/")) or "/"
        with Management(broker.management_url) as management:
            try:
                may = "administrator" in management.tags()
                reason = f"the user {management.user!r} is no administrator"
            except ManagementError as error:
                if not broker.named:
                    raise
                may, reason = False, f"{error}"
            if may:
                self._withheld = provision(management, vhost, self._passwords)
                return True
        print(
            f"note: every process uses the user in LEVERET_AMQP_URL instead of one of its own, "
            f"because of LEVERET_MANAGEMENT_URL: {reason}",
            file=sys.stderr,
        )
        return False

    def _write_environments(
        self, broker: Broker, database: Database, *, least_privilege: bool
    ) -> None:
        def variables(role: str) -> dict[str, str]:
            found = {"LEVERET_AMQP_URL": broker.amqp_url}
            watcher = role if ROLES[role].tags else "monitor"
            if least_privilege:
                user = ROLES[role].user
                found["LEVERET_AMQP_URL"] = broker.url_for(user, self._passwords[role])
                found["LEVERET_MANAGEMENT_URL"] = broker.management_url_for(
                    ROLES[watcher].user, self._passwords[watcher]
                )
            else:
                found["LEVERET_MANAGEMENT_URL"] = broker.management_url
            if role in _DATABASE_ROLES:
                found["LEVERET_DATABASE_URL"] = database.url
            if role in ("admin", "worker", "api"):
                found["LEVERET_ACTORS"] = os.environ.get("LEVERET_ACTORS", "actors")
            return found

        for role in ROLES:
            envfile.write(self.checkout.env_d / f"{role}.env", variables(role))
        # The scheduler writes into the outbox, and has no business with the broker.
        scheduler = {
            "LEVERET_DATABASE_URL": database.url,
            "LEVERET_ACTORS": variables("worker")["LEVERET_ACTORS"],
        }
        envfile.write(self.checkout.env_d / "scheduler.env", scheduler)
        owner = {
            "LEVERET_AMQP_URL": broker.amqp_url,
            "LEVERET_MANAGEMENT_URL": broker.management_url,
            "LEVERET_DATABASE_URL": database.url,
        }
        envfile.write(self.checkout.env_d / f"{OWNER}.env", owner)
        envfile.write(self.checkout.env, variables("publisher"))

    def _prepare(self, *command: str) -> None:
        """Run a command of the administrator's."""
        environment = envfile.read(self.checkout.env_d / "admin.env")
        answer = subprocess.run(
            [str(Path(sys.executable).with_name("leveret")), *command],
            env=_clean(os.environ) | environment,
            cwd=self.checkout.root,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            said = answer.stderr or answer.stdout
            raise StackError(f"`leveret {' '.join(command)}` failed:\n{said}")


def _create_database(url: str, password: str) -> str:
    """Create Leveret's own role and database as the superuser; return the database's URL."""
    with psycopg.connect(url, autocommit=True) as connection:
        role = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [DATABASE])
        verb = sql.SQL("ALTER" if role.fetchone() else "CREATE")
        name, secret = sql.Identifier(DATABASE), sql.Literal(password)
        # CREATEDB: tests work in databases of their own.
        make_role = sql.SQL("{} ROLE {} LOGIN CREATEDB PASSWORD {}")
        connection.execute(make_role.format(verb, name, secret))
        exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if not exists.fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
    return _with_login(url, DATABASE, password)._replace(path=f"/{DATABASE}").geturl()


def _with_login(url: str, user: str, password: str) -> SplitResult:
    parts = urlsplit(url)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}")


def _beside(amqp_url: str) -> str:
    """Return where the management API of a named broker usually is."""
    parts = urlsplit(amqp_url)
    login = parts.netloc.rpartition("@")[0]
    scheme, port = ("https", 15671) if parts.scheme == "amqps" else ("http", 15672)
    return f"{scheme}://{login or 'guest:guest'}@{parts.hostname}:{port}"


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without settings of Leveret that happen to be in the shell."""
    return {name: value for name, value in environment.items() if not name.startswith("LEVERET_")}
