"""Base images from Debian's packages, under the tags that the Dockerfile and compose.yaml name.

They stand in for the official images where those cannot be pulled: same user and folders, same
place of the programs, same way to be configured, as far as this project uses them. They are kept in
``build/bases`` and imported into each engine.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compose.native.errors import StackError
from compose.native.releases import mirror

if TYPE_CHECKING:
    from compose.engine.engine import Engine
    from compose.native.paths import Checkout

__all__ = [
    "ALERTMANAGER",
    "BASES",
    "POSTGRES",
    "PROMETHEUS",
    "PYTHON",
    "RABBITMQ",
    "Base",
    "ensure",
]

_HERE = Path(__file__).parent
_UNNEEDED = ("doc", "man", "info", "locale", "lintian")
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, kw_only=True)
class Base:
    """One base image."""

    tag: str
    #: The release of Debian, and what of it is in the image.
    suite: str
    packages: tuple[str, ...]
    #: What mmdebstrap does at the end; ``"$1"`` is the root of the image.
    hooks: tuple[str, ...] = ()
    #: Instructions of a Dockerfile, for the image's own settings.
    changes: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of its archive."""
        return self.tag.replace(":", "-").replace("/", "-") + ".tar"


_TRIM = 'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*'

#: The official image has its Python in /usr/local, with no compiled modules.
PYTHON = Base(
    tag="python:3.11-slim",
    suite="bookworm",
    packages=("python3", "python3-venv", "usr-is-merged"),
    hooks=(
        # It brings all of Perl, for the installation alone.
        (
            'chroot "$1" apt-get --yes -qq purge --autoremove usrmerge perl perl-modules-5.36 '
            "libperl5.36 >/dev/null"
        ),
        'ln -s /usr/bin/python3.11 "$1"/usr/local/bin/python3.11',
        'ln -s python3.11 "$1"/usr/local/bin/python3',
        'ln -s python3 "$1"/usr/local/bin/python',
        'find "$1"/usr/lib/python3* -name __pycache__ -prune -exec rm -rf {} +',
        'rm -f "$1"/usr/lib/python3.11/EXTERNALLY-MANAGED',
        _TRIM,
    ),
    changes=('CMD ["python3"]',),
)
RABBITMQ = Base(
    tag="rabbitmq:4.0-management",
    suite="trixie",
    packages=("rabbitmq-server",),
    hooks=(
        'chroot "$1" usermod --uid 999 --home /var/lib/rabbitmq rabbitmq',
        'chroot "$1" groupmod --gid 999 rabbitmq',
        'rm -rf "$1"/var/lib/rabbitmq/* "$1"/var/lib/rabbitmq/.erlang.cookie',
        f"upload {_HERE / 'rabbitmq.sh'} /usr/local/bin/docker-entrypoint.sh",
        'mkdir -p "$1"/etc/rabbitmq/conf.d',
        'printf "log.console = true\\n" > "$1"/etc/rabbitmq/conf.d/10-defaults.conf',
        _TRIM,
        'mkdir -p "$1"/var/log/rabbitmq',
        'chmod 0777 "$1"/var/log/rabbitmq "$1"/etc/rabbitmq',
        'chroot "$1" chown -R 999:999 /var/lib/rabbitmq /etc/rabbitmq',
        'chmod 0755 "$1"/usr/local/bin/docker-entrypoint.sh',
    ),
    changes=(
        # Debian's scripts elsewhere on PATH insist on root, or on a login of the user's.
        (
            "ENV PATH=/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:"
            "/sbin:/bin LANG=C.UTF-8 HOME=/var/lib/rabbitmq RABBITMQ_DATA_DIR=/var/lib/rabbitmq"
        ),
        "EXPOSE 5672 15672 15692",
        "VOLUME /var/lib/rabbitmq",
        'ENTRYPOINT ["docker-entrypoint.sh"]',
        'CMD ["rabbitmq-server"]',
    ),
)
POSTGRES = Base(
    tag="postgres:17",
    suite="trixie",
    packages=("postgresql-17",),
    hooks=(
        'chroot "$1" usermod --uid 999 postgres',
        'chroot "$1" groupmod --gid 999 postgres',
        f"upload {_HERE / 'postgres.sh'} /usr/local/bin/docker-entrypoint.sh",
        'chmod 0755 "$1"/usr/local/bin/docker-entrypoint.sh',
        'rm -rf "$1"/var/lib/postgresql/17 "$1"/etc/postgresql',
        'rm -rf "$1"/usr/lib/x86_64-linux-gnu/libLLVM* "$1"/usr/lib/postgresql/17/lib/bitcode',
        _TRIM,
        'mkdir -p "$1"/var/lib/postgresql/data "$1"/docker-entrypoint-initdb.d',
        'chmod 0700 "$1"/var/lib/postgresql/data',
        'chroot "$1" chown -R 999:999 /var/lib/postgresql /var/run/postgresql',
    ),
    changes=(
        (
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:"
            "/usr/lib/postgresql/17/bin PGDATA=/var/lib/postgresql/data LANG=C.UTF-8"
        ),
        "EXPOSE 5432",
        "VOLUME /var/lib/postgresql/data",
        'ENTRYPOINT ["docker-entrypoint.sh"]',
        'CMD ["postgres", "-c", "listen_addresses=*"]',
    ),
)
#: The official images have their program in /bin, and a `wget` for health checks. Debian's releases
#: are older than the tags say: both read the same configuration, as far as this project uses it.
PROMETHEUS = Base(
    tag="prom/prometheus:v3.5.0",
    suite="trixie",
    packages=("prometheus", "wget"),
    hooks=(
        'rm -rf "$1"/etc/prometheus/* "$1"/usr/bin/promtool',
        'mkdir -p "$1"/prometheus',
        'chroot "$1" chown 65534:65534 /prometheus',
        _TRIM,
    ),
    changes=(
        "EXPOSE 9090",
        "VOLUME /prometheus",
        "WORKDIR /prometheus",
        'ENTRYPOINT ["/bin/prometheus"]',
    ),
)
ALERTMANAGER = Base(
    tag="prom/alertmanager:v0.28.1",
    suite="trixie",
    packages=("prometheus-alertmanager", "wget"),
    hooks=(
        'rm -rf "$1"/etc/prometheus',
        'ln -s prometheus-alertmanager "$1"/usr/bin/alertmanager',
        'mkdir -p "$1"/alertmanager',
        'chroot "$1" chown 65534:65534 /alertmanager',
        _TRIM,
    ),
    changes=(
        "EXPOSE 9093",
        "VOLUME /alertmanager",
        "WORKDIR /alertmanager",
        'ENTRYPOINT ["/bin/alertmanager"]',
    ),
)
BASES = (PYTHON, RABBITMQ, POSTGRES, PROMETHEUS, ALERTMANAGER)


def ensure(engine: Engine, checkout: Checkout, *bases: Base) -> None:
    """Put these base images into the engine, made first where they are not kept from before."""
    kept = checkout.root / "build" / "bases"
    for base in bases:
        archive = kept / base.file
        if not archive.exists():
            print(f"making {base.tag} from the packages of Debian {base.suite}", flush=True)
            kept.mkdir(parents=True, exist_ok=True)
            _make(base, archive)
        changes = [part for change in base.changes for part in ("--change", change)]
        engine.docker("import", *changes, str(archive), base.tag)


def _make(base: Base, archive: Path) -> None:
    draft = archive.with_suffix(".new.tar")
    hooks = list(base.hooks)
    if base is PYTHON and _AUTHORITIES.exists():
        # For a build that installs packages on a machine with authorities of its own.
        hooks[:0] = ['mkdir -p "$1"/etc/ssl/certs', f"upload {_AUTHORITIES} {_AUTHORITIES}"]
    argv = [
        *("mmdebstrap", "--quiet", "--variant=minbase"),
        *('--aptopt=Acquire::Languages "none"', f"--include={','.join(base.packages)}"),
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _UNNEEDED),
        *(f"--customize-hook={hook}" for hook in hooks),
        *(base.suite, str(draft), mirror()),
    ]
    answer = subprocess.run(argv, env=dict(os.environ), capture_output=True, text=True, check=False)
    if answer.returncode:
        tail = "\n".join(answer.stderr.strip().splitlines()[-12:])
        raise StackError(f"{base.tag} cannot be made:\n{tail}")
    draft.rename(archive)
