"""The publisher on a real broker: every way to publish, and every way to be refused."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pika
import pytest
from prometheus_client import REGISTRY, generate_latest

from leveret import Publisher
from leveret.errors import (
    InvalidJob,
    PublisherClosed,
    PublishError,
    PublishRejected,
    PublishTimeout,
)
from leveret.message import Job, new_id
from tests.support.waiting import wait_until
from tests.support.workers import Letter

QUEUE = "leveret.bulk"


@pytest.fixture
def broker(vhost):
    """Return a channel of the owner on empty queues."""
    connection = pika.BlockingConnection(pika.URLParameters(vhost.amqp_url))
    channel = connection.channel()
    for queue in ("critical", "default", "bulk", "scheduled"):
        channel.queue_purge(f"leveret.{queue}")
    channel.queue_purge("leveret.unroutable")
    yield channel
    if connection.is_open:
        connection.close()


@pytest.fixture
def publisher(vhost):
    """Return a publisher with the privileges of its role."""
    with Publisher(vhost.url("publisher"), app_id="shop", timeout=20) as made:
        yield made


def take(channel, count=1, queue=QUEUE, timeout=20.0):
    """Take so many messages from a queue; there must be no more."""
    found = []
    deadline = time.monotonic() + timeout
    for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.2):
        if method is not None:
            if properties.type:  # what has none came late out of the wheel, from another test
                found.append(Letter(body, properties, method.routing_key))
        elif len(found) >= count or time.monotonic() > deadline:
            break
    channel.cancel()
    assert len(found) == count
    return found


# ------------------------------------------------------------------------------ ways to publish


def test_a_job_has_everything_that_it_was_given(publisher, broker):
    """Properties, headers, key and body, as the contract has them."""
    before = datetime.now(UTC)
    job = publisher.send(
        "email.send",
        {"to": "a@b.c", "n": 1},
        queue="bulk",
        priority=7,
        correlation_id="order-7",
        expires=timedelta(hours=1),
        max_retries=3,
        idempotency_key="k",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    (letter,) = take(broker)
    found = letter.properties
    assert UUID(job).version == 7
    assert letter.routing_key == "bulk.email.send"
    assert json.loads(letter.body) == {"to": "a@b.c", "n": 1}
    assert (found.message_id, found.type, found.app_id) == (job, "email.send", "shop")
    assert (found.content_type, found.delivery_mode) == ("application/json", 2)
    assert (found.priority, found.correlation_id) == (7, "order-7")
    assert abs(found.timestamp - before.timestamp()) < 5
    assert letter.headers["x-leveret-max-retries"] == 3
    assert letter.headers["x-leveret-idempotency-key"] == "k"
    expires = datetime.fromisoformat(letter.headers["x-leveret-expires-at"])
    assert timedelta(minutes=59) < expires - before < timedelta(minutes=61)


def test_a_receipt_knows_its_id_at_once_and_is_settled_once(publisher, broker):
    """`publish` returns before the confirm, `wait` after it; callbacks come either way."""
    calls = []
    receipt = publisher.publish("a.b", queue="bulk", job_id="mine")
    receipt.add_done_callback(lambda r: calls.append(r.job_id))
    assert receipt.job_id == "mine"
    assert receipt.wait() == receipt.wait(0) == "mine"
    receipt.add_done_callback(lambda r: calls.append("late"))
    wait_until(lambda: len(calls) == 2)
    assert receipt.done()
    assert receipt.exception() is None
    assert sorted(calls) == ["late", "mine"]
    take(broker)


def test_many_jobs_are_published_with_progress(publisher, broker):
    """Ids in order, every one in the broker once, and progress that only grows."""
    seen = []
    ids = publisher.publish_many(
        (("a.b", {"n": n}) for n in range(5000)), queue="bulk", progress=seen.append
    )
    assert len(set(ids)) == 5000
    assert seen == sorted(seen)
    assert seen[-1] == 5000
    letters = take(broker, 5000)
    assert [letter.properties.message_id for letter in letters] == ids
    assert [json.loads(letter.body)["n"] for letter in letters] == list(range(5000))


def test_publish_many_takes_jobs_and_pairs(publisher, broker):
    """A `Job` is published as it is; to a pair the options apply."""
    ids = publisher.publish_many(
        [Job(actor="a.b", id="one", queue="bulk"), ("a.c", {})], queue="bulk", priority=3
    )
    found = take(broker, 2)
    assert [x.properties.message_id for x in found] == ids
    assert [x.properties.priority for x in found] == [None, 3]


def test_many_threads_share_a_publisher(publisher, broker):
    """Each gets the confirm of its own job."""
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda n: publisher.send("a.b", {"n": n}, queue="bulk"), range(800)))
    found = {x.properties.message_id: json.loads(x.body)["n"] for x in take(broker, 800)}
    assert [found[job] for job in ids] == list(range(800))


def test_five_thousand_awaits_at_once(publisher, broker):
    """`await publish()` does not block the loop, also beyond the window."""
    ticks = []

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def main():
        ticking = asyncio.ensure_future(tick())
        receipts = []
        for n in range(5000):
            receipts.append(publisher.publish("a.b", {"n": n}, queue="bulk"))
            if n % 500 == 0:
                await asyncio.sleep(0)

        async def wait(receipt):
            return await receipt

        ids = await asyncio.gather(*map(wait, receipts))
        ticking.cancel()
        return ids, await receipts[0]

    ids, again = asyncio.run(main())
    assert again == ids[0]
    assert [x.properties.message_id for x in take(broker, 5000)] == ids
    gaps = [later - sooner for sooner, later in pairwise(ticks)]
    assert max(gaps) < 2


def test_a_publisher_works_on_both_sides_of_a_fork(publisher, broker):
    """The child starts afresh; what the parent has under way is the parent's alone."""
    publisher.send("a.b", {"who": "before"}, queue="bulk")
    under_way = [publisher.publish("a.b", {"who": "parent"}, queue="bulk") for _ in range(200)]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            publisher.send("a.b", {"who": "child"}, queue="bulk")
            publisher.close()
            status = 0
        finally:
            os._exit(status)
    for receipt in under_way:
        receipt.wait()
    publisher.send("a.b", {"who": "after"}, queue="bulk")
    assert os.waitpid(child, 0)[1] == 0
    who = [json.loads(x.body)["who"] for x in take(broker, 203)]
    assert sorted(who) == sorted(["before", *["parent"] * 200, "child", "after"])


def test_closing_flushes_and_a_closed_publisher_says_so(vhost, broker):
    """Everything that was under way is in the broker."""
    publisher = Publisher(vhost.url("publisher"))
    receipts = [publisher.publish("a.b", {"n": n}, queue="bulk") for n in range(500)]
    publisher.close()
    publisher.close()
    assert all(receipt.done() and receipt.exception() is None for receipt in receipts)
    with pytest.raises(PublisherClosed, match="closed"):
        publisher.publish("a.b", queue="bulk")
    take(broker, 500)


def test_a_publisher_that_was_never_used_closes_at_once(vhost):
    """It has not even connected."""
    threads = threading.active_count()
    with Publisher(vhost.url("publisher")):
        assert threading.active_count() == threads


def test_no_connection_is_left_behind_by_a_closed_publisher(vhost, broker):
    """The broker was told good-bye, and the thread has ended."""
    before = threading.active_count()
    publisher = Publisher(vhost.url("publisher"))
    publisher.send("a.b", queue="bulk")
    outbound = publisher._outbound
    publisher.close()
    assert outbound.is_closed
    wait_until(lambda: threading.active_count() <= before, what="its thread has ended")
    take(broker)


# ------------------------------------------------------------------------------- back-pressure


def test_a_full_window_holds_the_publisher_back_and_nothing_fails(vhost, broker):
    """With a window of ten, never more than ten are under way."""
    most = 0
    with Publisher(vhost.url("publisher"), window=10) as publisher:
        for n in range(300):
            publisher.publish("a.b", {"n": n}, queue="bulk")
            most = max(most, publisher._under_way)
    assert most <= 10
    take(broker, 300)


def test_a_window_of_bytes_lets_one_large_job_through(vhost, broker):
    """A job larger than the window goes alone."""
    with Publisher(vhost.url("publisher"), window_bytes=1000) as publisher:
        for _ in range(5):
            publisher.publish("a.b", {"x": "x" * 2000}, queue="bulk")
    take(broker, 5)


def test_without_a_broker_a_publish_fails_in_time_and_says_why():
    """`PublishTimeout` is a `TimeoutError`, knows the id, and says that repeating is safe."""
    with Publisher("amqp://nobody:nothing@127.0.0.1:1/x", timeout=0.4) as publisher:
        begin = time.monotonic()
        with pytest.raises(PublishTimeout, match=r"not connected.*safe to repeat") as caught:
            publisher.send("a.b", job_id="mine")
        assert caught.value.job_id == "mine"
        assert isinstance(caught.value, TimeoutError)
        assert time.monotonic() - begin < 3
        publisher.flush(5)


def test_waiting_for_a_receipt_can_be_given_up_earlier():
    """That says nothing about the job, which is still under way."""
    with Publisher("amqp://nobody:nothing@127.0.0.1:1/x", timeout=0.6) as publisher:
        receipt = publisher.publish("a.b")
        with pytest.raises(PublishTimeout, match="still under way"):
            receipt.wait(0.01)
        assert not receipt.done()
        with pytest.raises(PublishTimeout, match="no confirm"):
            receipt.wait()


def test_without_a_broker_a_full_window_ends_in_a_timeout_too():
    """The one that finds no room is not published."""
    with Publisher("amqp://nobody:nothing@127.0.0.1:1/x", timeout=30, window=2) as publisher:
        receipts = [publisher.publish("a.b", timeout=1) for _ in range(2)]
        with pytest.raises(PublishTimeout, match="2 jobs are under way"):
            publisher.publish("a.b", timeout=0.1)
        for receipt in receipts:
            with pytest.raises(PublishTimeout):
                receipt.wait()


# ------------------------------------------------------------------------------------- refusals


def test_a_refused_job_fails_alone_among_its_neighbours(publisher, broker):
    """The broker closes the channel over it; all others on it are sent again, and succeed."""
    receipts = []
    for n in range(300):
        queue = "forbidden" if n in (7, 150, 151, 299) else "bulk"
        receipts.append(publisher.publish("a.b", {"n": n}, queue=queue))
    failed = []
    for n, receipt in enumerate(receipts):
        try:
            receipt.wait()
        except PublishRejected as error:
            failed.append(n)
            assert "forbidden.a.b" in str(error)  # noqa: PT017 - some fail, and some do not
            assert error.job_id == receipt.job_id  # noqa: PT017
    assert failed == [7, 150, 151, 299]
    arrived = {json.loads(x.body)["n"] for x in _all(broker)}
    assert arrived == set(range(300)) - set(failed)


def _all(channel):
    found = []
    while True:
        method, properties, body = channel.basic_get(QUEUE, auto_ack=True)
        if method is None:
            return found
        if properties.type:
            found.append(Letter(body, properties, method.routing_key))


def test_an_exchange_that_is_missing_fails_its_posts_and_no_others(fresh_vhost):
    """Before the topology is there, the error says what the broker said.

    That the exchange is missing, or from RabbitMQ 4.3 on that nobody may publish yet.
    """
    with Publisher(fresh_vhost.url("publisher"), timeout=10) as publisher:
        with pytest.raises(PublishRejected, match=r"no exchange 'leveret\.jobs'|refused"):
            publisher.send("a.b")
        with pytest.raises(PublishRejected, match=r"leveret\.delay|refused"):
            publisher.send("a.b", delay=5)
        fresh_vhost.declare()
        assert publisher.send("a.b", queue="bulk")


def test_a_body_that_is_too_large_is_refused_before_it_leaves(vhost, broker):
    """At the publisher's own limit, with the remedy."""
    with (
        Publisher(vhost.url("publisher"), max_body_bytes=100) as publisher,
        pytest.raises(InvalidJob, match="put the data into a storage"),
    ):
        publisher.publish("a.b", {"x": "x" * 100}, queue="bulk")


def test_a_job_that_cannot_be_encoded_fails_alone(publisher, broker):
    """A header that has no form in UTF-8, say, which only the wire notices."""
    good = [publisher.publish("a.b", {"n": n}, queue="bulk") for n in range(20)]
    bad = publisher._receipt(Job(actor="a.b", id=new_id(), queue="bulk"), 5)
    bad.properties.headers = {"x-theirs": "\ud800"}
    publisher._admit(bad, may_block=True)
    more = [publisher.publish("a.b", {"n": n}, queue="bulk") for n in range(20, 40)]
    with pytest.raises(PublishError, match="cannot be encoded"):
        bad.wait()
    for receipt in (*good, *more):
        receipt.wait()
    assert [json.loads(x.body)["n"] for x in take(broker, 40)] == list(range(40))


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": timedelta(seconds=-1)},
        {"delay": 1, "at": datetime(2100, 1, 1, tzinfo=UTC)},
        {"delay": timedelta(days=311)},
        {"at": datetime(2200, 1, 1, tzinfo=UTC)},
        {"at": datetime(2026, 1, 1)},  # noqa: DTZ001 - that is the point
        {"delay": 1e300},
        {"delay": float("nan")},
        {"expires": 1e300},
        {"expires": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"queue": "any"},
        {"priority": 256},
        {"correlation_id": "x" * 256},
        {"job_id": "x" * 256},
        {"job_id": "\ud800"},
        {"idempotency_key": ""},
    ],
    ids=str,
)
def test_options_that_break_the_contract_are_refused_at_once(publisher, options):
    """In the caller's own line, before anything is sent."""
    with pytest.raises(InvalidJob):
        publisher.publish("a.b", {}, **{"queue": "bulk", **options})
    assert publisher.flush(1)


def test_an_unknown_actor_is_not_lost_but_parked(publisher, broker):
    """The broker accepts it; nobody is bound; it lies among the unroutable."""
    job = publisher.send("nobody.knows")
    (letter,) = take(broker, queue="leveret.unroutable")
    assert letter.properties.message_id == job
    assert letter.routing_key == "any.nobody.knows"


def test_the_same_id_again_is_the_same_job_twice_in_the_queue(publisher, broker):
    """The broker does not count ids; whoever consumes them does."""
    for _ in range(2):
        assert publisher.send("a.b", job_id="order-7", queue="bulk") == "order-7"
    assert {x.properties.message_id for x in take(broker, 2)} == {"order-7"}


def test_what_is_confirmed_and_what_fails_is_counted(vhost, broker):
    """By the queue that was asked for, which nobody makes up, and by why it was not accepted."""

    def sample(name, **labels):
        return REGISTRY.get_sample_value(name, labels) or 0

    def counts():
        return {
            **{
                queue: sample("leveret_jobs_published_total", queue=queue)
                for queue in ("bulk", "any", "other")
            },
            **{
                reason: sample("leveret_publish_failures_total", reason=reason)
                for reason in ("closed", "rejected")
            },
            "confirms": sample("leveret_publish_confirm_seconds_count"),
        }

    before = counts()
    with Publisher(vhost.url("publisher"), timeout=20) as publisher:
        publisher.publish_many((("work.do", {"n": n}) for n in range(50)), queue="bulk")
        publisher.send("work.do", delay=60)
        with pytest.raises(PublishRejected):
            publisher.send("work.do", queue="made-up")
        assert sample("leveret_publish_unconfirmed") == 0
    with pytest.raises(PublisherClosed):
        publisher.send("work.do")
    with Publisher(vhost.amqp_url, timeout=20) as owner:
        for n in range(20):
            owner.send("work.do", queue=f"made-up-{n}")
    assert {name: value - before[name] for name, value in counts().items()} == {
        "bulk": 50,
        "any": 1,
        "other": 20,
        "closed": 1,
        "rejected": 1,
        "confirms": 71,
    }
    assert "made-up" not in generate_latest().decode()
