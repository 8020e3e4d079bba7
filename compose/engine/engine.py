"""A private Docker engine: its own data, socket and network, and no trace when it has ended.

It neither reads nor changes the machine's firewall: containers reach each other over bridges, and
us over ports that a small process of Docker's carries to the loopback interface. What must reach
the outside (a build that installs packages) uses the machine's network.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from compose.native import processes
from compose.native.errors import StackError
from compose.native.install import ensure_apt
from compose.native.paths import ELSEWHERE, Checkout

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Engine"]

_PACKAGES = ("docker.io", "iptables", "runc", "iproute2", "mmdebstrap", "debian-archive-keyring")
_READY_SECONDS = 60.0
_END_SECONDS = 40.0
#: Outside of what Docker takes by itself, so that an engine of the machine's is not disturbed.
_BRIDGE = "leveret0"
_ADDRESS = "172.30.0.1/24"
_NETWORKS = ipaddress.IPv4Network("172.30.16.0/20")
_POOL = f"base={_NETWORKS},size=24"
#: The default has 64 MB of files open for each container's processes.
_FILES = "nofile=20000:20000"


class Engine:
    """One engine, for a `with` block; not thread-safe.

    Leaving the block removes every container, image, volume, network and mount of it.
    """

    def __init__(self, checkout: Checkout | None = None) -> None:
        checkout = checkout or Checkout.here()
        self.directory = ELSEWHERE / f"leveret-{checkout.key}-engine"
        self.socket = self.directory / "docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What makes the `docker` command and Compose use this engine, and their own settings."""
        kept = {"PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"}
        return {name: value for name, value in os.environ.items() if name in kept} | {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.directory / "config"),
            "DOCKER_BUILDKIT": "0",  # Debian's engine has no builder but the classic one
            "HOME": str(self.directory),
        }

    def __enter__(self) -> Self:
        """Install what is missing and start the engine; raises `StackError` if it cannot be."""
        if os.geteuid() != 0:
            raise StackError("a private Docker engine needs root: run the target as root")
        ensure_apt(_PACKAGES, "a private Docker engine")
        self._take_lock()
        self._remove()  # what a run that was killed has left
        plugins = self.directory / "config" / "cli-plugins"
        plugins.mkdir(parents=True, mode=0o700)
        ours = Path(sys.executable).with_name("docker-compose")
        if ours.exists():  # of this checkout's environment; else that of the machine
            (plugins / "docker-compose").symlink_to(ours)
        self._log = (self.directory / "engine.log").open("wb")
        argv = [
            *("dockerd", "--host", f"unix://{self.socket}"),
            *("--data-root", str(self.directory / "data")),
            *("--exec-root", str(self.directory / "run")),
            *("--pidfile", str(self.directory / "engine.pid")),
            *("--storage-driver", "overlay2", "--default-ulimit", _FILES),
            *("--bridge", _BRIDGE, "--default-address-pool", _POOL),
            *("--iptables=false", "--ip-masq=false", "--ip-forward=false"),
        ]
        self._add_bridge()
        self._process = subprocess.Popen(
            argv,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**self.environment, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
            start_new_session=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine and remove all that it had."""
        if self._process is not None:
            if self._process.poll() is None and self.socket.exists():
                self._remove_objects()
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._log is not None:
            self._log.close()
        self._remove()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def docker(
        self,
        *argv: str,
        check: bool = True,
        input_text: str | None = None,
        timeout_seconds: float = 600.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a `docker` command; raises `StackError` with what it said when it fails."""
        return self.run(
            ["docker", *argv], check=check, input_text=input_text, timeout_seconds=timeout_seconds
        )

    def compose(
        self, *argv: str, check: bool = True, timeout_seconds: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        """Run Docker Compose."""
        argv = ("docker", "compose", *argv)
        return self.run(argv, check=check, timeout_seconds=timeout_seconds)

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input_text: str | None = None,
        timeout_seconds: float = 600.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program that talks to this engine."""
        answer = subprocess.run(
            argv,
            env=self.environment,
            input=input_text,
            stdin=None if input_text is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if check and answer.returncode:
            tail = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-25:])
            raise StackError(f"`{' '.join(argv)}` failed:\n{tail}")
        return answer

    def inspect(self, name: str) -> dict[str, object]:
        """Return what the engine knows of a container or an image."""
        found: list[dict[str, object]] = json.loads(self.docker("inspect", name).stdout)
        return found[0]

    def _take_lock(self) -> None:
        """Wait until no other checkout has an engine: they would have the same addresses."""
        self._lock = (ELSEWHERE / "leveret-engine.lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for the end of another private Docker engine", flush=True)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _end_stray(self) -> None:
        """End an engine whose run was killed, and with it the containers that it has."""
        try:
            pid = int((self.directory / "engine.pid").read_text())
            ours = str(self.directory).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return
        if ours:
            processes.send([pid], signal.SIGTERM)
            processes.wait_until(
                lambda: not Path(f"/proc/{pid}").exists(), timeout_seconds=_END_SECONDS
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while self.docker("info", check=False).returncode:
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = (self.directory / "engine.log").read_text(errors="replace")
                raise StackError(
                    "the private Docker engine does not start; it said:\n"
                    + "\n".join(said.splitlines()[-15:])
                )
            time.sleep(0.2)

    def _remove_objects(self) -> None:
        """Remove containers and networks, so that their interfaces go with them."""
        for kind, remove in (
            (["ps", "--all", "--quiet"], ["rm", "--force", "--volumes"]),
            (["network", "ls", "--quiet", "--filter", "type=custom"], ["network", "rm"]),
        ):
            found = self.docker(*kind, check=False).stdout.split()
            if found:
                self.docker(*remove, *found, check=False)

    def _add_bridge(self) -> None:
        _ip("link", "add", "name", _BRIDGE, "type", "bridge")
        _ip("address", "add", _ADDRESS, "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")

    def _remove(self) -> None:
        self._end_stray()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted(mounts, reverse=True):
            if mount.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
        _ip("link", "delete", _BRIDGE)
        for line in _ip("-oneline", "-4", "address", "show").splitlines():
            _, name, _, address, *_ = line.split()
            if name.startswith("br-") and ipaddress.ip_interface(address).ip in _NETWORKS:
                _ip("link", "delete", name)


def _ip(*argv: str) -> str:
    answer = subprocess.run(["ip", *argv], capture_output=True, text=True, check=False)
    return answer.stdout
