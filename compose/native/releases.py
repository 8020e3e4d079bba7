"""Other releases of RabbitMQ than the installed one, to run Leveret against: 4.0 and 4.3.

`LEVERET_RABBITMQ=4.3` (`make test RABBITMQ=4.3`) makes every private node one of that release. It
comes from the packages of another release of Debian, from the mirror that this machine uses
anyway, but is not installed: the packages are unpacked into a directory of the stack, with the C
library and the Erlang that they need. A node runs in a mount namespace of its own in which the
unpacked `/usr` lies over the machine's. That needs no root: a user namespace allows it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from compose.native.errors import StackError

#: The environment variable that names a release.
VARIABLE = "LEVERET_RABBITMQ"
#: Which release of Debian has which release of RabbitMQ.
SUITES = {"4.0": "trixie", "4.3": "sid"}
#: The server, and what its start scripts call.
_PACKAGES = (
    *("rabbitmq-server", "dash", "coreutils", "sed", "grep", "mawk"),
    *("util-linux", "hostname", "libc-bin"),
)
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SCRIPTS = "lib/rabbitmq/bin"
_UNNEEDED = ("doc", "info", "locale", "man")
_OVERLAY = 'mount --bind "$0" /usr && exec "$@"'


@dataclass(frozen=True, kw_only=True)
class Release:
    """Where the programs of a node are, and what a command that runs them starts with."""

    scripts: Path
    epmd: Path
    prefix: tuple[str, ...] = ()


def wanted() -> str | None:
    """Return the release that the environment asks for, None for the installed one.

    Raises `StackError` when it is not one that can be had.
    """
    release = os.environ.get(VARIABLE) or None
    if release is not None and release not in SUITES:
        raise StackError(
            f"{VARIABLE} is {release!r}: set it to {' or '.join(SUITES)}, or unset it "
            "to use the RabbitMQ that is installed"
        )
    return release


def ensure(release: str, directory: Path) -> Release:
    """Return the release in `directory`, downloaded first (80 MB) where it is missing.

    `directory` must be on a path that the servers' account may enter.
    """
    usr = directory / "usr"
    if not usr.is_dir():
        print(f"downloading RabbitMQ {release} from Debian {SUITES[release]}", flush=True)
        draft = directory.with_name(f"{directory.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            _unpack(release, draft)
            draft.rename(directory)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    inside = Path("/usr")
    return Release(
        scripts=inside / _SCRIPTS,
        epmd=inside / "bin" / "epmd",
        prefix=("unshare", "--map-root-user", "--mount", "sh", "-c", _OVERLAY, str(usr)),
    )


def _unpack(release: str, root: Path) -> None:
    for tool in ("apt-get", "dpkg-deb", "unshare"):
        if shutil.which(tool) is None:
            raise StackError(f"RabbitMQ {release} needs {tool}, which this machine does not have")
    apt = root / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True)
    root.chmod(0o755)
    suite = SUITES[release]
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {mirror()} {suite} main\n")
    settings = {
        "Dir::State": apt,
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": apt / "none",
        "Dir::Etc::PreferencesParts": apt / "none",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    (apt / "apt.conf").write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    env = {**os.environ, "APT_CONFIG": str(apt / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "-qq", "update"], env)
    _run(
        ["apt-get", "-qq", "-y", "-d", "--no-install-recommends", "install", *_PACKAGES],
        env,
    )
    archives = sorted((apt / "cache" / "archives").glob("*.deb"))
    _check_version(release, archives)
    excluded = " ".join(f"--exclude=./usr/share/{name}" for name in _UNNEEDED)
    for archive in archives:
        pipe = (
            f"dpkg-deb --fsys-tarfile {shlex.quote(str(archive))} | tar -x -C "
            f"{shlex.quote(str(root))} --no-same-owner --keep-directory-symlink {excluded}"
        )
        _run(["sh", "-c", pipe], env)
    shutil.rmtree(apt)


def mirror() -> str:
    """Return the mirror of Debian from which this machine installs."""
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    answer = _run([*query, "Origin: Debian", "Component: main"], dict(os.environ))
    for line in answer.splitlines():
        if re.search(r"/debian/?$", line):
            return line
    raise StackError(
        "this machine installs nothing from a mirror of Debian, so other releases of RabbitMQ "
        "cannot be had: set LEVERET_AMQP_URL to a broker of the release"
    )


def _check_version(release: str, archives: list[Path]) -> None:
    servers = [file.name for file in archives if file.name.startswith("rabbitmq-server_")]
    if not servers or not servers[0].startswith(f"rabbitmq-server_{release}."):
        raise StackError(
            f"Debian {SUITES[release]} has {', '.join(servers) or 'no RabbitMQ'} by now, "
            f"and not {release}"
        )


def _run(argv: list[str], env: dict[str, str]) -> str:
    answer = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if answer.returncode:
        tail = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-8:])
        raise StackError(f"`{' '.join(argv)}` failed:\n{tail}")
    return answer.stdout
