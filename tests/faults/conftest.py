"""A broker that may be broken, one for each test process, and what looks at the damage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
import pytest

from leveret import names
from leveret.publisher import Publisher
from leveret.topology import build
from tests.support import oncejobs
from tests.support.books import Books
from tests.support.brokers import PrivateBroker
from tests.support.databases import temporary_database
from tests.support.faultjobs import ACTORS, Journal
from tests.support.forkedcommands import Commands
from tests.support.oncall import Shop
from tests.support.pools import WorkerPool
from tests.support.recorders import migrated
from tests.support.sites import Site
from tests.support.workshop import Workshop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from compose.native.paths import Checkout
    from tests.support.brokers import Vhost

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def broken_broker(checkout: Checkout) -> Iterator[PrivateBroker]:
    """Return a node of this test process, with the topology; tests may do anything to it."""
    # The management API shall know of a connection soon.
    broker = PrivateBroker(checkout, {"collect_statistics_interval": "500"})
    try:
        # So it shall count the messages of its queues: they tell it each 5 s otherwise.
        broker.control("eval", "application:set_env(rabbit, quorum_tick_interval, 500).")
        broker.declare({**ACTORS, **oncejobs.ACTORS})
        yield broker
    finally:
        broker.destroy()


@pytest.fixture
def broker(broken_broker: PrivateBroker) -> PrivateBroker:
    """Return the node, in working order, with empty queues."""
    broken_broker.start()
    connection = pika.BlockingConnection(pika.URLParameters(broken_broker.vhost.url("admin")))
    channel = connection.channel()
    for queue in build(names.DEFAULT_QUEUES, {}).queues:
        channel.queue_purge(queue.name)
    connection.close()
    return broken_broker


@pytest.fixture
def node(broker: PrivateBroker) -> Vhost:
    """Return the node's virtual host."""
    return broker.vhost


@pytest.fixture
def refusals(broker: PrivateBroker) -> Callable[[], list[str]]:
    """Return a function: errors of ours over which the broker closed a channel or connection."""
    begin = broker.node.log.stat().st_size

    def read() -> list[str]:
        with broker.node.log.open("rb") as file:
            file.seek(begin)
            said = file.read().decode(errors="replace").splitlines()
        closed = [
            line for line in said if "caused a channel" in line or "caused a connection" in line
        ]
        return [line for line in closed if "closed by an administrator" not in line]

    return read


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    """Return workers and actors in this process."""
    made = Workshop()
    yield made
    made.close()


@pytest.fixture
def books(node: Vhost) -> Iterator[Books]:
    """Return what the broker's books say about jobs."""
    made = Books(node)
    yield made
    made.close()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Return the journal of this test's actors."""
    return Journal(tmp_path)


@pytest.fixture(autouse=True)
def no_callback_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail the test when something raised on an IO thread of this process."""
    yield
    failed = [r for r in caplog.get_records("call") if "a callback failed" in r.getMessage()]
    assert not failed, failed[0].exc_text


@pytest.fixture
def publisher(node: Vhost) -> Iterator[Publisher]:
    """Return a publisher of a service."""
    with Publisher(node.url("publisher"), timeout=60) as made:
        yield made


@pytest.fixture
def pool(node: Vhost, tmp_path: Path) -> Iterator[Callable[..., WorkerPool]]:
    """Return a function that starts a worker pool and waits until it is ready."""
    made: list[WorkerPool] = []

    def start(**options: Any) -> WorkerPool:
        made.append(WorkerPool(node.environment("worker"), tmp_path, **options))
        return made[-1].wait_ready()

    yield start
    for each in made:
        each.kill_everything()
        sys.stdout.write(each.log[-4000:])
    for each in made:
        assert "a callback failed" not in each.log


@pytest.fixture(scope="module")
def a_shop(
    broken_broker: PrivateBroker, checkout: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """Return a shop of this module, which the runbooks' faults are induced in."""
    broken_broker.start()
    folder = tmp_path_factory.mktemp("shop")
    with temporary_database(checkout, "shop") as url:
        made = Shop(broken_broker.vhost, migrated(url), folder)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def shop(a_shop: Shop) -> Iterator[Shop]:
    """Return the shop with nothing in it: no job, no pool."""
    a_shop.reset()
    yield a_shop
    for each in a_shop.pools:
        sys.stdout.write(each.log[-2000:])


@pytest.fixture(scope="module")
def site_database(checkout: Checkout) -> Iterator[str]:
    """Return the URL of a database with Leveret's tables, for the tests of one runbook."""
    with temporary_database(checkout, "site") as url:
        yield migrated(url)


@pytest.fixture(scope="session")
def forked() -> Iterator[Commands]:
    """Return what runs ``leveret`` without loading it each time."""
    with Commands() as made:
        yield made


@pytest.fixture
def site_on(
    broker: PrivateBroker, forked: Commands, tmp_path: Path
) -> Iterator[Callable[[str], Site]]:
    """Return a function: an installation on a database, of which nothing runs yet."""
    made: list[Site] = []

    def lay_out(database: str) -> Site:
        made.append(Site(broker, database, tmp_path, forked))
        return made[-1]

    yield lay_out
    for each in made:
        each.close()


@pytest.fixture
def site(site_on: Callable[[str], Site], site_database: str) -> Site:
    """Return an installation in working order, of which nothing runs yet."""
    return site_on(site_database)
