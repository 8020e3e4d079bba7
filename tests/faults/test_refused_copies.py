"""Retry copies and dead letters that the broker does not take."""

from __future__ import annotations

import pika
import pytest

from leveret import names, wheel
from leveret.management import grant
from leveret.topology import ROLES
from tests.support.waiting import wait_until

TOP = names.wheel_exchange(wheel.DIGITS - 1)


class Unbound:
    """The retry exchange leads nowhere."""

    def __init__(self, node) -> None:
        self._node = node

    def __enter__(self) -> None:
        self._do(lambda channel: channel.exchange_unbind(TOP, names.RETRY, "#"))

    def __exit__(self, *_: object) -> None:
        self._do(lambda channel: channel.exchange_bind(TOP, names.RETRY, "#"))

    def _do(self, deed) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._node.amqp_url))
        deed(connection.channel())
        connection.close()


class Revoked:
    """The worker's user may not write to an exchange."""

    def __init__(self, node, exchange: str = names.RETRY) -> None:
        self._node, self._exchange = node, exchange

    def __enter__(self) -> None:
        role = ROLES["worker"]
        pattern = self._exchange.replace(".", "\\.")
        write = role.write.replace(f"|{pattern}|", "|")
        assert write != role.write
        self._node.management.put_permissions(
            self._node.name, role.user, configure=role.configure, write=write, read=role.read
        )

    def __exit__(self, *_: object) -> None:
        grant(self._node.management, self._node.name)


@pytest.mark.parametrize("obstacle", [Unbound, Revoked])
def test_a_failed_retry_publish_never_loses_a_job(node, publisher, books, workshop, obstacle):
    """20 jobs are held until their copies are taken; 50 others are settled meanwhile."""
    with obstacle(node):
        worker = workshop.start(node.url("worker"), threads=4, prefetch=50)
        failing = publisher.publish_many(("probe.fail_once", {"n": n}) for n in range(20))
        wait_until(lambda: worker._settler._held == 20, timeout=20, what="20 are refused")
        others = publisher.publish_many(("probe.run", {"n": n}) for n in range(50))
        books.wait_settled(others)
        assert books.unsettled(failing) == set(failing)
    books.wait_settled(failing)
    assert workshop.stop(worker)
    assert [workshop.starts[job_id] for job_id in failing] == [2] * 20
    assert books.outcomes(failing)["succeeded"] == 20
    assert set(books.outcomes(failing)) == {"retrying", "succeeded"}
    assert books.left_in(names.work_queue("default")) == 0


def test_a_dead_letter_that_may_not_be_published_leaves_by_the_queues_own_way(
    node, publisher, books, workshop
):
    """Each of 20 refused jobs is in the dead-letter queue, once."""
    with Revoked(node, names.DEAD):
        worker = workshop.start(node.url("worker"))
        refused = publisher.publish_many(("probe.refuse", {"n": n}) for n in range(20))

        def arrived() -> bool:
            books.read()
            return set(books.dead_letters) >= set(refused)

        wait_until(arrived, timeout=30, every=0.1, what="20 dead letters")
        assert workshop.stop(worker)
    assert [len(books.dead_letters[job_id]) for job_id in refused] == [1] * 20
    assert [workshop.starts[job_id] for job_id in refused] == [1] * 20
    assert books.left_in(names.work_queue("default")) == 0
