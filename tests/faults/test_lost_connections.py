"""Connections and channels that end while something runs over them."""

from __future__ import annotations

import pytest

from leveret import names
from leveret.publisher import Publisher
from tests.support.faultjobs import ACTORS
from tests.support.proxies import TcpProxy
from tests.support.waiting import wait_until
from tests.support.workshop import Workshop


def close_by_management(node, purpose: str) -> int:
    """Close the connections whose name has this in it; return how many were there."""

    def found() -> list[str]:
        return [
            connection["name"]
            for connection in node.management.connections(node.name)
            if purpose in connection.get("client_properties", {}).get("connection_name", "")
        ]

    victims = wait_until(found, timeout=20, what=f"a {purpose} connection", every=0.1)
    for name in victims:
        node.management.close_connection(name)
    return len(victims)


def lose(how: str, node, proxy: TcpProxy) -> None:
    """End the consuming connection of the worker behind the proxy, in one of three ways."""
    if how == "management":
        assert close_by_management(node, "(consuming)") == 1
    else:
        assert proxy.cut() == 2


@pytest.mark.parametrize(("how", "times"), [("management", 1), ("cut", 1), ("cut", 3)])
def test_a_job_that_runs_over_a_reconnect_is_settled_by_its_redelivery(
    node, publisher, books, workshop, refusals, *, how, times
):
    """Tags never cross: 4 runs over 1 or 3 reconnects start once each and are acked rightly."""
    with TcpProxy.before(node.url("worker")) as proxy:
        worker = workshop.start(proxy.through(node.url("worker")), threads=4, prefetch=8)
        held = publisher.publish_many(("probe.hold", {"n": n}) for n in range(4))
        wait_until(lambda: workshop.running() == 4, what="all threads are busy")
        waiting = publisher.publish_many(("probe.run", {"n": n}) for n in range(20))
        for _ in range(times):
            lose(how, node, proxy)
            wait_until(lambda: not worker.is_ready, what="the worker notices")
            wait_until(lambda: worker.is_ready, timeout=20, what="the worker is back")
            wait_until(
                lambda: can_settle(worker, held),
                what="the running jobs are delivered again",
            )
        workshop.gate.set()
        everything = [*held, *waiting]
        books.wait_settled(everything)
        assert workshop.starts == dict.fromkeys(everything, 1)
        assert books.fates(everything) == {"succeeded": 24}
        assert workshop.stop(worker)
    assert books.left_in(names.work_queue("default")) == 0
    assert refusals() == []


def can_settle(worker, job_ids) -> bool:
    """Tell whether each of these jobs runs, and has a delivery that can be acked."""
    settleable = set()
    for thread in worker._threads:
        delivery = thread.delivery
        while delivery is not None and delivery.session.is_over:
            delivery = delivery.successor
        if delivery is not None:
            settleable.add(delivery.label)
    return settleable >= set(job_ids)


def redeliveries(worker) -> int:
    """Return how often each running job has been delivered again while it ran, at least."""
    counts = []
    for thread in worker._threads:
        delivery, count = thread.delivery, 0
        while delivery is not None and delivery.successor is not None:
            delivery, count = delivery.successor, count + 1
        counts.append(count)
    return min(counts)


def test_an_outcome_that_could_not_be_settled_is_not_given_to_a_later_message(
    node, publisher, books, workshop
):
    """Another worker had the redelivery; the same job, published again, runs again here."""
    with TcpProxy.before(node.url("worker")) as proxy:
        worker = workshop.start(proxy.through(node.url("worker")), threads=1)
        job_id = publisher.send("probe.hold")
        wait_until(lambda: workshop.running() == 1, what="it runs")
        proxy.refuse()
        other = Workshop()
        other.gate.set()
        other.start(node.url("worker"))
        books.wait_settled([job_id])
        other.close()
        workshop.gate.set()
        wait_until(lambda: worker._unsettled, what="the run ends, and cannot be settled")
        proxy.resume()
        wait_until(lambda: worker.is_ready, timeout=20, what="the worker is back")
        publisher.send("probe.hold", job_id=job_id)

        def settled_again() -> bool:
            books.read()
            return books.outcomes([job_id]) == {"succeeded": 2}

        wait_until(settled_again, what="the second outcome")
        assert workshop.starts[job_id] == 2
        assert other.starts[job_id] == 1


def test_a_worker_settles_although_its_publishing_connection_is_closed(
    node, publisher, books, workshop, refusals
):
    """Records, retry copies and dead letters that are under way go out again; 300 jobs, 0 lost."""
    worker = workshop.start(node.url("worker"), threads=4)
    actors = ("probe.run", "probe.fail_once", "probe.refuse")
    wanted = {
        actor: publisher.publish_many((actor, {"n": n}) for n in range(50)) for actor in actors
    }
    assert close_by_management(node, "(publishing)") == 1
    for actor in actors:
        wanted[actor] += publisher.publish_many((actor, {"n": n}) for n in range(50))
    for ids in wanted.values():
        books.wait_settled(ids)
    assert workshop.stop(worker)
    books.read()
    assert books.fates(wanted["probe.run"]) == {"succeeded": 100}
    # A copy that was confirmed and not known to be goes out again: twice the same job.
    failed = books.outcomes(wanted["probe.fail_once"])
    assert failed["retrying"] == 100
    assert failed["succeeded"] >= 100
    assert books.fates(wanted["probe.refuse"]) == {"dead": 100}
    assert set(books.dead_letters) == set(wanted["probe.refuse"])
    assert [r for r in refusals() if "PRECONDITION" in r] == []
    assert books.left_in(names.work_queue("default")) == 0


def test_a_publisher_whose_connection_is_closed_loses_nothing(node, books, workshop):
    """Closed by the management API, then cut 5 times, under 500 jobs each: all are there."""
    workshop.start(node.url("worker"))
    with (
        TcpProxy.before(node.url("publisher")) as proxy,
        Publisher(proxy.through(node.url("publisher")), timeout=60) as publisher,
    ):
        accepted = [publisher.send("probe.run")]
        for n in range(6):
            wait_until(
                lambda n=n: proxy.accepted > n and proxy.connections == 1, what="it is connected"
            )
            receipts = [publisher.publish("probe.run", {"n": n}) for _ in range(500)]
            if n == 0:
                assert close_by_management(node, "leveret-publisher") == 1
            else:
                assert proxy.cut() >= 1
            accepted += [receipt.wait() for receipt in receipts]
    books.wait_settled(accepted)
    assert len(set(accepted)) == 3001
    assert set(books.outcomes(accepted)) == {"succeeded"}


def test_a_stalled_connection_is_given_up_and_its_jobs_are_settled_over_the_next(
    node, books, workshop, refusals
):
    """Nothing passes for a while, in either direction; 4 runs go on and start once, 0 lost."""
    limits = {"heartbeat": 1, "stack_timeout": 2, "socket_timeout": 2}
    with TcpProxy.before(node.url("worker")) as proxy:
        worker = workshop.start(proxy.through(node.url("worker"), **limits), threads=4)
        url = proxy.through(node.url("publisher"), **limits)
        with Publisher(url, timeout=60) as publisher:
            held = publisher.publish_many(("probe.hold", {"n": n}) for n in range(4))
            wait_until(lambda: workshop.running() == 4, what="all threads are busy")
            proxy.stall()
            receipts = [publisher.publish("probe.run", {"n": n}) for n in range(100)]
            wait_until(lambda: not worker.is_ready, timeout=30, what="the worker notices")
            assert not any(receipt.done() for receipt in receipts)
            proxy.resume()
            accepted = [receipt.wait() for receipt in receipts]
        wait_until(
            lambda: can_settle(worker, held),
            timeout=30,
            what="the running jobs are delivered again",
        )
        workshop.gate.set()
        books.wait_settled([*held, *accepted])
        assert [workshop.starts[job_id] for job_id in held] == [1] * 4
        assert set(books.outcomes([*held, *accepted])) == {"succeeded"}
        assert workshop.stop(worker)
    assert books.left_in(names.work_queue("default")) == 0
    assert refusals() == []


def test_a_channel_closed_by_the_consumer_timeout_costs_no_run(
    broker, node, publisher, *, books, workshop, refusals
):
    """The broker takes late deliveries away; their runs go on, start once and are acked.

    RabbitMQ 4.3 cancels the consumer, earlier releases close its channel.
    """
    tick = "application:set_env(rabbit, channel_tick_interval, {}), "
    timeout = "application:set_env(rabbit, consumer_timeout, {})."
    broker.control("eval", tick.format(300) + timeout.format(1500))
    try:
        worker = workshop.start(node.url("worker"), threads=2, prefetch=4)
        held = publisher.publish_many(("probe.hold", {"n": n}) for n in range(2))
        wait_until(lambda: workshop.running() == 2, what="all threads are busy")
        wait_until(
            lambda: redeliveries(worker) >= 2 and can_settle(worker, held),
            timeout=30,
            what="the broker takes the deliveries away twice, and brings them again",
        )
        waiting = publisher.publish_many(("probe.run", {"n": n}) for n in range(20))
        workshop.gate.set()
        books.wait_settled([*held, *waiting])
        assert workshop.starts == dict.fromkeys([*held, *waiting], 1)
        assert books.fates([*held, *waiting]) == {"succeeded": 22}
        assert workshop.stop(worker)
    finally:
        broker.control("eval", tick.format(60_000) + timeout.format(1_800_000))
    assert all("consumer ack timed out" in line or "basic" not in line for line in refusals())
    assert books.left_in(names.work_queue("default")) == 0


def test_a_queue_deleted_under_its_consumer_is_consumed_again_when_it_is_back(
    broker, node, publisher, books, workshop
):
    """Meanwhile its jobs are parked as unroutable: 4 ran on, 10 are parked, 50 run after it."""
    worker = workshop.start(node.url("worker"), threads=4)
    held = publisher.publish_many(("probe.hold", {"n": n}) for n in range(4))
    wait_until(lambda: workshop.running() == 4, what="all threads are busy")
    node.management.delete_queue(node.name, names.work_queue("default"))
    wait_until(lambda: not worker.is_ready, what="the worker notices")
    parked = publisher.publish_many(("probe.run", {"n": n}) for n in range(10))
    workshop.gate.set()
    wait_until(lambda: workshop.ends.total() == 4, what="the jobs end")
    assert books.left_in(names.UNROUTABLE) == len(parked)
    node.declare({**ACTORS, **dict.fromkeys(workshop.actors, "default")})
    wait_until(lambda: worker.is_ready, timeout=30, what="the worker consumes again")
    later = publisher.publish_many(("probe.run", {"n": n}) for n in range(50))
    books.wait_settled(later)
    assert worker.health().faults == ()
    assert workshop.starts == dict.fromkeys([*held, *later], 1)
    assert books.fates(later) == {"succeeded": 50}
    broker.wait_until_kept(names.work_queue("default"))


def test_settling_on_a_channel_that_is_being_closed_does_nothing(node, publisher, books, workshop):
    """An ack and a rejection that come too late are void; 4 jobs are delivered again, 0 lost."""
    worker = workshop.start(node.url("worker"), threads=2, prefetch=4)
    job_ids = publisher.publish_many(("probe.hold", {"n": n}) for n in range(4))
    wait_until(lambda: workshop.running() == 2, what="all threads are busy")
    [session] = worker._source._sessions.values()
    wait_until(lambda: len(session.held) == 4, what="all are prefetched")
    errors = []

    def settle_too_late() -> None:
        session.channel.close()
        first, second, *_ = session.held
        try:
            session.ready(first)
            session.flush()
            session.reject(second, requeue=True)
        except Exception as error:  # noqa: BLE001 - asserted below
            errors.append(error)

    assert worker._io.run(settle_too_late)
    assert errors == []
    workshop.gate.set()
    books.wait_settled(job_ids)
    # A run whose ack was void is settled anew by its redelivery, with a record of its own.
    assert books.fates(job_ids) == {"succeeded": 4}


def test_a_queue_deleted_under_load_does_not_hurt_the_worker(
    broker, node, publisher, workshop, books
):
    """Acks that meet a closing channel are dropped; after five deletions it works as before."""
    worker = workshop.start(node.url("worker"), threads=4)
    for _ in range(5):
        ran = workshop.ends.total()
        publisher.publish_many(("probe.run", {"n": n}) for n in range(300))
        wait_until(lambda ran=ran: workshop.ends.total() > ran + 20, what="jobs run")
        node.management.delete_queue(node.name, names.work_queue("default"))
        wait_until(lambda: not worker.is_ready, what="the worker notices")
        node.declare({**ACTORS, **dict.fromkeys(workshop.actors, "default")})
        wait_until(lambda: worker.is_ready, timeout=30, what="the worker consumes again")
    later = publisher.publish_many(("probe.run", {"n": n}) for n in range(50))
    books.wait_settled(later)
    assert books.fates(later) == {"succeeded": 50}
    assert workshop.stop(worker)
    broker.wait_until_kept(names.work_queue("default"))
