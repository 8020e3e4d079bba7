"""What can be published: the declared actors, and jobs checked against them. Pure.

A job is checked here as a worker would check it, with the actor's own signature, so that what is
accepted does not end as a dead letter for its form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from leveret import asyncapi
from leveret.broker import LeveretBroker
from leveret.errors import InvalidJob
from leveret.ledger import State
from leveret.message import Job, Reason, decode, encode, encode_arguments, new_id
from leveret.request import keyed, period
from leveret.wheel import HORIZON
from services.api.models import Actor, NewJob
from services.api.problem import Fault

__all__ = ["Catalogue", "Prepared"]

_LATEST = datetime(9998, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A job that is fit to be published."""

    job: Job
    #: The queue whose workers run it.
    queue: str
    body: bytes
    #: Headers and properties as the relay will write them, but for the delay.
    headers: dict[str, Any] | None
    properties: bytes
    state: State


class Catalogue:
    """The actors of a broker, and the work queues."""

    def __init__(
        self, broker: LeveretBroker, queues: Sequence[str], *, max_body_bytes: int
    ) -> None:
        broker.check_actors()
        self._broker = broker
        self._queues = tuple(queues)
        self._limit = max_body_bytes
        described = asyncapi.describe(broker)
        self._document = asyncapi.document(described, self._queues)
        self._actors = {
            found.name: Actor(
                name=found.name,
                queue=found.queue,
                summary=found.summary,
                time_limit=_seconds(broker.policy(found.name).time_limit),
                max_retries=broker.policy(found.name).max_retries,
                arguments=dict(found.arguments),
            )
            for found in described
        }

    @property
    def actors(self) -> list[Actor]:
        """All actors, by name."""
        return list(self._actors.values())

    @property
    def queues(self) -> tuple[str, ...]:
        """The work queues."""
        return self._queues

    @property
    def document(self) -> dict[str, Any]:
        """The wire contract as AsyncAPI 3."""
        return self._document

    def actor(self, name: str) -> Actor | None:
        """Return an actor; None when none has that name."""
        return self._actors.get(name)

    def check(self, actor: str, arguments: Mapping[str, Any]) -> None:
        """Check arguments for an actor; raises `InvalidJob`."""
        if actor not in self._actors:
            raise InvalidJob(Reason.UNKNOWN_ACTOR, f"no actor is called {actor!r} here")
        self._broker.signature(actor).check((), arguments)

    def faults(
        self, actor: str, queue: str | None, arguments: Mapping[str, Any], *, pointer: str = ""
    ) -> list[Fault]:
        """Say what is wrong with who is to run a job, where, and with what."""
        faults = []
        if queue is not None and queue not in self._queues:
            there = ", ".join(self._queues)
            faults.append(
                Fault(
                    pointer=f"{pointer}/queue",
                    reason="unknown-queue",
                    detail=f"there is no queue {queue!r}; there are {there}",
                )
            )
        if actor in self._actors:
            return faults + self._check_arguments(actor, arguments, f"{pointer}/arguments")
        unknown = Fault(
            pointer=f"{pointer}/actor",
            reason=Reason.UNKNOWN_ACTOR,
            detail=f"no actor is called {actor!r} here; /v1/actors lists them",
        )
        return [unknown, *faults]

    def prepare(
        self,
        wanted: NewJob,
        *,
        now: float,
        app_id: str,
        trace: Mapping[str, str],
        pointer: str = "",
    ) -> tuple[Prepared | None, list[Fault]]:
        """Put a job together, or say what is wrong with it.

        ``now`` is in seconds since 1970, ``app_id`` names the publisher, ``trace`` may have W3C's
        ``traceparent`` and ``tracestate``; ``pointer`` leads to the job in the request.
        """
        faults: list[Fault] = []

        def wrong(where: str, reason: str, detail: str) -> None:
            faults.append(Fault(pointer=pointer + where, reason=reason, detail=detail))

        actor = self._actors.get(wanted.actor)
        faults += self.faults(wanted.actor, wanted.queue, wanted.arguments, pointer=pointer)
        for one, other in (("delay", "at"), ("expires_in", "expires_at")):
            if getattr(wanted, one) is not None and getattr(wanted, other) is not None:
                wrong(f"/{other}", Reason.BAD_PROPERTY, f"give either {one} or {other}, not both")
        due_at = _moment(now, wanted.delay, wanted.at)
        expires_at = _moment(now, wanted.expires_in, wanted.expires_at)
        for name, moment in (("at", due_at), ("expires_at", expires_at)):
            if moment is not None and moment > _LATEST:
                wrong(f"/{name}", Reason.BAD_PROPERTY, f"{name} must be before the year 9998")
        if faults or actor is None:
            return None, faults
        job = Job(
            actor=actor.name,
            arguments=wanted.arguments,
            id=wanted.id or new_id(),
            queue=wanted.queue,
            due_at=due_at if due_at is not None and due_at.timestamp() > now else None,
            expires_at=expires_at,
            max_retries=wanted.max_retries,
            priority=wanted.priority,
            correlation_id=wanted.correlation_id,
            app_id=app_id,
            idempotency_key=wanted.idempotency_key,
            once=wanted.once,
            unique_for=period(wanted.unique_for),
            unique_until=wanted.unique_until,
            on_conflict=wanted.on_conflict,
            traceparent=trace.get("traceparent"),
            tracestate=trace.get("tracestate"),
        )
        try:
            return self._encoded(keyed(job), actor.queue, now), []
        except InvalidJob as error:
            part = "/arguments" if error.reason in _OF_BODY else ""
            wrong(part, error.reason, str(error))
            return None, faults

    def _check_arguments(self, actor: str, arguments: Mapping[str, Any], where: str) -> list[Fault]:
        try:
            found = self._broker.signature(actor).faults(arguments)
        except Exception as error:  # noqa: BLE001 - a validator of the actor's may raise anything
            detail = f"the arguments cannot be checked: {type(error).__name__}"
            return [Fault(pointer=where, reason=Reason.BAD_ARGUMENTS, detail=detail)]
        return [
            Fault(pointer=where + fault.pointer, reason=Reason.BAD_ARGUMENTS, detail=fault.detail)
            for fault in found
        ]

    def _encoded(self, job: Job, declared: str, now: float) -> Prepared:
        body = encode_arguments(job.arguments, limit=self._limit)
        # Beyond the wheel's horizon it stays in the outbox; its headers are the same.
        horizon = datetime.fromtimestamp(now, UTC) + HORIZON - timedelta(days=1)
        near = job if job.due_at is None or job.due_at < horizon else _due(job, horizon)
        _, key, properties = encode(near, timestamp=now)
        decode(properties, key, body, limit=self._limit)  # as a worker will
        return Prepared(
            job=job,
            queue=job.queue or declared,
            body=body,
            headers=properties.headers,
            properties=b"".join(properties.encode()),
            state=State.QUEUED if job.due_at is None else State.SCHEDULED,
        )


_OF_BODY = frozenset(
    {
        Reason.BAD_ARGUMENTS,
        Reason.TOO_LARGE,
        Reason.TOO_DEEP,
        Reason.NOT_JSON,
        Reason.NOT_UTF8,
        Reason.NOT_AN_OBJECT,
    }
)


def _moment(now: float, seconds: float | None, moment: datetime | None) -> datetime | None:
    if seconds is None:
        return moment
    return datetime.fromtimestamp(now + seconds, UTC)


def _due(job: Job, due_at: datetime) -> Job:
    return replace(job, due_at=due_at)


def _seconds(limit: timedelta | None) -> float | None:
    return None if limit is None else limit.total_seconds()
