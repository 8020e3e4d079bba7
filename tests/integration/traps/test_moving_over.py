"""Moving over from stock Dramatiq 2.2.1: its publishers and its actors as they are."""

from __future__ import annotations

import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

import leveret
from leveret.names import JOBS
from tests.support.workers import AT_ONCE


class MovedBroker(RabbitmqBroker):
    """A stock broker whose exchange is `leveret.jobs`; all else is Dramatiq's."""

    def declare_queue(self, queue_name, *, ensure=False):
        """Declare nothing: this user may not, and need not."""
        self.queues.add(queue_name)

    @property
    def channel(self):
        """Return the channel, which publishes to the other exchange."""
        channel = super().channel
        if not hasattr(channel, "stock_publish"):
            channel.stock_publish = channel.basic_publish
            channel.basic_publish = lambda exchange="", **rest: channel.stock_publish(
                exchange=JOBS, **rest
            )
        return channel


def test_a_stock_publisher_moves_over_by_changing_its_exchange(worker):
    """Its messages run, its delayed ones when they are due, its retries are counted on."""
    stock = MovedBroker(url=worker.vhost.url("publisher"), confirm_delivery=True)

    @dramatiq.actor(broker=stock, actor_name="work.do", queue_name="default")
    def publishing(a, b): ...

    @worker.actor("work.do", backoff=AT_ONCE)
    def do(a: int, b: int):
        worker.notes.append((a, b, leveret.current_job().attempt, time.time()))
        if a == 3 and leveret.current_job().attempt == 1:
            raise ValueError("once")

    worker.start()
    publishing.send(1, b=2)
    (first,) = worker.noted(1)
    assert first[:3] == (1, 2, 1)
    begin = time.time()
    delayed = publishing.send_with_options(args=(2, 2), delay=700)
    worker.noted(2)
    assert worker.notes[1][:3] == (2, 2, 1)
    assert 0.65 <= worker.notes[1][3] - begin < 5
    assert worker.records(delayed.message_id, "snoozed", "succeeded")
    publishing.send(3, 4)
    worker.noted(4)
    assert [note[:3] for note in worker.notes[2:]] == [(3, 4, 1), (3, 4, 2)]
    stock.close()


def test_stock_actors_are_declared_with_stock_options(worker):
    """`min_backoff`, `max_retries`, `throws` and `time_limit` in milliseconds mean the same."""

    class NoUseError(Exception):
        pass

    @dramatiq.actor(
        broker=worker.broker, max_retries=1, min_backoff=0, max_backoff=1, time_limit=60_000
    )
    def twice():
        worker.notes.append("twice")
        raise ValueError

    @dramatiq.actor(broker=worker.broker, throws=NoUseError, min_backoff=1, max_backoff=2)
    def thrower():
        worker.notes.append("thrower")
        raise NoUseError

    @dramatiq.actor(broker=worker.broker, min_backoff=1, max_backoff=2)
    def asks():
        worker.notes.append("asks")
        if worker.notes.count("asks") == 1:
            raise dramatiq.errors.Retry(delay=10)

    worker.start()
    worker.send("twice")
    worker.send("thrower")
    asked = worker.send("asks")
    assert {(x.properties.type, x.reason) for x in worker.letters(2)} == {
        ("twice", "exhausted"),
        ("thrower", "refused"),
    }
    worker.records(asked, "retrying", "succeeded")
    assert sorted(worker.notes) == ["asks", "asks", "thrower", "twice", "twice"]
