"""The arithmetic of the delay wheel: how long a job waits, written as a routing key.

A delay is a count of 100 ms units, rounded up, written as seven base-16 digits, most significant
first, one routing-key word each. For every digit position ``k`` and value ``d`` there is a queue
``leveret.delay.<k>.<d>`` whose message TTL is ``d · 16^k`` units; when a message expires there, the
broker dead-letters it to the exchange of the next lower digit, and after the last one to
``leveret.due``. Each exchange binds straight to the queue of the next digit that is not zero, so a
delay costs as many hops as it has non-zero digits:

    12.3 s = 123 units = 0x7b    ->  0.0.0.0.0.7.b.default.email.send   (two hops: 11.2 s + 1.1 s)

The idea is the binary ladder of NServiceBus' RabbitMQ transport (28 digits of 1 s); radix 16 needs
about half the hops. Everything here is pure: the objects are declared in `leveret.topology`.
"""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = [
    "DIGITS",
    "HORIZON",
    "RADIX",
    "UNIT",
    "delayed_key",
    "digits_of",
    "digits_to_units",
    "hops",
    "queue_ttl",
    "round_up",
    "split_key",
    "units_of",
]

#: The wheel's resolution. A wanted time is met to this, and never early.
UNIT = timedelta(milliseconds=100)
#: Base of the digits.
RADIX = 16
#: Number of digits, and of routing-key words in front of a delayed job's key.
DIGITS = 7
#: The longest delay that fits: 310 days, 16 hours.
HORIZON = (RADIX**DIGITS - 1) * UNIT

_SYMBOLS = "0123456789abcdef"
_VALUES = {symbol: value for value, symbol in enumerate(_SYMBOLS)}


def units_of(delay: timedelta) -> int:
    """Count the units that cover ``delay``, rounded up so that nothing is ever early.

    Raises `ValueError` for a negative delay and for one beyond `HORIZON`.
    """
    if delay < timedelta(0):
        raise ValueError(f"a delay must not be negative, not {delay}")
    if delay > HORIZON:
        raise ValueError(f"a delay of {delay} is beyond the wheel's horizon of {HORIZON}")
    return -(-delay // UNIT)


def round_up(units: int, *, significant: int) -> int:
    """Round ``units`` up to its ``significant`` most significant digits.

    Bounds the hops, at the price of being late by at most ``16 ** (1 - significant)`` of the
    delay; where rounding up would leave the wheel, the digits are kept as they are.
    """
    if significant < 1:
        raise ValueError(f"at least one digit must be significant, not {significant}")
    length = max(1, -(-units.bit_length() // 4))
    if length <= significant:
        return units
    step = RADIX ** (length - significant)
    rounded = -(-units // step) * step
    return rounded if rounded < RADIX**DIGITS else units


def digits_of(units: int) -> str:
    """Write ``units`` as the wheel's routing-key words, such as ``0.0.0.0.0.7.b``."""
    if not 0 <= units < RADIX**DIGITS:
        raise ValueError(f"{units} units do not fit into {DIGITS} digits of base {RADIX}")
    return ".".join(f"{units:0{DIGITS}x}")


def digits_to_units(digits: str) -> int:
    """Read back what `digits_of` wrote."""
    return int(digits.replace(".", ""), RADIX)


def hops(units: int) -> int:
    """Count the queues that a delay of ``units`` passes through."""
    return sum(symbol != "0" for symbol in f"{units:x}")


def delayed_key(delay: timedelta, key: str, *, significant: int = DIGITS) -> str:
    """Prefix the routing key of a job with the digits of its delay."""
    return f"{digits_of(round_up(units_of(delay), significant=significant))}.{key}"


def split_key(routing_key: str) -> tuple[timedelta | None, str]:
    """Take a routing key apart: the delay in front of it, if any, and the job's own key."""
    words = routing_key.split(".", DIGITS)
    if len(words) > DIGITS and all(word in _VALUES for word in words[:DIGITS]):
        units = 0
        for word in words[:DIGITS]:
            units = units * RADIX + _VALUES[word]
        return units * UNIT, words[DIGITS]
    return None, routing_key


_QUEUE = re.compile(r"leveret\.delay\.([0-6])\.([1-9a-f])")


def queue_ttl(queue: str) -> timedelta | None:
    """Return how long a queue of the wheel holds a job; None for other queues."""
    match = _QUEUE.fullmatch(queue)
    if match is None:
        return None
    units: int = _VALUES[match[2]] * RADIX ** int(match[1])
    return units * UNIT
