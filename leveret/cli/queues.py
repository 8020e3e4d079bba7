"""``leveret queues``: what waits in the broker, how fast it goes, and when it will be gone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from leveret import names
from leveret.cli.common import AsJson, guarded, print_json, print_table, vhost_of
from leveret.errors import ConfigurationError
from leveret.management import Management
from leveret.settings import Settings

__all__ = ["drains_in", "queues"]

#: Rates are of the last seconds: less than this is noise, not a queue that becomes shorter.
_SLOWEST = 0.05


@guarded
def queues(as_json: AsJson = False) -> None:
    """Show what waits in each queue, how fast it comes and goes, and who consumes it.

    Jobs a second in and out are the broker's, of the last seconds. "Empty in" is what that would
    take; "never" means that more comes in than goes out, or that nobody consumes. The oldest job
    that waits is the ledger's: it is left out without a database that answers. Jobs that are due
    and that the broker has not handed on from the delay wheel have a line of their own.
    """
    settings = Settings.from_env()
    if settings.management_url is None:
        raise ConfigurationError("LEVERET_MANAGEMENT_URL is not set")
    vhost = vhost_of(settings.require_amqp_url())
    with Management(settings.management_url) as management:
        found = [
            queue for queue in management.queues(vhost) if queue["name"].startswith("leveret.")
        ]
        routes = management.get("bindings", vhost)
    oldest = _oldest(settings, routes)
    shown = [_queue(queue, oldest) for queue in sorted(found, key=lambda queue: queue["name"])]
    if as_json:
        print_json(shown)
        return
    # The wheel is one line; what a worker is told by, none.
    wheel = [q for q in shown if q["queue"].startswith(f"{names.DELAY}.")]
    work = [q for q in shown if not q["queue"].startswith((f"{names.DELAY}.", names.CONTROL))]
    held = sum(q["held"] for q in wheel)
    print_table(
        ("queue", "ready", "unacked", "consumers", "in/s", "out/s", "empty in", "oldest"),
        [
            *(
                (
                    q["queue"],
                    q["ready"],
                    q["unacked"],
                    q["consumers"],
                    f"{q['publish_rate']:.1f}",
                    f"{q['ack_rate']:.1f}",
                    _span(q["drains_in_seconds"]) if q["ready"] + q["unacked"] else "-",
                    "-" if q["oldest_at"] is None else f"{_span(_age(q['oldest_at']))} ago",
                )
                for q in work
            ),
            ("(in the delay wheel)", sum(q["ready"] for q in wheel), *("",) * 6),
            *([("(due, still in the wheel)", held, *("",) * 6)] if held else ()),
        ],
    )


def drains_in(
    messages: int, *, consumers: int, publish_rate: float, ack_rate: float
) -> float | None:
    """Return the seconds after which a queue is empty if all goes on like this; None for never.

    Without consumers it is never, whatever rates the broker still remembers.
    """
    if not messages:
        return 0.0
    surplus = ack_rate - publish_rate if consumers else 0.0
    return messages / surplus if surplus > _SLOWEST else None


def _queue(queue: Mapping[str, Any], oldest: Mapping[str, datetime]) -> dict[str, Any]:
    ready, unacked = queue.get("messages_ready", 0), queue.get("messages_unacknowledged", 0)
    consumers = queue.get("consumers", 0)
    rates = {
        "publish_rate": _rate(queue, "publish"),
        "ack_rate": _rate(queue, "ack"),
    }
    return {
        "queue": queue["name"],
        "ready": ready,
        "unacked": unacked,
        # Neither: what has expired, and is not handed on yet.
        "held": max(0, queue.get("messages", 0) - ready - unacked),
        "consumers": consumers,
        **rates,
        "drains_in_seconds": drains_in(ready + unacked, consumers=consumers, **rates),
        "oldest_at": oldest.get(queue["name"]),
    }


def _rate(queue: Mapping[str, Any], what: str) -> float:
    details = (queue.get("message_stats") or {}).get(f"{what}_details") or {}
    return float(details.get("rate") or 0.0)


def _oldest(settings: Settings, routes: Iterable[Mapping[str, Any]]) -> dict[str, datetime]:
    """Return when the oldest waiting job of each work queue was made, if anybody can tell."""
    if settings.database_url is None:
        return {}
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - the others need no SQLAlchemy

    from leveret.ledger import query  # noqa: PLC0415
    from leveret.store import engine  # noqa: PLC0415

    database = engine(settings.database_url, pool_size=1, application="cli")
    try:
        with database.connect() as connection:
            found = query.oldest_waiting(connection, _queues_of_actors(routes))
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        print(f"leveret: the ledger does not say what waits longest ({reason})", file=sys.stderr)
        return {}
    finally:
        database.dispose()
    return {names.work_queue(name): at for name, at in found.items()}


def _queues_of_actors(routes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return which queue the routing table leads each actor's jobs to."""
    every = f"{names.ANY_QUEUE}."
    return {
        route["routing_key"].removeprefix(every): route["destination"].removeprefix(
            names.work_queue("")
        )
        for route in routes
        if route["source"] == names.ROUTE and route["routing_key"].startswith(every)
    }


def _age(moment: datetime) -> float:
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())


def _span(seconds: float | None) -> str:
    """Write a time as somebody says it: 40 s, 12 min, 3 h, 2 d."""
    if seconds is None:
        return "never"
    for unit, size, until in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 129_600)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
