"""The one table of what stands in the broker.

`build` turns the configured queues and the declared actors into exchanges, queues, bindings and
policies. What makes loss impossible is an *argument* of a queue (its type, where its dead letters
go and how safely, what happens when it is full), so that no missing policy can lose a job; what
operators tune is a policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leveret import wheel
from leveret.names import (
    ANY_QUEUE,
    CONTROL,
    DEAD,
    DELAY,
    DUE,
    JOBS,
    LEDGER,
    OUTCOMES,
    QUARANTINE,
    RETRY,
    ROUTE,
    UNROUTABLE,
    dead_queue,
    quarantine_queue,
    wheel_exchange,
    wheel_queue,
    work_queue,
)

__all__ = ["Binding", "Exchange", "Policy", "Queue", "Topology", "build"]

Argument = str | int

#: Redeliveries after which the broker itself gives a job up. Every close of a channel charges all
#: that was merely prefetched, so this is generous; Leveret counts attempts and crashes itself.
DELIVERY_LIMIT = 20
#: The same for queues that nothing may leave but by an ack: RabbitMQ 4 drops a message after 20
#: failed deliveries unless a limit is set, and 3.10 knows no way to say that there is none.
NO_DELIVERY_LIMIT = 1_000_000_000
#: The hard bound of the ledger queue; the policy `leveret-ledger` tunes it below this.
LEDGER_MAX_BYTES = 4 * 1024**3
#: The bound that operators start with.
LEDGER_POLICY_BYTES = 1024**3

_KEPT: Mapping[str, Argument] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": NO_DELIVERY_LIMIT,
}
_SAFE = {
    "x-queue-type": "quorum",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """An exchange; all of them are durable."""

    name: str
    kind: str
    #: Where messages go that no binding wants, instead of nowhere.
    alternate: str | None = None

    @property
    def arguments(self) -> dict[str, Argument]:
        """The AMQP arguments of the declaration."""
        return {"alternate-exchange": self.alternate} if self.alternate else {}


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue; all of them are durable quorum queues."""

    name: str
    arguments: Mapping[str, Argument]


@dataclass(frozen=True, kw_only=True, order=True)
class Binding:
    """A binding from an exchange to a queue, or to another exchange."""

    source: str
    destination: str
    to_exchange: bool
    key: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What operators tune, without a new declaration."""

    name: str
    pattern: str
    definition: Mapping[str, Argument]
    apply_to: str = "queues"


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Everything that `leveret topology apply` declares."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    #: Bindings that an earlier routing table may have left, and that would deliver a job twice.
    revoked: tuple[Binding, ...]
    policies: tuple[Policy, ...]


def build(queues: Sequence[str], actors: Mapping[str, str]) -> Topology:
    """Lay out the broker for work ``queues`` and for ``actors`` (actor's name -> its queue).

    Raises `ValueError` when an actor names a queue that is not among ``queues``.
    """
    for actor, queue in sorted(actors.items()):
        if queue not in queues:
            raise ValueError(
                f"actor {actor!r} wants the queue {queue!r}, which is not configured; add it to "
                f"LEVERET_QUEUES (now {','.join(queues)}) or declare the actor on another queue"
            )
    bindings: list[Binding] = []
    revoked: list[Binding] = []

    def bind(source: str, destination: str, key: str, *, to_exchange: bool = False) -> None:
        bindings.append(
            Binding(source=source, destination=destination, to_exchange=to_exchange, key=key)
        )

    bind(UNROUTABLE, UNROUTABLE, "")
    top = wheel_exchange(wheel.DIGITS - 1)
    for entry, onward in ((JOBS, ROUTE), (DELAY, top)):
        bind(entry, LEDGER, "#")
        bind(entry, onward, "#", to_exchange=True)
    bind(RETRY, top, "#", to_exchange=True)
    bind(OUTCOMES, LEDGER, "#")
    bindings += _wheel_bindings()

    after_wheel = "*." * wheel.DIGITS
    for exchange, prefix in ((ROUTE, ""), (DUE, after_wheel)):
        for queue in queues:
            bind(exchange, work_queue(queue), f"{prefix}{queue}.#")
        for actor, queue in sorted(actors.items()):
            bind(exchange, work_queue(queue), f"{prefix}{ANY_QUEUE}.{actor}")
            revoked += [
                Binding(
                    source=exchange,
                    destination=work_queue(other),
                    to_exchange=False,
                    key=f"{prefix}{ANY_QUEUE}.{actor}",
                )
                for other in queues
                if other != queue
            ]
    for queue in queues:
        bind(DEAD, dead_queue(queue), queue)
        bind(QUARANTINE, quarantine_queue(queue), queue)

    return Topology(
        exchanges=(
            Exchange(name=UNROUTABLE, kind="fanout"),
            Exchange(name=DEAD, kind="direct", alternate=UNROUTABLE),
            Exchange(name=JOBS, kind="topic", alternate=UNROUTABLE),
            Exchange(name=ROUTE, kind="topic", alternate=UNROUTABLE),
            Exchange(name=DUE, kind="topic", alternate=UNROUTABLE),
            *(
                Exchange(name=wheel_exchange(k), kind="topic", alternate=UNROUTABLE)
                for k in range(wheel.DIGITS)
            ),
            Exchange(name=DELAY, kind="topic", alternate=UNROUTABLE),
            Exchange(name=RETRY, kind="topic"),
            Exchange(name=QUARANTINE, kind="direct", alternate=UNROUTABLE),
            Exchange(name=OUTCOMES, kind="topic"),
            Exchange(name=CONTROL, kind="fanout"),
        ),
        queues=(
            Queue(name=UNROUTABLE, arguments=_KEPT),
            Queue(
                name=LEDGER,
                arguments={
                    **_KEPT,
                    "x-overflow": "drop-head",
                    "x-max-length-bytes": LEDGER_MAX_BYTES,
                },
            ),
            *(Queue(name=dead_queue(queue), arguments=_KEPT) for queue in queues),
            *(Queue(name=work_queue(queue), arguments=_work_arguments(queue)) for queue in queues),
            *(
                Queue(name=quarantine_queue(queue), arguments=_work_arguments(queue))
                for queue in queues
            ),
            *_wheel_queues(),
        ),
        bindings=tuple(bindings),
        revoked=tuple(revoked),
        policies=(
            Policy(
                name="leveret-ledger",
                pattern=r"^leveret\.ledger$",
                definition={"max-length-bytes": LEDGER_POLICY_BYTES},
            ),
        ),
    )


def _work_arguments(queue: str) -> dict[str, Argument]:
    return {
        **_SAFE,
        "x-dead-letter-exchange": DEAD,
        "x-dead-letter-routing-key": queue,
        "x-delivery-limit": DELIVERY_LIMIT,
    }


def _wheel_queues() -> list[Queue]:
    unit_ms = int(wheel.UNIT.total_seconds() * 1000)
    return [
        Queue(
            name=wheel_queue(k, d),
            arguments={
                **_SAFE,
                "x-message-ttl": d * wheel.RADIX**k * unit_ms,
                "x-dead-letter-exchange": wheel_exchange(k - 1) if k else DUE,
            },
        )
        for k in reversed(range(wheel.DIGITS))
        for d in range(1, wheel.RADIX)
    ]


def _wheel_bindings() -> list[Binding]:
    """Bind each digit's exchange straight to the queue of the next digit that is not zero."""
    bindings = []
    for k in reversed(range(wheel.DIGITS)):
        done = "*." * (wheel.DIGITS - 1 - k)
        for j in reversed(range(k + 1)):
            zeros = "0." * (k - j)
            bindings += [
                Binding(
                    source=wheel_exchange(k),
                    destination=wheel_queue(j, d),
                    to_exchange=False,
                    key=f"{done}{zeros}{d:x}.#",
                )
                for d in range(1, wheel.RADIX)
            ]
        bindings.append(
            Binding(
                source=wheel_exchange(k),
                destination=DUE,
                to_exchange=True,
                key=f"{done}{'0.' * (k + 1)}#",
            )
        )
    return bindings
