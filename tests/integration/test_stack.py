"""`make up` and `make down`, as two checkouts on one machine use them."""

from __future__ import annotations

import itertools
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pika
import psycopg
import pytest

from compose.native import envfile, ports, processes
from compose.native.paths import Checkout
from leveret.topology import ROLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from compose.native.postgres import PostgresServer
    from tests.support.brokers import PrivateBroker

ROOT = Path(__file__).resolve().parents[2]


def make(command: str, root: Path, **named: str) -> str:
    """Run a command of the stack in a checkout, with nothing but its own files to go by."""
    argv = [sys.executable, "-m", "compose.native", command]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(root)}
    env |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **named}
    answer = subprocess.run(
        argv, cwd=root, env=env, capture_output=True, text=True, check=False, timeout=90
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture
def checkouts(tmp_path: Path) -> Iterator[tuple[Checkout, Checkout]]:
    """Return two more checkouts of this tree."""
    made: list[Checkout] = []
    for name in ("one", "two"):
        for folder in ("compose", "leveret", "services", "actors"):
            if (ROOT / folder).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / folder, tmp_path / name / folder, ignore=ignore)
        made.append(Checkout(tmp_path / name))
    yield made[0], made[1]
    for checkout in made:
        make("down", checkout.root)
        shutil.rmtree(checkout.data.resolve(), ignore_errors=True)


def urls(checkout: Checkout) -> dict[str, str]:
    """Return what a client of the checkout's stack is given."""
    return envfile.read(checkout.env)


def marks(checkout: Checkout) -> list[str]:
    """Return how the processes of a checkout's stack are marked."""
    return [f"rabbitmq:{checkout.data.resolve()}/rabbitmq", f"worker:{checkout.stack}"]


@pytest.mark.faults
def test_two_checkouts_have_a_stack_each(checkouts: tuple[Checkout, Checkout]) -> None:
    """Both run at once on ports of their own; ending one leaves the other alone."""
    one, two = checkouts
    for checkout in checkouts:
        assert "ready after" in make("up", checkout.root)
    ports_of = {
        checkout: {urlsplit(url).port for url in urls(checkout).values()} for checkout in checkouts
    }
    assert not ports_of[one] & ports_of[two]

    before = urls(one)
    make("up", one.root)
    assert urls(one) == before, "a second `make up` changes nothing"

    make("down", one.root)
    assert [processes.marked(mark) for mark in marks(one)] == [{}, {}]
    assert working_in(one) == []
    for url in before.values():
        assert not answers(url)

    pika.BlockingConnection(pika.URLParameters(urls(two)["LEVERET_AMQP_URL"])).close()
    with psycopg.connect(urls(two)["LEVERET_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

    make("up", one.root)
    assert urls(one) == before, "ports and passwords are remembered"


def answers(url: str) -> bool:
    """Tell whether anything listens where the URL points."""
    return ports.is_open(urlsplit(url).port or 0)


def working_in(checkout: Checkout) -> list[str]:
    """Return the processes whose working directory is in the checkout or in its data."""
    homes = (str(checkout.root), str(checkout.data.resolve()))
    found: list[str] = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            where = str(link.readlink())
        except OSError:
            continue
        if where.startswith(homes):
            found.append(f"{link.parent.name}: {where}")
    return found


def test_secrets_are_for_the_owner_alone(checkout: Checkout) -> None:
    """Every file with a password has mode 600; each role has a file, a user and a password.

    The scheduler has no user: it knows the database, and no broker.
    """
    files = [checkout.env, checkout.passwords, *checkout.env_d.glob("*.env")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert {file.stem for file in checkout.env_d.glob("*.env")} == {*ROLES, "scheduler", "owner"}
    logins = {
        role: urlsplit(envfile.read(checkout.env_d / f"{role}.env")["LEVERET_AMQP_URL"])
        for role in ROLES
    }
    assert {role: url.username for role, url in logins.items()} == {
        role: f"leveret-{role}" for role in ROLES
    }
    assert len({url.password for url in logins.values()}) == len(ROLES)


def test_no_password_is_in_a_command_line_or_a_log(checkout: Checkout) -> None:
    """What the stack keeps secret is in no process's arguments and in no log."""
    kept = [
        line.split('"')[3] for line in checkout.passwords.read_text().splitlines() if ":" in line
    ]
    assert len(kept) > len(ROLES)
    places = [*Path("/proc").glob("[0-9]*/cmdline")]
    places += [path for path in checkout.data.resolve().rglob("*.log") if path.is_file()]
    places += [path for path in checkout.log.glob("*") if path.is_file()]
    for place in places:
        try:
            text = place.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        assert not any(password.encode() in text for password in kept), place


def test_the_broker_listens_on_loopback_only(checkout: Checkout) -> None:
    """No port of the private servers can be reached from another machine."""
    wanted = {
        port
        for file in checkout.data.resolve().glob("*/ports.json")
        for port in ports.load(file).values()
    }
    assert len(wanted) >= 5
    listening: dict[int, set[str]] = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        address, port = local.split(":")
        if state == "0A" and int(port, 16) in wanted:
            listening.setdefault(int(port, 16), set()).add(address)
    assert set(listening) == wanted
    assert set().union(*listening.values()) == {"0100007F"}
    for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        if line.split()[3] == "0A" and int(port, 16) in wanted:
            assert address == "00000000000000000000000001000000", "an IPv6 address but ::1"


@pytest.mark.faults
def test_a_killed_broker_starts_again_with_what_it_had(
    private_broker: Callable[..., PrivateBroker],
) -> None:
    """A private broker can be killed and started, and durable messages are still there."""
    broker = private_broker()
    kept = pika.BasicProperties(delivery_mode=2)
    with pika.BlockingConnection(pika.URLParameters(broker.vhost.amqp_url)) as connection:
        channel = connection.channel()
        channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
        broker.wait_until_kept("kept")
        channel.confirm_delivery()
        for number in range(10):
            channel.basic_publish("", "kept", str(number).encode(), kept)
    broker.kill()
    assert not broker.node.is_running()
    broker.start()
    with pika.BlockingConnection(pika.URLParameters(broker.vhost.amqp_url)) as connection:
        deliveries = connection.channel().consume("kept", inactivity_timeout=20)
        bodies = [body for _, _, body in itertools.islice(deliveries, 10)]
    assert bodies == [str(number).encode() for number in range(10)]


@pytest.mark.faults
def test_a_killed_database_starts_again_with_what_it_had(
    private_postgres: Callable[[], PostgresServer],
) -> None:
    """A private PostgreSQL can be killed and started, and committed rows are still there."""
    server = private_postgres()
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.kill()
    assert not server.is_running()
    server.start()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)


@pytest.mark.faults
def test_the_topology_is_there_after_a_crash(
    private_broker: Callable[..., PrivateBroker],
) -> None:
    """A broker that is killed right after `declare()` comes back with every queue."""
    broker = private_broker()
    vhost = broker.declare()
    before = {queue["name"] for queue in vhost.management.queues(vhost.name)}
    broker.kill()
    broker.start()
    assert {queue["name"] for queue in vhost.management.queues(vhost.name)} == before
    with pika.BlockingConnection(pika.URLParameters(vhost.url("worker"))) as connection:
        connection.channel().basic_consume("leveret.default", lambda *_: None)


@pytest.mark.faults
def test_named_servers_are_used_and_left_alone(
    checkouts: tuple[Checkout, Checkout],
    private_broker: Callable[..., PrivateBroker],
    fresh_database: str,
) -> None:
    """With servers in the environment none is started, users are made there, none is stopped."""
    broker, (checkout, _) = private_broker(), checkouts
    named = {
        "LEVERET_AMQP_URL": broker.vhost.amqp_url,
        "LEVERET_MANAGEMENT_URL": broker.vhost.management_url,
        "LEVERET_DATABASE_URL": fresh_database,
    }
    said = make("up", checkout.root, **named)
    assert "named by LEVERET_AMQP_URL" in said
    assert "named by LEVERET_DATABASE_URL" in said
    found = urls(checkout)
    assert urlsplit(found["LEVERET_AMQP_URL"]).username == "leveret-publisher"
    assert found["LEVERET_DATABASE_URL"] == fresh_database
    assert processes.marked(marks(checkout)[0]) == {}
    make("down", checkout.root, **named)
    assert broker.node.is_ready()


@pytest.mark.faults
def test_a_named_broker_that_we_may_not_administer_is_used_as_it_is(
    checkouts: tuple[Checkout, Checkout],
    private_broker: Callable[..., PrivateBroker],
    fresh_database: str,
) -> None:
    """Without an administrator's rights every process has the user that was named."""
    broker, (checkout, _) = private_broker(), checkouts
    named = {
        "LEVERET_AMQP_URL": broker.vhost.url("admin"),
        "LEVERET_MANAGEMENT_URL": broker.vhost.management_url_for("admin"),
        "LEVERET_DATABASE_URL": fresh_database,
    }
    make("up", checkout.root, **named)
    assert urls(checkout)["LEVERET_AMQP_URL"] == broker.vhost.url("admin")
