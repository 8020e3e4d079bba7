"""A relay as a process, and outboxes to relay from."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from leveret.store.outbox import statements
from tests.support.processes import OurProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.brokers import Vhost


def lay_out(url: str) -> str:
    """Make the outbox in a database as a service does; return the URL."""
    with psycopg.connect(url) as connection:
        for statement in statements():
            connection.execute(statement)
    return url


def waiting(url: str) -> int:
    """Count the rows of an outbox."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM leveret_outbox").fetchone()
    assert found is not None
    return found[0]


class RelayProcess(OurProcess):
    """``python -m services.relay`` of one test."""

    def __init__(
        self,
        vhost: Vhost,
        *urls: str,
        folder: Path,
        module: str = "services.relay",
        role: str = "relay",
        **variables: str,
    ) -> None:
        settings = {
            "LEVERET_AMQP_URL": vhost.url(role),
            "LEVERET_OUTBOX_URLS": ",".join(urls),
            **variables,
        }
        super().__init__("relay", ("-m", module), settings, folder=folder)


@contextmanager
def held_transaction(url: str) -> Iterator[None]:
    """Keep a transaction open, and with it every dead row of the database."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT txid_current()")
        yield


__all__ = ["RelayProcess", "held_transaction", "lay_out", "waiting"]
