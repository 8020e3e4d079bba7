"""What every test may ask for: the stack of this checkout, and parts of its own in it."""

from __future__ import annotations

import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from compose.native.paths import Checkout
from compose.native.postgres import PostgresServer
from leveret.store import engine
from leveret.store.migrate import upgrade
from tests.support import gates
from tests.support.brokers import PrivateBroker, SharedBroker, Vhost
from tests.support.databases import temporary_database
from tests.support.workers import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A machine with other work to do is slow now and then; `timeout` bounds a test as a whole.
settings.register_profile("leveret", deadline=None)
settings.load_profile("leveret")

_ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker of the release gates known, and Ctrl-C.

    A shell has what it starts in the background ignore SIGINT, and our children would inherit it.
    """
    config.addinivalue_line("markers", "gate: belongs to a release gate (tests/support/gates.py)")
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what belongs to a release gate."""
    gates.mark(items, _ROOT, pytest.mark.gate)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how the gates went, where they were asked for."""
    reporter, option = terminalreporter, terminalreporter.config.option
    reports = [
        report
        for kind in ("passed", "failed", "error", "skipped", "")
        for report in reporter.stats.get(kind, ())
        if isinstance(report, pytest.TestReport)
    ]
    found = gates.results(reports)
    if option.markexpr == "gate":
        reporter.section("gates")
        for name, one in sorted(found.items()):
            word = "holds" if one.holds else "FAILS"
            reporter.write_line(
                f"{name:45} {word}  {one.passed} passed, {one.failed} failed, {one.skipped} skipped"
                f", {one.seconds:.1f} s"
            )
            for note in one.notes:
                reporter.write_line(f"{'':45} {note}")


@pytest.fixture(scope="session")
def checkout() -> Checkout:
    """Return this checkout, whose stack `make test` has started."""
    found = Checkout.here()
    if not (found.env_d / "owner.env").exists():
        pytest.fail("the stack is not there: run `make up` first, or `make test`", pytrace=False)
    return found


@pytest.fixture(scope="session")
def shared_broker(checkout: Checkout) -> SharedBroker:
    """Return the broker that `make up` started."""
    return SharedBroker.of(checkout)


@pytest.fixture(scope="session")
def vhost(shared_broker: SharedBroker) -> Iterator[Vhost]:
    """Return a virtual host of this test process, with the topology and no actors bound."""
    made = shared_broker.create_vhost("session").declare()
    yield made
    _remove(made)


@pytest.fixture
def fresh_vhost(shared_broker: SharedBroker) -> Iterator[Vhost]:
    """Return an empty virtual host of this test alone; `declare()` brings the topology."""
    made = shared_broker.create_vhost("fresh")
    yield made
    _remove(made)


@pytest.fixture
def worker(vhost: Vhost) -> Iterator[Rig]:
    """Return a worker of this test's own, in this process: declare actors on it, then start it."""
    rig = Rig(vhost)
    yield rig
    rig.close()


@pytest.fixture
def private_broker(checkout: Checkout) -> Iterator[Callable[..., PrivateBroker]]:
    """Return a function that starts a node of this test alone: `private_broker(settings={…})`."""
    made: list[PrivateBroker] = []

    def start(settings: dict[str, str] | None = None) -> PrivateBroker:
        made.append(PrivateBroker(checkout, settings))
        return made[-1]

    yield start
    for broker in made:
        broker.destroy()


@pytest.fixture(scope="session")
def database(checkout: Checkout) -> Iterator[str]:
    """Return the URL of a database of this test process."""
    with temporary_database(checkout, "session") as url:
        yield url


@pytest.fixture(scope="session")
def ledger_database(database: str) -> str:
    """Return the URL of a database of this test process that has Leveret's tables."""
    owner = engine(database, pool_size=1)
    try:
        upgrade(owner)
    finally:
        owner.dispose()
    return database


@pytest.fixture
def fresh_database(checkout: Checkout) -> Iterator[str]:
    """Return the URL of an empty database of this test alone."""
    with temporary_database(checkout, "fresh") as url:
        yield url


@pytest.fixture
def private_postgres(checkout: Checkout) -> Iterator[Callable[[], PostgresServer]]:
    """Return a function that starts a PostgreSQL of this test alone, which it may kill."""
    made: list[PostgresServer] = []

    def start() -> PostgresServer:
        data = checkout.new_scratch("postgres")
        made.append(PostgresServer(data, password=secrets.token_urlsafe(16)))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.destroy()


def _remove(vhost: Vhost) -> None:
    vhost.management.delete_vhost(vhost.name)
    vhost.management.close()
