"""Virtual hosts and brokers for tests, provisioned as `make up` does it.

A `Vhost` is all that a test of the broker needs: an URL for each role's user, the owner's URL, and
the management API. A `PrivateBroker` is a node of the test's own, which it may kill.
"""

from __future__ import annotations

import secrets
import shlex
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlsplit

from compose.native import envfile, processes
from compose.native.errors import StackError
from compose.native.rabbitmq import Credentials, RabbitNode, find_release
from leveret.management import Management, grant, provision
from leveret.names import DEFAULT_QUEUES
from leveret.topology import ROLES, apply, build
from leveret.topology.roles import NOTHING
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from compose.native.paths import Checkout

#: Quorum queues tell of their length each second, and not every five.
_PARAMETERS = {"quorum_tick_interval": 1000}
#: What an operator has where the broker runs.
_TOOLS = ("rabbitmqctl", "rabbitmq-diagnostics")


@dataclass(frozen=True, kw_only=True)
class Vhost:
    """A virtual host of a test, in which each role's user has its permissions."""

    name: str
    #: The administrator's URL of this virtual host; it may do everything.
    amqp_url: str
    #: The administrator's management API, and its URL with credentials.
    management: Management
    management_url: str
    #: Passwords by role, `owner` among them.
    passwords: Mapping[str, str] = field(repr=False)

    def url(self, role: str = "publisher") -> str:
        """Return the AMQP URL for a role's user in this virtual host."""
        return _with_login(self.amqp_url, f"leveret-{role}", self.passwords[role])

    def management_url_for(self, role: str) -> str:
        """Return the management API's URL for a role's user."""
        return _with_login(self.management_url, f"leveret-{role}", self.passwords[role])

    def declare(
        self,
        actors: Mapping[str, str] | None = None,
        queues: Sequence[str] = DEFAULT_QUEUES,
    ) -> Self:
        """Apply the topology, with these actors bound to these queues (`{"email.send": …}`)."""
        apply(self.url("admin"), build(queues, actors or {}))
        return self.granted()

    def granted(self) -> Self:
        """Have the permissions that a broker which restricts only exchanges that exist has lost."""
        publisher = self.management.get("permissions", self.name, ROLES["publisher"].user)
        worker = ROLES["worker"]
        restricted = self.management.topic_permissions(self.name, worker.user)
        if publisher["write"] == NOTHING or worker.topics.keys() - restricted.keys():
            grant(self.management, self.name)
        return self

    def environment(self, role: str = "worker") -> dict[str, str]:
        """Return the settings of a process of this role."""
        watcher = role if ROLES[role].tags else "monitor"
        return {
            "LEVERET_AMQP_URL": self.url(role),
            "LEVERET_MANAGEMENT_URL": self.management_url_for(watcher),
        }


@dataclass(frozen=True, kw_only=True)
class SharedBroker:
    """The broker that `make up` started, as its owner reaches it."""

    amqp_url: str
    management_url: str
    passwords: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, checkout: Checkout) -> SharedBroker:
        """Read where the checkout's broker is; the shell's environment plays no part."""
        owner = envfile.read(checkout.env_d / "owner.env")
        passwords = {
            role: urlsplit(envfile.read(checkout.env_d / f"{role}.env")["LEVERET_AMQP_URL"])
            for role in ROLES
        }
        return cls(
            amqp_url=owner["LEVERET_AMQP_URL"],
            management_url=owner["LEVERET_MANAGEMENT_URL"],
            passwords={role: url.password or "" for role, url in passwords.items()},
        )

    def create_vhost(self, label: str) -> Vhost:
        """Create an empty virtual host with the permissions of all roles."""
        name = f"test-{label}-{secrets.token_hex(4)}"
        management = Management(self.management_url, timeout_seconds=60)
        management.create_vhost(name)
        management.put_permissions(name, management.user, configure=".*", write=".*", read=".*")
        grant(management, name)
        return Vhost(
            name=name,
            amqp_url=urlsplit(self.amqp_url)._replace(path=f"/{quote(name, safe='')}").geturl(),
            management=management,
            management_url=self.management_url,
            passwords=self.passwords,
        )


class PrivateBroker:
    """A node of one test: `kill`, `start`, `stop`, `restart`, `suspend` and `resume` it.

    `vhost` is its virtual host `leveret`, provisioned, without topology until `declare()`.
    """

    def __init__(self, checkout: Checkout, settings: dict[str, str] | None = None) -> None:
        data = checkout.new_scratch("broker")
        passwords = {role: secrets.token_urlsafe(16) for role in (*ROLES, "owner")}
        owner = Credentials("leveret-owner", passwords["owner"])
        self.node = RabbitNode(data, admin=owner, settings=settings, parameters=_PARAMETERS)
        try:
            self.node.start()
        except StackError:
            self.node.destroy()
            raise
        url = _with_login(self.node.management_url, owner.user, owner.password)
        self.vhost = Vhost(
            name="leveret",
            amqp_url=self.node.amqp_url(),
            management=Management(url, timeout_seconds=60),
            management_url=url,
            passwords=passwords,
        )
        provision(self.vhost.management, "leveret", passwords)

    def declare(
        self,
        actors: Mapping[str, str] | None = None,
        queues: Sequence[str] = DEFAULT_QUEUES,
    ) -> Vhost:
        """Apply the topology; return when the node, killed, would come back with all of it."""
        self.vhost.declare(actors, queues)
        for queue in build(queues, actors or {}).queues:
            self.wait_until_kept(queue.name)
        return self.vhost

    def wait_until_kept(self, queue: str) -> None:
        """Return when the node, killed, would come back with this quorum queue."""
        wait_until(lambda: self.node.would_survive(queue), what=f"{queue} is on disk")

    def start(self) -> None:
        """Start the node on its old data and ports; return when it takes connections."""
        self.node.start()

    def stop(self) -> None:
        """Stop the node in good order."""
        self.node.stop()

    def kill(self) -> None:
        """Crash the node (SIGKILL)."""
        self.node.kill()

    def restart(self) -> None:
        """Stop the node in good order, then start it."""
        self.node.restart()

    def suspend(self) -> None:
        """Freeze the node: its connections stay open and nothing answers."""
        self.node.suspend()

    def resume(self) -> None:
        """Let a frozen node go on."""
        self.node.resume()

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on the node; return what it prints."""
        account, release = self.node._account, find_release()
        done = subprocess.run(
            [*release.prefix, release.scripts / "rabbitmqctl", "--quiet", *arguments],
            env=self.node._environment(),
            cwd=self.node.data_dir,
            user=account.uid,
            group=account.gid,
            extra_groups=None if account.uid is None else [],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def write_tools(self, folder: Path) -> None:
        """Write `rabbitmqctl` and `rabbitmq-diagnostics` into a folder, for this node."""
        account, release = self.node._account, find_release()
        become: list[str] = []
        if account.uid is not None:
            ids = ("--reuid", str(account.uid), "--regid", str(account.gid))
            become = ["setpriv", *ids, "--clear-groups", "--"]
        # Its tools start a port mapper where there is none; with the mark, it ends with the node.
        environment = {**self.node._environment(), processes.MARK: self.node._mark}
        settings = [f"{name}={value}" for name, value in environment.items()]
        folder.mkdir(exist_ok=True)
        for name in _TOOLS:
            words = [*become, "env", "-i", *settings, *release.prefix, release.scripts / name]
            command = shlex.join(map(str, words))
            script = folder / name
            script.write_text(
                f'#!/bin/sh\ncd {shlex.quote(str(self.node.data_dir))} && exec {command} "$@"\n'
            )
            script.chmod(0o700)

    def destroy(self) -> None:
        """Kill the node and remove its data."""
        self.vhost.management.close()
        self.node.destroy()


def _with_login(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()
