"""PgBouncer in front of a test's database: transaction mode, and fewer sessions than clients."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import psycopg

from compose.native import ports
from compose.native.accounts import Account
from compose.native.install import ensure_apt
from compose.native.paths import private_directory
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from compose.native.paths import Checkout

#: As few that whatever is left behind in a session is found by somebody else.
SESSIONS = 2


@contextmanager
def pgbouncer(checkout: Checkout, url: str) -> Iterator[str]:
    """Run a PgBouncer, and yield the URL of the same database through it."""
    ensure_apt(["pgbouncer"], "a private PgBouncer")
    account = Account.for_servers()
    data = checkout.new_scratch("pgbouncer")
    private_directory(data)
    port = ports.choose()
    where = urlsplit(url)
    secret = unquote(where.password or "").replace('"', '""')
    account.write_private(data / "users.txt", f'"{unquote(where.username or "")}" "{secret}"\n')
    account.write_private(
        data / "pgbouncer.ini",
        "[databases]\n"
        f"* = host={where.hostname} port={where.port}\n"
        "[pgbouncer]\n"
        f"listen_addr = {ports.HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {data / 'users.txt'}\n"
        f"pool_mode = transaction\ndefault_pool_size = {SESSIONS}\nmax_client_conn = 200\n"
        "ignore_startup_parameters = extra_float_digits\n",
    )
    with (data / "pgbouncer.log").open("w+b") as log:
        process = _start(data, account, log)
        through = where._replace(
            netloc=f"{where.netloc.rpartition('@')[0]}@{ports.HOST}:{port}"
        ).geturl()
        try:
            wait_until(lambda: _answers(process, through, data), timeout=30, what="PgBouncer")
            yield through
        finally:
            process.terminate()
            process.wait(30)
    shutil.rmtree(data, ignore_errors=True)


def _start(data: Path, account: Account, log: object) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([os.defpath, "/usr/sbin"])
    program = shutil.which("pgbouncer", path=path)
    assert program, "the package pgbouncer has brought no program of this name"
    return subprocess.Popen(
        [program, data / "pgbouncer.ini"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=data,
        env={"PATH": path, "LC_ALL": "C"},
        user=account.uid,
        group=account.gid,
        extra_groups=None if account.uid is None else [],
    )


def _answers(process: subprocess.Popen[bytes], url: str, data: Path) -> bool:
    assert process.poll() is None, (data / "pgbouncer.log").read_text()
    try:
        with psycopg.connect(url, connect_timeout=2, prepare_threshold=None) as connection:
            return connection.execute("SELECT true").fetchone() == (True,)
    except psycopg.OperationalError:
        return False
