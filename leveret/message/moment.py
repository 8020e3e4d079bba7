"""Times, as headers have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["format_time", "now_plus", "read_moment"]


def format_time(moment: datetime) -> str:
    """Write a time as RFC 3339 in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_plus(delay: timedelta) -> datetime:
    """Return the time ``delay`` from now; the end of all time for what is beyond it."""
    try:
        return datetime.now(UTC) + delay
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def read_moment(value: object) -> datetime:
    """Read a time as a header may have it; raises `ValueError` when it is none."""
    if isinstance(value, datetime):  # an AMQP timestamp, which pika reads as naive UTC
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment
    raise ValueError("an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z, or a timestamp")
