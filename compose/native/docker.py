"""The broker and the database in containers, when a Docker engine runs."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

from compose.native import envfile, ports
from compose.native.accounts import write_private
from compose.native.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path

    from compose.native.paths import Checkout
    from compose.native.rabbitmq import Credentials

_PORTS = ("amqp", "management", "prometheus", "postgres")
#: What of compose.yaml is started; the rest is for a stack that runs in containers altogether.
_SERVICES = ("rabbitmq", "postgres")
#: The broker and the database are asked for by two threads, and come with one command.
_STARTING = threading.Lock()


@functools.cache
def engine_runs() -> bool:
    """Tell whether there are a Docker engine and the Compose plugin that we may use."""
    if shutil.which("docker") is None:
        return False
    for argv in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            answer = subprocess.run(argv, capture_output=True, timeout=15, check=False)
        except subprocess.TimeoutExpired:
            return False
        if answer.returncode:
            return False
    return True


def up(checkout: Checkout, owner: Credentials, postgres_password: str) -> dict[str, int] | None:
    """Start the containers, wait until they are healthy, return their ports. Thread-safe.

    Returns None when no engine runs.
    """
    with _STARTING:
        return _up(checkout, owner, postgres_password) if engine_runs() else None


@functools.cache
def _up(checkout: Checkout, owner: Credentials, postgres_password: str) -> dict[str, int]:
    file = _ports_file(checkout)
    known = ports.load(file)
    if not known or not all(ports.is_open(port) for port in known.values()):
        print("starting RabbitMQ and PostgreSQL in Docker; it pulls missing images", flush=True)
        known = ports.remembered(file, _PORTS)
    variables = {f"LEVERET_{name.upper()}_PORT": str(port) for name, port in known.items()}
    variables["LEVERET_SECRETS"] = str(_write_secrets(checkout, owner, postgres_password))
    envfile.write(_env_file(checkout), variables)
    answer = _compose(checkout, "up", "--detach", "--wait", *_SERVICES)
    if answer.returncode:
        raise StackError(
            f"`docker compose up` failed:\n{answer.stderr.strip()}\n"
            "Repair it, or stop the Docker engine so that private servers are used"
        )
    return known


def down(checkout: Checkout) -> None:
    """Stop and remove the containers of this checkout; their volumes stay."""
    if _env_file(checkout).exists() and engine_runs():
        answer = _compose(checkout, "down")
        if answer.returncode:
            raise StackError(f"`docker compose down` failed:\n{answer.stderr.strip()}")


def remove_data(checkout: Checkout) -> None:
    """Remove the containers of this checkout with their volumes, if an engine runs."""
    if _env_file(checkout).exists() and engine_runs():
        answer = _compose(checkout, "down", "--volumes")
        if answer.returncode:
            raise StackError(f"`docker compose down --volumes` failed:\n{answer.stderr.strip()}")


def status(checkout: Checkout) -> list[tuple[str, str]]:
    """Return the containers of this checkout with their state, none without an engine."""
    if not _env_file(checkout).exists() or not engine_runs():
        return []
    answer = _compose(checkout, "ps", "--format", "{{.Service}}\t{{.Status}}")
    lines = (line.partition("\t") for line in answer.stdout.splitlines())
    return [(f"container {service}", state) for service, _, state in lines]


def _write_secrets(checkout: Checkout, owner: Credentials, postgres_password: str) -> Path:
    """Write the secrets of the two services as `compose/secrets.sh` does; return their folder."""
    folder = checkout.stack / "secrets"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    texts = {
        "owner.conf": f"default_user = {owner.user}\ndefault_pass = {owner.password}\n"
        "default_vhost = leveret\n",
        "postgres.password": f"{postgres_password}\n",
        "database.sql": "-- the role and the database are made from outside\n",
    }
    for name, text in texts.items():
        # The accounts of the containers are others; the folder keeps everybody else out.
        (folder / name).unlink(missing_ok=True)
        write_private(folder / name, text)
        (folder / name).chmod(0o444)
    return folder


def _compose(checkout: Checkout, *argv: str) -> subprocess.CompletedProcess[str]:
    file = checkout.root / "compose" / "compose.yaml"
    command = ["docker", "compose", "--project-name", f"leveret-{checkout.key}"]
    command += ["--file", str(file), "--env-file", str(_env_file(checkout)), *argv]
    # A variable of the shell would win over the same one in the file.
    env = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def _env_file(checkout: Checkout) -> Path:
    return checkout.stack / "compose.env"


def _ports_file(checkout: Checkout) -> Path:
    return checkout.stack / "compose-ports.json"
