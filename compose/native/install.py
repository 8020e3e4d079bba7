"""Install what a target needs from Debian's packages, and say so.

From Python: `ensure_apt(["rabbitmq-server"], "a private RabbitMQ node")`. From a shell:
`python -m compose.native install golang-go amqp-tools`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from compose.native import processes
from compose.native.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_POLICY = Path("/usr/sbin/policy-rc.d")
_MARK = "installation"
#: How long to wait while somebody else installs.
_LOCK_SECONDS = 180


def is_installed(package: str) -> bool:
    """Tell whether dpkg has the package, fully installed."""
    if shutil.which("dpkg-query") is None:
        return False
    answer = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Status}", package],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() == "install ok installed"


def ensure_apt(packages: Sequence[str], purpose: str) -> None:
    """Install the missing ones of these Debian packages, as root or with passwordless sudo.

    No service that they bring is started, and none that runs is touched. Raises `StackError` with
    the command for a person when we may not install, or when apt fails.
    """
    missing = [package for package in packages if not is_installed(package)]
    if not missing:
        return
    command = "apt-get install --no-install-recommends " + " ".join(missing)
    if shutil.which("apt-get") is None:
        raise StackError(f"{purpose} needs {', '.join(missing)}, and this machine has no apt-get")
    as_root = _as_root()
    if as_root is None:
        raise StackError(f"{purpose} needs {', '.join(missing)}. Run: sudo {command}")
    print(f"installing {', '.join(missing)} with apt-get, for {purpose}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", processes.MARK: _MARK}
    with _services_stay_down(as_root):
        apt = [*as_root, "apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={_LOCK_SECONDS}"]
        _apt([*apt, "update"], env, command)
        _apt([*apt, "install", "-y", "--no-install-recommends", *missing], env, command)
    if os.geteuid() == 0:
        processes.end(_MARK, grace_seconds=5)


def _as_root() -> list[str] | None:
    """Return what to put before a command so that root runs it; None when we may not."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode:
        return None
    return [sudo, "-n", "--preserve-env=DEBIAN_FRONTEND"] if sudo else None


def _apt(argv: list[str], env: dict[str, str], command: str) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        answer = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        if not answer.returncode:
            return
        # apt-get waits for dpkg's lock, but not for that of the lists.
        said = (answer.stdout + answer.stderr).strip()
        if "Could not get lock" not in said or time.monotonic() > deadline:
            break
        time.sleep(1)
    tail = "\n".join(said.splitlines()[-8:])
    raise StackError(f"`{' '.join(argv)}` failed:\n{tail}\nRun by hand: {command}")


@contextmanager
def _services_stay_down(as_root: list[str]) -> Iterator[None]:
    """Forbid packages to start their services, unless the machine has a policy of its own."""
    if _POLICY.exists():
        yield
        return
    script = "#!/bin/sh\nexit 101\n"
    tee = [*as_root, "tee", str(_POLICY)]
    subprocess.run(tee, input=script, text=True, stdout=subprocess.DEVNULL, check=True)
    subprocess.run([*as_root, "chmod", "755", str(_POLICY)], check=True)
    try:
        yield
    finally:
        subprocess.run([*as_root, "rm", "-f", str(_POLICY)], check=True)
