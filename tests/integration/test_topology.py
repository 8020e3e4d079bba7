"""Bringing a real broker to the topology table, and finding what differs from it."""

from __future__ import annotations

import time

import pika
import pytest

from compose.native import ports
from leveret.errors import TopologyError
from leveret.names import DEFAULT_QUEUES
from leveret.topology import apply, build, compare, prune
from tests.support.waiting import wait_until

ACTORS = {"email.send": "default", "report.generate": "bulk"}
TABLE = build(DEFAULT_QUEUES, ACTORS)


def drift(vhost, table=TABLE):
    """Compare what stands in a virtual host with a table."""
    found = vhost.management
    return compare(
        table,
        exchanges=found.get("exchanges", vhost.name),
        queues=found.get("queues", vhost.name),
        bindings=found.get("bindings", vhost.name),
        policies=[{"name": policy.name} for policy in table.policies],
    )


def publish(channel, key, exchange="leveret.jobs"):
    """Publish an empty job with a confirm."""
    channel.basic_publish(exchange, key, b"{}")


@pytest.fixture
def channel(fresh_vhost):
    """Return a channel of the owner, with confirms."""
    connection = pika.BlockingConnection(pika.URLParameters(fresh_vhost.amqp_url))
    made = connection.channel()
    made.confirm_delivery()
    yield made
    if connection.is_open:
        connection.close()


def waiting(channel, queue):
    """Count what waits in a queue, and empty it."""
    return channel.queue_purge(queue).method.message_count


def test_applying_is_quick_and_the_second_time_changes_nothing(fresh_vhost):
    """Within 3 s, all 100-odd queues; and afterwards there is no difference."""
    url = fresh_vhost.url("admin")
    begin = time.monotonic()
    apply(url, TABLE)
    first = time.monotonic() - begin
    assert drift(fresh_vhost) == []
    begin = time.monotonic()
    apply(url, TABLE)
    again = time.monotonic() - begin
    assert drift(fresh_vhost) == []
    assert again <= 3
    assert first <= 12  # 3 s on a machine that does nothing else


def test_a_cluster_is_applied_to_through_whichever_node_answers(fresh_vhost):
    """The address of a cluster has all of its nodes; the first may be away."""
    apply(f"amqp://nobody:x@{ports.HOST}:{ports.choose()}/v,{fresh_vhost.url('admin')}", TABLE)
    assert drift(fresh_vhost) == []


def test_every_kind_of_drift_is_reported(fresh_vhost, channel):
    """Missing, different and unexpected: exchanges, queues, and bindings."""
    fresh_vhost.declare(ACTORS)
    channel.exchange_delete("leveret.retry")
    channel.queue_delete("leveret.dead.bulk")
    channel.queue_unbind("leveret.ledger", "leveret.outcomes", "#")
    channel.queue_delete("leveret.default")
    channel.queue_declare("leveret.default", durable=True)
    channel.queue_declare("leveret.stray", durable=True)
    channel.exchange_declare("leveret.odd", "fanout", durable=True)
    channel.queue_bind("leveret.bulk", "leveret.route", "extra.#")
    channel.queue_declare("somebody.elses")
    found = [str(difference) for difference in drift(fresh_vhost)]
    for wanted in (
        "missing: exchange leveret.retry",
        "missing: queue leveret.dead.bulk",
        "missing: binding leveret.outcomes -> leveret.ledger (key '#')",
        "unexpected: queue leveret.stray",
        "unexpected: exchange leveret.odd",
        "unexpected: binding leveret.route -> leveret.bulk (key 'extra.#')",
    ):
        assert wanted in found
    (different,) = [line for line in found if line.startswith("different: queue leveret.default")]
    assert "x-dead-letter-strategy: wanted 'at-least-once', found None" in different
    assert not any("elses" in line for line in found)


def test_a_queue_with_other_arguments_is_refused_with_the_remedy(fresh_vhost, channel):
    """Nothing that holds jobs is deleted by a tool."""
    channel.queue_declare("leveret.bulk", durable=True)
    with pytest.raises(TopologyError, match=r"leveret\.bulk.*drain it, delete it and apply again"):
        apply(fresh_vhost.url("admin"), TABLE)


def test_those_who_may_not_declare_are_told_who_may(fresh_vhost):
    """With the broker's own words, and without a password."""
    url = fresh_vhost.url("publisher")
    with pytest.raises(TopologyError, match="administrator") as caught:
        apply(url, TABLE)
    assert fresh_vhost.passwords["publisher"] not in str(caught.value)


def test_moving_an_actor_is_a_change_of_bindings_alone(fresh_vhost, channel):
    """Publishers go on with `any.<actor>`; what waits stays where it waits."""
    fresh_vhost.declare(ACTORS)
    publish(channel, "any.email.send")
    moved = {**ACTORS, "email.send": "critical"}
    fresh_vhost.declare(moved)
    publish(channel, "any.email.send")
    publish(channel, "0.0.0.0.0.0.1.any.email.send", "leveret.delay")
    assert drift(fresh_vhost, build(DEFAULT_QUEUES, moved)) == []
    deadline = time.monotonic() + 10
    arrived = 0
    while arrived < 2 and time.monotonic() < deadline:
        arrived += waiting(channel, "leveret.critical")
    assert arrived == 2
    assert waiting(channel, "leveret.default") == 1


def test_pruning_removes_surplus_bindings_and_never_queues(fresh_vhost, channel):
    """Bindings to queues and to exchanges; there may be jobs in a queue."""
    fresh_vhost.declare({**ACTORS, "old.job": "bulk"})
    channel.exchange_bind("leveret.route", "leveret.jobs", "twice.#")
    channel.queue_declare("leveret.stray", durable=True)
    removed = prune(fresh_vhost.url("admin"), drift(fresh_vhost))
    assert removed == 3  # `any.old.job` for now and for later, and the exchange's
    assert [str(d) for d in drift(fresh_vhost)] == ["unexpected: queue leveret.stray"]
    assert prune(fresh_vhost.url("admin"), drift(fresh_vhost)) == 0


def test_a_ledger_that_is_full_sheds_and_never_blocks_a_publish(fresh_vhost, channel):
    """Its policy bounds it; history goes, jobs do not."""
    fresh_vhost.declare(ACTORS)
    fresh_vhost.management.put_policy(
        fresh_vhost.name,
        "leveret-ledger",
        pattern=r"^leveret\.ledger$",
        definition={"max-length-bytes": 20_000},
    )
    management = fresh_vhost.management
    wait_until(lambda: (management.queue(fresh_vhost.name, "leveret.ledger") or {}).get("policy"))
    for _ in range(50):
        channel.basic_publish("leveret.jobs", "bulk.a.b", b'{"x":"' + b"x" * 1000 + b'"}')
    assert waiting(channel, "leveret.bulk") == 50
    assert waiting(channel, "leveret.ledger") < 50


@pytest.mark.parametrize("queue", ["leveret.dead.default", "leveret.unroutable", "leveret.ledger"])
def test_what_must_be_kept_survives_any_number_of_failed_deliveries(channel, fresh_vhost, queue):
    """RabbitMQ 4 drops a message after 20 of them, unless the queue says otherwise."""
    fresh_vhost.declare()
    channel.basic_publish("", queue, b"precious")
    for _ in range(25):
        method = wait_until(lambda: channel.basic_get(queue)[0], what="it is there")
        channel.basic_reject(method.delivery_tag, requeue=True)
    wait_until(lambda: channel.basic_get(queue)[2] == b"precious", what="it is there")
