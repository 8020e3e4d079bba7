"""What is committed to an outbox reaches the broker, whatever dies on the way."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager, suppress

import pika
import psycopg
import pytest

from leveret import names, outbox
from tests.support.databases import temporary_database
from tests.support.proxies import TcpProxy
from tests.support.relaykills import FOLDER, POINT, POINTS
from tests.support.relays import RelayProcess, lay_out, waiting
from tests.support.waiting import wait_until

QUEUE = names.work_queue("bulk")


@pytest.fixture
def shop(checkout):
    """Return a database with an outbox."""
    with temporary_database(checkout, "shop") as url:
        yield lay_out(url)


@pytest.fixture
def relays(tmp_path):
    """Return a function that starts a relay and waits for nothing."""
    made = []

    def start(vhost, *urls, **options):
        made.append(RelayProcess(vhost, *urls, folder=tmp_path, **options))
        return made[-1]

    yield start
    for each in made:
        each.kill()
        print(each.log[-3000:])
        assert "Traceback" not in each.log


def read(vhost) -> Counter[str]:
    """Take all messages of the queue, and count them by their ids."""
    found: Counter[str] = Counter()
    connection = pika.BlockingConnection(pika.URLParameters(vhost.amqp_url))
    channel = connection.channel()
    for method, properties, _ in channel.consume(QUEUE, auto_ack=True, inactivity_timeout=0.3):
        if method is None:
            break
        found[properties.message_id] += 1
    connection.close()
    return found


def enqueue(url, count, first=0):
    """Commit so many jobs in one transaction; return their ids."""
    with psycopg.connect(url) as connection:
        return outbox.enqueue_many(
            connection, (("order.pack", {"n": first + n}) for n in range(count)), queue="bulk"
        )


class Shop:
    """A service that commits jobs until it is told to stop, and knows which were committed."""

    def __init__(self, url):
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.committed: list[str] = []
        self.doubtful: list[str] = []

    def _run(self):
        while not self._stop.is_set():
            with suppress(psycopg.Error), psycopg.connect(self._url) as connection:
                while not self._stop.wait(0.005):
                    job_id = outbox.enqueue(connection, "order.pack", queue="bulk")
                    self.doubtful.append(job_id)
                    connection.commit()
                    self.doubtful.remove(job_id)
                    self.committed.append(job_id)
            self._stop.wait(0.1)

    @contextmanager
    def open(self):
        """Work meanwhile."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join(30)


@pytest.mark.parametrize("point", POINTS)
def test_a_relay_killed_within_a_batch_loses_nothing(point, shop, vhost, relays, tmp_path):
    """300 jobs in one batch; what had been sent before comes again under the same id, or not."""
    read(vhost)
    ids = enqueue(shop, 300)
    variables = {POINT: point, FOLDER: str(tmp_path)}
    dying = relays(vhost, shop, module="tests.support.relaykills", **variables)
    assert dying.process.wait(60) == -9
    before = read(vhost)
    left = waiting(shop)
    assert left == (0 if point == "committed" else 300)
    assert before.keys() <= set(ids)
    if point == "read":
        assert not before
    if point in {"confirmed", "deleted", "committed"}:
        assert before == dict.fromkeys(ids, 1)
    relays(vhost, shop)
    wait_until(lambda: waiting(shop) == 0, timeout=60, what="the outbox is empty")
    after = read(vhost)
    assert set(before) | set(after) == set(ids)
    assert set(after.values()) <= {1}
    assert sum(after.values()) == left


def test_relays_that_are_killed_again_and_again_lose_nothing(shop, vhost, relays):
    """A service commits all the while; one of two relays is killed three times."""
    read(vhost)
    with Shop(shop).open() as service:
        relays(vhost, shop)
        for _ in range(3):
            victim = relays(vhost, shop).wait_ready()
            seen = len(service.committed)
            wait_until(lambda seen=seen: len(service.committed) > seen + 30, timeout=60)
            victim.kill()
    wait_until(lambda: waiting(shop) == 0, timeout=60, what="the outbox is empty")
    found = read(vhost)
    assert set(service.committed) <= set(found) <= {*service.committed, *service.doubtful}
    assert len(service.committed) > 90


def test_a_broker_that_is_killed_is_waited_for(broker, node, shop, relays):
    """Nothing is lost, one line says that it is away, and the relay is not ready meanwhile."""
    relay = relays(node, shop).wait_ready()
    with Shop(shop).open() as service:
        wait_until(lambda: len(service.committed) > 50, timeout=60)
        broker.kill()
        wait_until(lambda: relay.get("/readyz")[0] == 503, timeout=30)
        seen = len(service.committed)
        wait_until(lambda: len(service.committed) > seen + 50, timeout=60)
        assert relay.get("/livez")[0] == 200
        broker.start()
        wait_until(lambda: relay.get("/readyz")[0] == 200, timeout=60)
    wait_until(lambda: waiting(shop) == 0, timeout=60, what="the outbox is empty")
    found = read(node)
    assert set(service.committed) <= set(found) <= {*service.committed, *service.doubtful}
    assert relay.log.count("no connection to the broker") == 1
    assert relay.terminate() == 0


def test_a_broker_that_blocks_publishers_is_held_for(broker, node, shop, relays):
    """A memory alarm: jobs stay in the database, no transaction is open, and then they leave."""
    relay = relays(node, shop).wait_ready()
    enqueue(shop, 1)
    wait_until(lambda: waiting(shop) == 0, timeout=30)
    broker.control("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        ids = []
        for n in range(100):
            ids += enqueue(shop, 1, first=n)
            if relay.get("/readyz")[0] == 503:
                break
        wait_until(lambda: relay.get("/readyz")[0] == 503, timeout=30, what="it is blocked")
        ids += enqueue(shop, 20, first=100)
        assert waiting(shop) >= 20
        assert relay.get("/livez")[0] == 200
    finally:
        broker.control("set_vm_memory_high_watermark", "0.4")
    wait_until(lambda: waiting(shop) == 0, timeout=60, what="the outbox is empty")
    assert set(ids) <= set(read(node))


def test_a_database_that_is_killed_is_waited_for_while_others_are_served(
    private_postgres, shop, vhost, relays
):
    """One line says that it is away, one that it is back; what it had committed arrives."""
    read(vhost)
    server = private_postgres()
    url = lay_out(server.url())
    relay = relays(vhost, shop, url).wait_ready()
    with Shop(url).open() as service:
        wait_until(lambda: len(service.committed) > 50, timeout=60)
        server.kill()
        wait_until(lambda: relay.events("relay.database_lost") == 1, timeout=30)
        other = enqueue(shop, 50)
        wait_until(lambda: waiting(shop) == 0, timeout=30, what="the other database is served")
        server.start()
        seen = len(service.committed)
        wait_until(lambda: len(service.committed) > seen + 50, timeout=60)
    wait_until(lambda: waiting(url) == 0, timeout=60, what="the outbox is empty")
    found = read(vhost)
    assert {*service.committed, *other} <= set(found)
    assert set(found) <= {*service.committed, *service.doubtful, *other}
    assert relay.events("relay.database_lost") == relay.events("relay.database_found") == 1
    assert relay.terminate() == 0


def test_a_relay_starts_before_everything_else(private_postgres, fresh_vhost, relays):
    """No topology, no table, no database: it waits for each, and says so once."""
    server = private_postgres()
    server.stop()
    relay = relays(fresh_vhost, server.url())
    wait_until(lambda: relay.events("relay.database_lost") == 1, timeout=30)
    server.start()
    wait_until(lambda: "leveret outbox ddl" in relay.log, timeout=30, what="it misses the table")
    lay_out(server.url())
    wait_until(lambda: relay.events("relay.database_found") == 1, timeout=30)
    ids = enqueue(server.url(), 20)
    wait_until(lambda: relay.events("relay.refused") == 1, timeout=30, what="it is refused")
    fresh_vhost.declare()
    wait_until(lambda: waiting(server.url()) == 0, timeout=60, what="the outbox is empty")
    assert set(read(fresh_vhost)) == set(ids)
    assert relay.events("relay.refused") == relay.events("relay.accepted_again") == 1
    assert relay.events("relay.set_aside") == 0


def test_a_database_whose_connections_are_cut_is_found_again(shop, vhost, relays):
    """Also the one that listens, of which nothing is asked."""
    read(vhost)
    with TcpProxy.before(shop) as proxy:
        relay = relays(vhost, proxy.through(shop)).wait_ready()
        for n in range(3):
            ids = enqueue(shop, 10, first=n)
            wait_until(lambda: waiting(shop) == 0, timeout=30)
            assert set(read(vhost)) == set(ids)
            assert proxy.cut() == 2
            wait_until(lambda n=n: relay.events("relay.database_found") == n + 1, timeout=30)
            wait_until(lambda: proxy.connections == 2, timeout=30, what="it listens again")


def test_a_database_that_cannot_be_listened_to_is_polled(shop, vhost, relays):
    """Its jobs leave, a little later."""
    read(vhost)
    with TcpProxy.before(shop) as proxy:
        proxy.refuse()
        relay = relays(vhost, shop, LEVERET_OUTBOX_LISTEN_URLS=proxy.through(shop)).wait_ready()
        ids = enqueue(shop, 10)
        wait_until(lambda: waiting(shop) == 0, timeout=30)
        assert set(read(vhost)) == set(ids)
        assert relay.events("relay.cannot_listen") == 1
        proxy.resume()
        wait_until(lambda: proxy.connections == 1, timeout=30, what="it listens")


def test_a_full_queue_puts_its_jobs_off_and_lets_others_pass(fresh_vhost, shop, relays):
    """What the broker does not take now is tried again; nothing is set aside."""
    fresh_vhost.declare()
    fresh_vhost.management.put_policy(
        fresh_vhost.name,
        "full",
        pattern=f"^{QUEUE}$",
        definition={"max-length": 5},
        apply_to="queues",
        priority=100,
    )
    relay = relays(fresh_vhost, shop).wait_ready()
    ids = []

    def put_off() -> int:
        ids.extend(enqueue(shop, 10))  # the queue says that it is full a little late
        with psycopg.connect(shop) as connection:
            return connection.execute(
                "SELECT count(*) FROM leveret_outbox WHERE hold_until < 'infinity'"
                " AND error LIKE '%full or not available%'"
            ).fetchone()[0]

    wait_until(put_off, timeout=30, what="some are put off", every=0.1)
    with psycopg.connect(shop) as connection:
        outbox.enqueue_many(connection, [("order.pack", {})] * 5, queue="critical")
    connection = pika.BlockingConnection(pika.URLParameters(fresh_vhost.amqp_url))
    channel = connection.channel()
    for _ in range(5):
        wait_until(lambda: channel.basic_get("leveret.critical", auto_ack=True)[0], timeout=30)
    connection.close()
    found: Counter[str] = Counter()

    def left() -> bool:
        found.update(read(fresh_vhost))
        return waiting(shop) == 0 and found.keys() == set(ids)

    wait_until(left, timeout=60, what="all have left", every=0.2)
    assert relay.events("relay.set_aside") == 0
