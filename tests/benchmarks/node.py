"""A private RabbitMQ node for the benchmarks: free ports, loopback, own data, never root."""

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pika
import pika.exceptions

from tests.benchmarks.error import BenchmarkError

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_NOBODY = 65534
_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0

# Without it the wheel's dead-letter workers wait three minutes for a confirm that is not coming.
_ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 10000}]}].\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Node:
    """One RabbitMQ node, started on entering and stopped, with its data removed, on leaving."""

    def __init__(self) -> None:
        self._user = "bench"
        self._password = secrets.token_urlsafe(18)
        self._amqp_port = _free_port()
        self._management_port = _free_port()
        self._epmd_port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def amqp_url(self, vhost: str) -> str:
        """Return the AMQP URL of a virtual host, with the administrator's password in it."""
        return (
            f"amqp://{self._user}:{self._password}@127.0.0.1:{self._amqp_port}"
            f"/{urllib.parse.quote(vhost, safe='')}"
        )

    @property
    def management_url(self) -> str:
        """The URL of the management API, with the administrator's password in it."""
        return f"http://{self._user}:{self._password}@127.0.0.1:{self._management_port}"

    def __enter__(self) -> Self:
        if not _SERVER.exists():
            raise BenchmarkError(
                f"there is no RabbitMQ at {_SERVER}: install it with "
                "`apt-get install --no-install-recommends rabbitmq-server`"
            )
        self._folder = Path(tempfile.mkdtemp(prefix="leveret-bench-"))
        self._write_configuration()
        home, environment = self._folder, self._environment()
        as_nobody: dict[str, Any] = {}
        if os.geteuid() == 0:
            as_nobody = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
            for path in [home, *home.rglob("*")]:
                os.chown(path, _NOBODY, _NOBODY)
        with (home / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [str(_SERVER)],
                env=environment,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **as_nobody,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def create_vhost(self, vhost: str) -> None:
        """Make a virtual host in which the administrator may do everything."""
        name = urllib.parse.quote(vhost, safe="")
        self.request("PUT", f"/api/vhosts/{name}", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.request("PUT", f"/api/permissions/{name}/{self._user}", everything)

    def queues(self, vhost: str) -> list[str]:
        """Return the names of a virtual host's queues."""
        name = urllib.parse.quote(vhost, safe="")
        found = self.request("GET", f"/api/queues/{name}?columns=name")
        return [queue["name"] for queue in found]

    def version(self) -> str:
        """Return the broker's version."""
        return str(self.request("GET", "/api/overview")["rabbitmq_version"])

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Call the management API; return what it answered, if it was JSON."""
        token = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._management_port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            content = response.read()
        return json.loads(content) if content else None

    def _write_configuration(self) -> None:
        home = self._folder
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._amqp_port}\n"
            f"management.tcp.ip = 127.0.0.1\n"
            f"management.tcp.port = {self._management_port}\n"
            f"default_user = {self._user}\n"
            f"default_pass = {self._password}\n"
            "disk_free_limit.absolute = 200MB\n"
            "log.file.level = warning\n"
            "log.console = false\n"
        )
        (home / "rabbitmq.conf").chmod(0o600)
        (home / "advanced.config").write_text(_ADVANCED)
        (home / "plugins").write_text("[rabbitmq_management].\n")

    def _environment(self) -> dict[str, str]:
        home = self._folder
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"bench{self._amqp_port}@localhost",
            "RABBITMQ_NODE_PORT": str(self._amqp_port),
            "RABBITMQ_DIST_PORT": str(_free_port()),
            "RABBITMQ_MNESIA_BASE": str(home / "db"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _READY_SECONDS
        parameters = pika.URLParameters(self.amqp_url("/"))
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(pika.exceptions.AMQPError, OSError):
                pika.BlockingConnection(parameters).close()
                self.version()
                return
            time.sleep(0.2)
        output = (self._folder / "output").read_text(errors="replace")[-2000:]
        raise BenchmarkError(
            f"the RabbitMQ node was not ready within {_READY_SECONDS:.0f} s; it said:\n{output}"
        )

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        # The port mapper is a daemon of its own, and of this node alone.
        epmd = shutil.which("epmd")
        if epmd is not None:
            subprocess.run(
                [epmd, "-port", str(self._epmd_port), "-kill"],
                env=self._environment(),
                capture_output=True,
                check=False,
            )
        shutil.rmtree(self._folder, ignore_errors=True)
