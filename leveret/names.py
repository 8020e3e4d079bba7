"""The names in the broker, each spelt once.

Only names: what stands behind them is declared in `leveret.topology`.
"""

from __future__ import annotations

import re

__all__ = [
    "ANY_QUEUE",
    "CONTROL",
    "DEAD",
    "DEFAULT_QUEUES",
    "DELAY",
    "DUE",
    "JOBS",
    "LEDGER",
    "OUTCOMES",
    "QUARANTINE",
    "RETRY",
    "ROUTE",
    "UNROUTABLE",
    "dead_queue",
    "is_actor_name",
    "is_queue_name",
    "quarantine_queue",
    "wheel_exchange",
    "wheel_queue",
    "work_queue",
]

#: Entry for jobs that run now.
JOBS = "leveret.jobs"
#: Entry for jobs that run later: the digits of the delay stand in front of the key.
DELAY = "leveret.delay"
#: Where `leveret.jobs` looks a key up.
ROUTE = "leveret.route"
#: Where the wheel lets go of a job.
DUE = "leveret.due"
#: A worker's retry copies, on their way into the wheel.
RETRY = "leveret.retry"
#: The dead-letter exchange of every work queue.
DEAD = "leveret.dead"
#: Exchange and queue of what no binding wants.
UNROUTABLE = "leveret.unroutable"
#: Jobs that have killed their worker, one exchange, a queue for each pool.
QUARANTINE = "leveret.quarantine"
#: What became of jobs.
OUTCOMES = "leveret.outcomes"
#: What the recorder turns into rows.
LEDGER = "leveret.ledger"
#: Signals to every worker.
CONTROL = "leveret.control"

#: The routing-key word that leaves the queue to the routing table.
ANY_QUEUE = "any"
#: The work queues unless `LEVERET_QUEUES` says otherwise.
DEFAULT_QUEUES = ("critical", "default", "bulk", "scheduled")

_QUEUE = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_ACTOR = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*")


def is_queue_name(name: str) -> bool:
    """Tell whether ``name`` may be a work queue: one lower-case word, and not ``any``."""
    return name != ANY_QUEUE and _QUEUE.fullmatch(name) is not None


def is_actor_name(name: str) -> bool:
    """Tell whether ``name`` may be an actor: dotted words, best as ``noun.verb``."""
    return len(name) <= 127 and _ACTOR.fullmatch(name) is not None


def work_queue(queue: str) -> str:
    """Name the AMQP queue in which the jobs of ``queue`` wait for a worker."""
    return f"leveret.{queue}"


def dead_queue(queue: str) -> str:
    """Name the AMQP queue that keeps the dead letters of ``queue``."""
    return f"{DEAD}.{queue}"


def quarantine_queue(queue: str) -> str:
    """Name the AMQP queue in which suspects of ``queue`` run one at a time."""
    return f"{QUARANTINE}.{queue}"


def wheel_exchange(digit: int) -> str:
    """Name the exchange that routes by digit ``digit`` of a delay and the ones below."""
    return f"{DELAY}.{digit}"


def wheel_queue(digit: int, value: int) -> str:
    """Name the queue in which a job waits out the value of one digit of its delay."""
    return f"{DELAY}.{digit}.{value:x}"
