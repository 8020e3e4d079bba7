"""A publisher without the SDK: what any AMQP client in any language does. Here it is pika."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pika

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compose.demo.plan import Planned

__all__ = ["publish"]


def publish(url: str, messages: Iterable[Planned]) -> list[str]:
    """Publish messages with confirms; return the ids that the broker has confirmed."""
    connection = pika.BlockingConnection(pika.URLParameters(url.split(",", maxsplit=1)[0]))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        confirmed = []
        for message in messages:
            properties = pika.BasicProperties(
                message_id=message.id,
                type=message.actor,
                content_type="application/json",
                delivery_mode=2,
                app_id="plain-client",
            )
            channel.basic_publish("leveret.jobs", message.key, message.body, properties)
            confirmed.append(message.id)
        return confirmed
    finally:
        connection.close()
