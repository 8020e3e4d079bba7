"""The demonstration's own virtual host on the stack's broker.

It is called `leveret-demo`, has the users, permissions and topology that `leveret` has, and stays
for a look at it afterwards. Whoever runs the demonstration again empties it first, which is right
because nobody else publishes there: what is left is from a run that was broken off.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import pika

from compose.demo.errors import DemoError
from compose.native import envfile
from compose.native.processes import wait_until
from leveret.errors import ManagementError
from leveret.management import Management, grant
from leveret.names import DEFAULT_QUEUES, work_queue
from leveret.topology import build

if TYPE_CHECKING:
    from compose.native.paths import Checkout

__all__ = ["ACTORS", "VHOST", "DemoBroker"]

VHOST = "leveret-demo"
#: The modules whose actors the demonstration's workers run.
ACTORS = "actors,compose.demo.actors"
_OTHERS_LEAVE_SECONDS = 6.0


@dataclass(frozen=True)
class DemoBroker:
    """The virtual host, as each role's user reaches it, and the database beside it."""

    checkout: Checkout

    def environment(self, role: str, database: str | None = None) -> dict[str, str]:
        """Return the settings of a process of this role, in the demonstration's virtual host.

        ``database`` is the URL of the demonstration's; without it there is none.
        """
        try:
            found = envfile.read(self.checkout.env_d / f"{role}.env")
        except FileNotFoundError:
            raise DemoError("the stack is not there: run `make demo`, which starts it") from None
        if (urls := found.get("LEVERET_AMQP_URL")) is not None:
            path = f"/{quote(VHOST, safe='')}"
            moved = [urlsplit(node)._replace(path=path).geturl() for node in urls.split(",")]
            found["LEVERET_AMQP_URL"] = ",".join(moved)
        found["LEVERET_ACTORS"] = ACTORS
        stack = found.pop("LEVERET_DATABASE_URL", None)
        if stack is not None and database is not None:
            found["LEVERET_DATABASE_URL"] = database
        return found

    @property
    def stack_database(self) -> str:
        """The URL of the stack's own database."""
        try:
            return envfile.read(self.checkout.env_d / "owner.env")["LEVERET_DATABASE_URL"]
        except FileNotFoundError:
            raise DemoError("the stack is not there: run `make demo`, which starts it") from None

    def url(self, role: str) -> str:
        """Return the AMQP URL of a role's user."""
        return self.environment(role)["LEVERET_AMQP_URL"]

    def prepare(self) -> None:
        """Create the virtual host with permissions and topology, and empty it."""
        owner = self.environment("owner")
        if owner["LEVERET_AMQP_URL"] == self.url("worker"):
            raise DemoError(
                f"the demonstration needs a virtual host {VHOST!r} with a user for each process, "
                "and LEVERET_MANAGEMENT_URL is no administrator's: name one that is, or unset "
                "LEVERET_AMQP_URL so that a private broker is used"
            )
        try:
            with Management(owner["LEVERET_MANAGEMENT_URL"]) as management:
                management.create_vhost(VHOST)
                if grant(management, VHOST):
                    self._apply_topology()
                    grant(management, VHOST)
        except ManagementError as error:
            raise DemoError(
                f"cannot create the virtual host {VHOST!r}: {error} Does the stack run? "
                "`make demo` starts it"
            ) from error
        self._apply_topology()
        self._empty()

    def _apply_topology(self) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("LEVERET_")}
        answer = subprocess.run(
            [str(Path(sys.executable).with_name("leveret")), "topology", "apply"],
            env={**inherited, **self.environment("admin")},
            cwd=self.checkout.root,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            raise DemoError(f"`leveret topology apply` failed:\n{answer.stderr or answer.stdout}")

    def _empty(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self.url("admin").split(",")[0]))
        try:
            channel = connection.channel()

            def consumers() -> int:
                declared = [
                    channel.queue_declare(work_queue(queue), passive=True)
                    for queue in DEFAULT_QUEUES
                ]
                return sum(int(each.method.consumer_count) for each in declared)

            gone = wait_until(lambda: consumers() == 0, timeout_seconds=_OTHERS_LEAVE_SECONDS)
            if not gone:
                raise DemoError(
                    f"somebody else runs the demonstration in {VHOST!r} of this broker: wait until "
                    "it has ended"
                )
            for queue in build(DEFAULT_QUEUES, {}).queues:
                channel.queue_purge(queue.name)
        finally:
            connection.close()
