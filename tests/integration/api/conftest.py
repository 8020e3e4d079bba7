"""The HTTP API of a test process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leveret.settings import Settings
from tests.support.apis import ACTORS, Api

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx


def nowhere() -> Settings:
    """Return settings for an application that is only looked at."""
    return Settings(database_url="postgresql://nobody@127.0.0.1:1/none", actors=(ACTORS,))


@pytest.fixture(scope="session")
def api(ledger_database: str, vhost) -> Iterator[Api]:
    """Return the API of this test process, with a database and a virtual host behind it."""
    with Api(
        ledger_database,
        amqp_url=vhost.url("api"),
        management_url=vhost.management_url_for("api"),
    ) as found:
        yield found


@pytest.fixture(scope="session")
def client(api: Api) -> Iterator[httpx.Client]:
    """Return a client with every scope."""
    with api.client("publish", "admin") as found:
        yield found
