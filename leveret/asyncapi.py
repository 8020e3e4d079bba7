"""The wire contract as an AsyncAPI 3 document, made from the declared actors.

The document is written from the worker pools' side: each actor is a message that they *receive*, on
two channels, one for jobs that run now and one for jobs that run later. Its arguments are a JSON
Schema in ``components.schemas``, under the actor's name. Pure: no sockets here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leveret import names, wheel
from leveret.message import CONTENT_TYPE, HEADERS, MAX_BODY_BYTES, PERSISTENT, PREFIX

if TYPE_CHECKING:
    from leveret.broker import LeveretBroker

__all__ = ["Described", "describe", "document"]

_CONTRACT = "1.0.0"
_BINDING = "0.3.0"


@dataclass(frozen=True, kw_only=True)
class Described:
    """What the document says of one actor."""

    name: str
    #: The queue that it is declared for.
    queue: str
    #: The JSON Schema of its arguments.
    arguments: Mapping[str, Any]
    #: What it does, in a sentence or more.
    summary: str = ""


def describe(broker: LeveretBroker) -> list[Described]:
    """Describe the actors of a broker; raises `ConfigurationError` where one has no schema."""
    return [
        Described(
            name=name,
            queue=actor.queue_name,
            arguments=broker.signature(name).json_schema(),
            summary=(actor.fn.__doc__ or "").strip().partition("\n")[0],
        )
        for name, actor in sorted(broker.actors.items())
    ]


def document(
    actors: Sequence[Described], queues: Sequence[str], *, title: str = "Leveret jobs"
) -> dict[str, Any]:
    """Write the AsyncAPI document for ``actors`` and the work ``queues``."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for actor in actors:
        channels |= _channels(actor, queues)
        operations |= _operations(actor)
        messages[actor.name] = _message(actor)
        schemas |= _schemas(actor)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": title,
            "version": _CONTRACT,
            "description": (
                "One persistent AMQP 0-9-1 message is one job. Its body is a JSON object with the "
                f"actor's named arguments, of at most {MAX_BODY_BYTES} bytes."
            ),
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "messageTraits": {"job": {"headers": _headers()}},
            "schemas": schemas,
        },
    }


def _channels(actor: Described, queues: Sequence[str]) -> dict[str, Any]:
    pool = {
        "enum": [names.ANY_QUEUE, *queues],
        "default": names.ANY_QUEUE,
        "description": (
            f"The pool that runs the job; {names.ANY_QUEUE} leaves it to the routing table "
            f"(now {actor.queue})."
        ),
    }
    delay = {
        "description": (
            f"The delay as a count of {wheel.UNIT.total_seconds():g} s units, rounded up: "
            f"{wheel.DIGITS} digits of base {wheel.RADIX}, separated by dots."
        ),
        "examples": [wheel.digits_of(123)],
    }

    def channel(exchange: str, address: str, parameters: dict[str, Any], what: str) -> Any:
        return {
            "address": address,
            "description": what,
            "messages": {"job": {"$ref": f"#/components/messages/{actor.name}"}},
            "parameters": parameters,
            "bindings": {
                "amqp": {
                    "is": "routingKey",
                    "exchange": {
                        "name": exchange,
                        "type": "topic",
                        "durable": True,
                        "autoDelete": False,
                    },
                    "bindingVersion": _BINDING,
                }
            },
        }

    return {
        actor.name: channel(
            names.JOBS, f"{{pool}}.{actor.name}", {"pool": pool}, "Jobs that run now."
        ),
        f"{actor.name}.later": channel(
            names.DELAY,
            f"{{delay}}.{{pool}}.{actor.name}",
            {"delay": delay, "pool": pool},
            "Jobs that run later.",
        ),
    }


def _operations(actor: Described) -> dict[str, Any]:
    return {
        channel: {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": actor.summary,
            "messages": [{"$ref": f"#/channels/{channel}/messages/job"}],
            "bindings": {"amqp": {"deliveryMode": PERSISTENT, "bindingVersion": _BINDING}},
        }
        for channel in (actor.name, f"{actor.name}.later")
    }


def _message(actor: Described) -> dict[str, Any]:
    return {
        "name": actor.name,
        "title": actor.name,
        "summary": actor.summary,
        "contentType": CONTENT_TYPE,
        "traits": [{"$ref": "#/components/messageTraits/job"}],
        "payload": {"$ref": f"#/components/schemas/{actor.name}"},
        "bindings": {
            "amqp": {
                "messageType": actor.name,
                "contentEncoding": "utf-8",
                "bindingVersion": _BINDING,
            }
        },
    }


def _headers() -> dict[str, Any]:
    properties = {
        PREFIX + name: {**header.schema, "description": header.description}
        for name, header in HEADERS.items()
    }
    for name in ("traceparent", "tracestate"):
        properties[name] = {
            "type": "string",
            "description": "W3C Trace Context; what is not valid is ignored",
        }
    return {"type": "object", "properties": properties}


def _schemas(actor: Described) -> dict[str, Any]:
    """Return the schema of an actor's arguments, and those that it refers to beside it."""
    schema = dict(actor.arguments)
    nested = schema.pop("$defs", {})
    prefix = f"#/components/schemas/{actor.name}."
    found = {f"{actor.name}.{name}": _moved(part, prefix) for name, part in nested.items()}
    return {actor.name: _moved(schema, prefix), **found}


def _moved(value: Any, prefix: str) -> Any:
    """Copy a schema whose references lead from ``$defs`` to ``prefix``."""
    match value:
        case dict():
            return {
                key: part.replace("#/$defs/", prefix)
                if key == "$ref" and isinstance(part, str)
                else _moved(part, prefix)
                for key, part in value.items()
            }
        case list():
            return [_moved(part, prefix) for part in value]
    return value
