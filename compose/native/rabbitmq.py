"""A private RabbitMQ node: its own data, ports, cookie and port mapper, on loopback only.

    node = RabbitNode(data_dir, admin=Credentials("admin", password))
    node.start()      # 4 to 6 s; returns when AMQP and the management API answer
    node.kill()       # SIGKILL, as a crash
    node.start()      # the same data and ports
    node.stop()       # in good order; leaves no process

Any number of nodes can run, each with a data directory of its own.
"""

from __future__ import annotations

import hashlib
import http
import os
import secrets
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from compose.native import ports, processes, releases
from compose.native.accounts import Account
from compose.native.errors import StackError
from compose.native.install import ensure_apt
from compose.native.paths import Checkout, private_directory
from compose.native.releases import Release

PLUGINS = ("rabbitmq_management", "rabbitmq_prometheus")
#: Where Debian has the scripts themselves; those on PATH there insist on root or `rabbitmq`.
_DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
_PORTS = ("amqp", "management", "prometheus", "distribution", "epmd")
#: Shared with the Docker half.
_ADVANCED = Path(__file__).parents[1] / "advanced.config"


@dataclass(frozen=True)
class Credentials:
    """A RabbitMQ user's name and password; the password is never shown."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, '***')"


class RabbitNode:
    """One private node. Its state is on disk and in its processes, so any process may manage it.

    `admin` is created at the node's first start, with every right on `vhost`; `settings` are more
    lines of `rabbitmq.conf`, `parameters` are of the application `rabbit`, for what has no line
    there. Not thread-safe.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        admin: Credentials,
        vhost: str = "leveret",
        settings: dict[str, str] | None = None,
        parameters: dict[str, int] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.admin = admin
        self.vhost = vhost
        self.settings = dict(settings or {})
        self.parameters = dict(parameters or {})
        self._account = Account.for_servers()

    @property
    def name(self) -> str:
        """The Erlang node's name; it depends on the data directory alone."""
        return f"leveret-{hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:8]}@localhost"

    @property
    def log(self) -> Path:
        """The broker's log file."""
        return self.data_dir / "log" / f"{self.name}.log"

    @property
    def management_url(self) -> str:
        """The management API's address, without credentials."""
        return f"http://{ports.HOST}:{self._port('management')}"

    @property
    def prometheus_url(self) -> str:
        """The address of the broker's metrics."""
        return f"http://{ports.HOST}:{self._port('prometheus')}/metrics"

    def amqp_url(self, credentials: Credentials | None = None, vhost: str | None = None) -> str:
        """Return the AMQP URL for a user, by default the administrator."""
        who = credentials or self.admin
        where = quote(self.vhost if vhost is None else vhost, safe="")
        login = f"{quote(who.user, safe='')}:{quote(who.password, safe='')}"
        return f"amqp://{login}@{ports.HOST}:{self._port('amqp')}/{where}"

    def processes(self) -> dict[int, str]:
        """Return the node's live processes: process id to program name."""
        return processes.marked(self._mark)

    def is_running(self) -> bool:
        """Tell whether the broker's process exists (it may still be starting)."""
        return any(name != "epmd" for name in self.processes().values())

    def is_ready(self) -> bool:
        """Tell whether AMQP and the management API answer."""
        known = ports.load(self.data_dir / "ports.json")
        return bool(known) and _speaks_amqp(known["amqp"]) and _speaks_http(known["management"])

    def start(self, *, timeout_seconds: float = 60.0) -> None:
        """Start the node, unless it runs; return when AMQP and the management API answer.

        Raises `StackError`, with the end of the log, when it is not ready within the timeout.
        """
        if not self.is_running():
            release = find_release()
            processes.kill(self._mark)  # a port mapper whose broker has crashed
            self._prepare()
            self._spawn(release)
        ready = processes.wait_until(
            lambda: self.is_ready() or not self.is_running(), timeout_seconds=timeout_seconds
        )
        if not ready or not self.is_ready():
            state = f"is not ready after {timeout_seconds:.0f} s" if self.is_running() else "ended"
            raise StackError(
                f"RabbitMQ node {self.name} {state}. "
                f"Its output, {self._output}, ends:\n{_tail(self._output)}"
            )

    def stop(self, *, grace_seconds: float = 30.0) -> None:
        """Stop the node in good order, and its port mapper; return when no process is left."""
        broker = [pid for pid, name in self.processes().items() if name == "beam.smp"]
        processes.send(broker, signal.SIGTERM)
        processes.wait_until(lambda: not self.is_running(), timeout_seconds=grace_seconds)
        processes.kill(self._mark)

    def kill(self) -> None:
        """Crash the node: SIGKILL to each of its processes; return when none is left."""
        processes.kill(self._mark)

    def restart(self) -> None:
        """Stop in good order, then start on the same data and ports."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """Freeze the node's processes (SIGSTOP): connections stay open, nothing answers."""
        processes.send(list(self.processes()), signal.SIGSTOP)

    def resume(self) -> None:
        """Let frozen processes go on (SIGCONT)."""
        processes.send(list(self.processes()), signal.SIGCONT)

    def would_survive(self, queue: str, vhost: str | None = None) -> bool:
        """Tell whether the quorum queue would still exist after a crash now.

        RabbitMQ writes its register of quorum queues up to a second after a declaration. Killed
        before that, it comes back without the queue and without what the queue had confirmed.
        """
        name = f"{self.vhost if vhost is None else vhost}_{queue}".encode()
        registers = list(self.data_dir.glob("db/*/quorum/*/names.dets"))
        return bool(registers) and all(name in file.read_bytes() for file in registers)

    def destroy(self) -> None:
        """Kill the node and remove its data."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    @property
    def _mark(self) -> str:
        return f"rabbitmq:{self.data_dir}"

    @property
    def _output(self) -> Path:
        return self.data_dir / "log" / "output.log"

    def _port(self, name: str) -> int:
        try:
            return ports.load(self.data_dir / "ports.json")[name]
        except KeyError:
            raise StackError(f"the node in {self.data_dir} was never started") from None

    def _prepare(self) -> None:
        for directory in (self.data_dir, self.data_dir / "log", self.data_dir / "db"):
            private_directory(directory)
        port = ports.remembered(self.data_dir / "ports.json", _PORTS)
        config = {
            "listeners.tcp.1": f"{ports.HOST}:{port['amqp']}",
            "management.tcp.ip": ports.HOST,
            "management.tcp.port": str(port["management"]),
            "prometheus.tcp.ip": ports.HOST,
            "prometheus.tcp.port": str(port["prometheus"]),
            "default_vhost": self.vhost,
            "default_user": self.admin.user,
            "default_pass": self.admin.password,
            "default_user_tags.administrator": "true",
            "disk_free_limit.absolute": "200MB",
            **self.settings,
        }
        text = "".join(f"{key} = {value}\n" for key, value in config.items())
        write = self._account.write_private
        write(self.data_dir / "rabbitmq.conf", text)
        write(self.data_dir / "advanced.config", _ADVANCED.read_text(encoding="utf-8"))
        write(self.data_dir / "enabled_plugins", f"[{','.join(PLUGINS)}].\n")
        cookie = self.data_dir / ".erlang.cookie"
        if not cookie.exists():
            write(cookie, secrets.token_hex(24))
            cookie.chmod(0o400)

    def _environment(self) -> dict[str, str]:
        data = self.data_dir
        flags = "".join(f" -rabbit {name} {value}" for name, value in self.parameters.items())
        return {
            "PATH": _path(),
            "HOME": str(data),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": ports.HOST,
            "ERL_EPMD_PORT": str(self._port("epmd")),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": ports.HOST,
            "RABBITMQ_NODE_PORT": str(self._port("amqp")),
            "RABBITMQ_DIST_PORT": str(self._port("distribution")),
            "RABBITMQ_MNESIA_BASE": str(data / "db"),
            "RABBITMQ_LOG_BASE": str(data / "log"),
            "RABBITMQ_CONFIG_FILE": str(data / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(data / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(data / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": str(data / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
            + flags,
        }

    def _spawn(self, release: Release) -> None:
        env = self._environment()
        commands = (
            [str(release.epmd), "-address", ports.HOST, "-port", env["ERL_EPMD_PORT"]],
            [str(release.scripts / "rabbitmq-server")],
        )
        for argv in commands:
            processes.spawn(
                [*release.prefix, *argv],
                mark=self._mark,
                env=env,
                log=self._output,
                account=self._account,
                cwd=self.data_dir,
            )


def find_release() -> Release:
    """Return the release that `LEVERET_RABBITMQ` names, or else the installed one.

    It is downloaded, or installed, first when it is missing and we may.
    """
    name = releases.wanted()
    if name is not None:
        return releases.ensure(name, Checkout.here().open() / f"release-{name}")
    scripts = find_scripts()
    epmd = shutil.which("epmd", path=_path())
    if epmd is None:
        raise StackError("epmd is missing: install Erlang (Debian: erlang-base)")
    return Release(scripts=scripts, epmd=Path(epmd))


def find_scripts() -> Path:
    """Return the directory of `rabbitmq-server`, installed first when missing and allowed."""
    if not (_DEBIAN_SCRIPTS / "rabbitmq-server").exists():
        elsewhere = shutil.which("rabbitmq-server")
        if elsewhere is not None:
            return Path(elsewhere).resolve().parent
        try:
            ensure_apt(["rabbitmq-server"], "a private RabbitMQ node")
        except StackError as error:
            raise StackError(
                f"no RabbitMQ: {error}. Or start Docker, or set LEVERET_AMQP_URL to a broker"
            ) from error
    return _DEBIAN_SCRIPTS


def _path() -> str:
    erl = shutil.which("erl")
    path = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return os.pathsep.join(path if erl is None else [*path, str(Path(erl).parent)])


def _speaks_amqp(port: int) -> bool:
    """Tell whether the broker answers a protocol header: it does so only when it takes clients."""
    try:
        with socket.create_connection((ports.HOST, port), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def _speaks_http(port: int) -> bool:
    """Tell whether the management API asks for a login: then its database is there, too."""
    return ports.status(port, "/api/overview") == http.HTTPStatus.UNAUTHORIZED


def _tail(file: Path, lines: int = 15) -> str:
    try:
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(nothing)"
