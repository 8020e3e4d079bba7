"""The AMQP clients of other languages, installed into build/ or from Debian's packages."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compose.native.errors import StackError
from compose.native.install import ensure_apt
from tests.support.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

_ATTEMPTS = 3
_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_JARS = ("amqp-client.jar", "slf4j-api.jar", "slf4j-nop.jar")


def need(commands: Sequence[str], packages: Sequence[str], purpose: str) -> None:
    """Have these commands and Debian packages; skip, naming what to install, where we may not.

    As root (which continuous integration is) there is no excuse, and the test fails instead.
    """
    try:
        missing = [command for command in commands if shutil.which(command) is None]
        if missing or not commands:
            ensure_apt(packages, purpose)
    except StackError as error:
        if os.geteuid() == 0:
            raise
        pytest.skip(str(error))


def npm(*packages: str) -> Path:
    """Install npm packages (`amqplib@2`) below build/npm; return the node_modules they are in."""
    need(["node", "npm"], ["nodejs", "npm"], "what npm packages do in tests")
    name, *others = [package.rpartition("@")[0] for package in packages]
    # A folder for each: npm removes what it was not asked for, and tests run in parallel.
    folder = ROOT / "build" / "npm" / name.replace("/", "-").removeprefix("@")
    folder.mkdir(parents=True, exist_ok=True)
    modules = folder / "node_modules"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one test process installs, and others wait for it
        if not all((modules / each / "package.json").exists() for each in (name, *others)):
            _install(folder, packages)
    return modules


def _install(folder: Path, packages: Sequence[str]) -> None:
    argv = ["npm", "install", "--prefix", str(folder), "--no-save", "--no-audit", "--no-fund"]
    reason = ""
    for _ in range(_ATTEMPTS):  # a registry that does not answer once mostly does the next time
        try:
            done = subprocess.run(
                [*argv, *packages],
                cwd=folder,
                env=_trusting(),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            reason = f"npm has not installed {' '.join(packages)} within 60 s"
            continue
        if done.returncode == 0:
            return
        reason = f"npm cannot install {' '.join(packages)}: {done.stderr[-500:]}"
    if os.geteuid() == 0:
        pytest.fail(reason)
    pytest.skip(reason)


def _trusting() -> dict[str, str]:
    """Return the environment in which Node trusts whom the system trusts, as other programs do."""
    environ = dict(os.environ)
    if _SYSTEM_CERTIFICATES.exists():
        environ.setdefault("NODE_EXTRA_CA_CERTS", str(_SYSTEM_CERTIFICATES))
    return environ


def java_class_path() -> str:
    """Return the class path of the RabbitMQ client."""
    need(["java"], ["default-jdk-headless"], "the Java example")
    jars = [Path("/usr/share/java") / jar for jar in _JARS]
    if not all(jar.exists() for jar in jars):
        need([], ["librabbitmq-client-java", "libslf4j-java"], "the Java example")
    return os.pathsep.join(map(str, jars))


def go_environment() -> dict[str, str]:
    """Return the variables with which `go run` finds the RabbitMQ client."""
    need([], ["golang-go", "golang-github-rabbitmq-amqp091-go-dev"], "the Go example")
    return {
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(ROOT / "build" / "go"),
        "GOFLAGS": "",
    }
