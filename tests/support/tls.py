"""A certificate authority of one test, and servers that speak TLS with its certificates."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlsplit

import trustme

from compose.native import ports
from compose.native.accounts import Account
from compose.native.postgres import PostgresServer
from tests.support.brokers import PrivateBroker
from tests.support.processes import ROOT
from tests.support.systems import System

if TYPE_CHECKING:
    from compose.native.paths import Checkout

#: What the servers' certificates are for; they are reached at the first of them.
ADDRESS, NAME = "127.0.0.1", "servers.example"


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Files that the servers' account can read, all PEM."""

    folder: Path
    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    #: An authority that has signed nothing here.
    stranger: Path

    @classmethod
    def make(cls, checkout: Checkout) -> Self:
        """Make an authority, and certificates of it for the servers and for a client."""
        folder = checkout.new_scratch("tls")
        authority = trustme.CA()
        server, client = authority.issue_cert(ADDRESS, NAME), authority.issue_cert("leveret@client")

        def write(name: str, *parts: trustme.Blob) -> Path:
            path = folder / name
            text = b"".join(part.bytes() for part in parts).decode()
            Account.for_servers().write_private(path, text)
            return path

        return cls(
            folder=folder,
            authority=write("ca.pem", authority.cert_pem),
            server=write("server.pem", *server.cert_chain_pems),
            server_key=write("server.key", server.private_key_pem),
            client=write("client.pem", *client.cert_chain_pems),
            client_key=write("client.key", client.private_key_pem),
            stranger=write("stranger.pem", trustme.CA().cert_pem),
        )

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def secure_broker(checkout: Checkout, files: Certificates) -> tuple[PrivateBroker, int, int]:
    """Start a broker; return it with its ports for AMQP and for its management over TLS.

    It wants to see a certificate of its clients, too.
    """
    amqps = ports.choose()
    https = ports.choose([amqps])
    server = {
        "cacertfile": str(files.authority),
        "certfile": str(files.server),
        "keyfile": str(files.server_key),
    }
    settings = {
        "listeners.ssl.1": f"127.0.0.1:{amqps}",
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "true",
        **{f"ssl_options.{name}": value for name, value in server.items()},
        "management.ssl.ip": "127.0.0.1",
        "management.ssl.port": str(https),
        **{f"management.ssl.{name}": value for name, value in server.items()},
        "collect_statistics_interval": "1000",
    }
    return PrivateBroker(checkout, settings), amqps, https


def secure_postgres(checkout: Checkout, files: Certificates) -> PostgresServer:
    """Start a PostgreSQL that takes no connection without TLS."""
    server = PostgresServer(checkout.new_scratch("postgres"), password="first")
    server.start()
    cluster = server.data_dir / "cluster"
    with (cluster / "postgresql.conf").open("a") as file:
        file.write(
            f"ssl = on\nssl_cert_file = '{files.server}'\nssl_key_file = '{files.server_key}'\n"
        )
    (cluster / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    server.restart()
    return server


class SecureSystem(System):
    """All processes, each of which speaks TLS alone. ``passwords`` are theirs, by role."""

    def __init__(
        self,
        broker: tuple[PrivateBroker, int, int],
        postgres: PostgresServer,
        files: Certificates,
        folder: Path,
        actors: list[str],
    ) -> None:
        node, self._amqps, self._https = broker
        super().__init__(node, postgres, folder, actors)
        self.files = files
        self.passwords = dict(node.vhost.passwords)
        self.database_password = "first"

    def amqp_url(self, role: str, *, host: str = ADDRESS, **changes: str) -> str:
        """Return a role's URL; ``changes`` are to its parameters."""
        parameters = {
            "cacertfile": str(self.files.authority),
            "certfile": str(self.files.client),
            "keyfile": str(self.files.client_key),
            **changes,
        }
        query = "&".join(f"{name}={quote(value)}" for name, value in parameters.items() if value)
        password = quote(self.passwords[role], safe="")
        return f"amqps://leveret-{role}:{password}@{host}:{self._amqps}/leveret?{query}"

    def environment(self, role: str) -> dict[str, str]:
        """Return the settings of a role; every address is one of TLS."""
        found = super().environment(role)
        user = urlsplit(found["LEVERET_MANAGEMENT_URL"]).username or ""
        password = quote(self.passwords[user.removeprefix("leveret-")], safe="")
        database = (
            f"postgresql://postgres:{self.database_password}@{ADDRESS}:{self.postgres.port}"
            f"/postgres?sslmode=verify-full&sslrootcert={self.files.authority}"
        )
        return {
            **found,
            "LEVERET_AMQP_URL": self.amqp_url(role),
            "LEVERET_MANAGEMENT_URL": (
                f"https://{user}:{password}@{ADDRESS}:{self._https}"
                f"?cacertfile={self.files.authority}"
            ),
            "LEVERET_DATABASE_URL": database,
        }

    def shell(self, script: str, **variables: str) -> str:
        """Run commands as the administrator, with success, and return what they print."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-euc", script],
            env={**self.environment("admin"), "PATH": path, **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def restart_all(self) -> None:
        """End every process as a supervisor does, and start it anew with the secrets of now."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait(60)
        self.start_all()
