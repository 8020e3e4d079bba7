"""Bring the broker to the topology table."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import pika
import pika.exceptions

from leveret.amqp.address import parse_urls
from leveret.errors import TopologyError
from leveret.topology.check import Difference

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel

    from leveret.topology.table import Exchange, Topology

__all__ = ["apply", "prune"]


def apply(url: str, topology: Topology) -> None:
    """Declare the exchanges, queues and bindings of ``topology`` at ``url``; idempotent.

    New bindings are made before revoked ones are removed, so that moving an actor to another queue
    can for some milliseconds deliver a job to both, but never to none.

    Raises `TopologyError` when something of the same name but other arguments stands there, or the
    user may not declare it, and `pika.exceptions.AMQPConnectionError` when there is no broker.
    """
    connection = pika.BlockingConnection(parse_urls(url, "leveret topology"))
    try:
        _declare(connection.channel(), topology)
    except pika.exceptions.ChannelClosedByBroker as error:
        raise TopologyError(
            f"the broker refused a declaration: {error.reply_text}. If it stands there with other "
            "arguments, drain it, delete it and apply again; if access is refused, apply with the "
            "administrator's URL"
        ) from error
    finally:
        if connection.is_open:
            connection.close()


def prune(url: str, differences: Iterable[Difference]) -> int:
    """Remove the bindings that `leveret.topology.compare` found unexpected; return how many.

    Queues and exchanges are never removed: there may be jobs in them.
    """
    stale = [d.binding for d in differences if d.kind == "unexpected" and d.binding is not None]
    connection = pika.BlockingConnection(parse_urls(url, "leveret topology"))
    try:
        channel = connection.channel()
        for binding in stale:
            unbind = channel.exchange_unbind if binding.to_exchange else channel.queue_unbind
            unbind(binding.destination, binding.source, binding.key)
    finally:
        connection.close()
    return len(stale)


def _declare(channel: BlockingChannel, topology: Topology) -> None:
    for queue in topology.queues:
        channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
    # Each exchange is bound as soon as it stands: while it is not, what reaches it is unroutable,
    # and the delay wheel waits for one that is missing.
    for exchange in inside_out(topology):
        channel.exchange_declare(
            exchange.name, exchange.kind, durable=True, arguments=exchange.arguments
        )
        for binding in topology.bindings:
            if binding.source != exchange.name:
                continue
            if binding.to_exchange:
                channel.exchange_bind(binding.destination, binding.source, binding.key)
            else:
                channel.queue_bind(binding.destination, binding.source, binding.key)
    for binding in topology.revoked:
        channel.queue_unbind(binding.destination, binding.source, binding.key)


def inside_out(topology: Topology) -> list[Exchange]:
    """Order the exchanges so that each comes behind those that it hands messages to."""
    exchanges = {exchange.name: exchange for exchange in topology.exchanges}
    onward = {x.name: {x.alternate} if x.alternate else set() for x in topology.exchanges}
    for binding in topology.bindings:
        if binding.to_exchange:
            onward[binding.source].add(binding.destination)
    return [exchanges[name] for name in TopologicalSorter(onward).static_order()]
