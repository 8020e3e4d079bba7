"""Dramatiq's broker, on Leveret's wire contract.

Actors are declared on it and jobs enqueued through it; it declares nothing in RabbitMQ (that is
`leveret.topology`) and consumes nothing by itself (that is `leveret.worker`). Making one costs
nothing: it connects at the first job.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from leveret.errors import ConfigurationError
from leveret.extra import brought_by
from leveret.message import Job
from leveret.names import is_actor_name
from leveret.publisher import Publisher
from leveret.request import period
from leveret.settings import Settings

with brought_by("worker", "leveret.broker"):
    import dramatiq
    from dramatiq.middleware import AsyncIO, Middleware

    from leveret.arguments import Signature
    from leveret.retry import Backoff, Policy

if TYPE_CHECKING:
    from leveret.schedules.definition import Definition

__all__ = ["LeveretBroker", "get_broker"]

#: Options of an actor: ours, and those of stock Dramatiq that mean the same.
ACTOR_OPTIONS = {
    "backoff",
    "dead_on",
    "max_backoff",
    "max_retries",
    "min_backoff",
    "once",
    "retry_on",
    "throws",
    "time_limit",
}
#: Options of a message that are fields of the job.
_JOB_OPTIONS = (
    "idempotency_key",
    "max_retries",
    "on_conflict",
    "once",
    "unique_for",
    "unique_until",
)


class LeveretBroker(dramatiq.Broker):
    """A broker that publishes to Leveret's exchanges and waits for the confirm.

    Thread-safe. ``publisher`` may be given; otherwise one is made from the settings at the first
    job. Dramatiq's own retries, time limits and age limits are not among its middleware: the worker
    does their work where it cannot lose a job.
    """

    def __init__(
        self, *, publisher: Publisher | None = None, middleware: list[Middleware] | None = None
    ) -> None:
        self._publisher = publisher
        self._lock = threading.Lock()
        self._signatures: dict[str, Signature] = {}
        self._policies: dict[str, Policy] = {}
        self._schedules: dict[str, Definition] = {}
        super().__init__(middleware=[AsyncIO()] if middleware is None else middleware)
        self.actor_options |= ACTOR_OPTIONS
        self.queues = {}

    # ------------------------------------------------------------------------------- declaring

    def declare_actor(self, actor: dramatiq.Actor[..., Any]) -> None:
        """Declare an actor; its name is checked, its schema is built when first needed."""
        if not is_actor_name(actor.actor_name):
            raise ConfigurationError(
                f"an actor's name is dotted words such as 'email.send', not {actor.actor_name!r}"
            )
        previous = self.actors.get(actor.actor_name)
        if previous is not None and _source(previous.fn) != _source(actor.fn):
            raise ConfigurationError(
                f"two actors are called {actor.actor_name!r}: {_source(previous.fn)} and "
                f"{_source(actor.fn)}; rename one"
            )
        self._policies[actor.actor_name] = policy_of(actor)
        self._signatures.pop(actor.actor_name, None)
        super().declare_actor(actor)

    def declare_schedules(self, actor: str, schedules: Sequence[Definition]) -> None:
        """Take note of the schedules of an actor; a scheduler fires them, not the broker.

        Raises `ConfigurationError` for a name that is another's.
        """
        for schedule in schedules:
            if (other := self._schedules.get(schedule.name)) is not None:
                raise ConfigurationError(
                    f"two schedules are called {schedule.name!r}: one of actor {other.actor!r} and "
                    f"one of {actor!r}; rename one"
                )
            self._schedules[schedule.name] = schedule

    @property
    def schedules(self) -> Mapping[str, Definition]:
        """The schedules that are declared next to actors, by their names."""
        return MappingProxyType(self._schedules)

    def declare_queue(self, queue_name: str) -> None:
        """Take note of a queue; what stands in RabbitMQ is the topology's business."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def signature(self, actor: str) -> Signature:
        """Return the schema of an actor's arguments."""
        signature = self._signatures.get(actor)
        if signature is None:
            signature = Signature(unwrapped(self.actors[actor].fn), actor)
            self._signatures[actor] = signature
        return signature

    def check_actors(self) -> None:
        """Build the schema of every actor; raises `ConfigurationError` where there can be none."""
        for actor in self.actors:
            self.signature(actor)

    def policy(self, actor: str) -> Policy:
        """Return how an actor's failures are treated."""
        return self._policies[actor]

    # ------------------------------------------------------------------------------ publishing

    @property
    def publisher(self) -> Publisher:
        """The publisher that jobs go through."""
        with self._lock:
            if self._publisher is None:
                settings = Settings.from_env()
                self._publisher = Publisher(
                    settings.require_amqp_url(),
                    app_id=settings.app_id,
                    timeout=settings.publish_timeout,
                    max_body_bytes=settings.max_body_bytes,
                )
            return self._publisher

    @publisher.setter
    def publisher(self, publisher: Publisher | None) -> None:
        with self._lock:
            self._publisher = publisher

    def enqueue(
        self, message: dramatiq.Message[Any], *, delay: int | None = None
    ) -> dramatiq.Message[Any]:
        """Publish a message as a job and wait until RabbitMQ has it.

        ``delay`` is in milliseconds, as in Dramatiq. Raises what `Publisher.publish` raises.
        """
        arguments: dict[str, Any] = dict(message.kwargs)
        if message.actor_name in self.actors:
            arguments = self.signature(message.actor_name).bind(message.args, message.kwargs)
        elif message.args:
            raise ConfigurationError(
                f"actor {message.actor_name!r} is not declared here, so its positional arguments "
                "have no names; pass them by name"
            )
        self.emit_before("enqueue", message, delay)
        options = message.options
        due_at = None
        if delay:
            due_at = datetime.now(UTC) + timedelta(milliseconds=delay)
        fields = {name: options[name] for name in _JOB_OPTIONS if options.get(name) is not None}
        if "unique_for" in fields:
            fields["unique_for"] = period(fields["unique_for"])
        self.publisher.publish_job(
            Job(
                actor=message.actor_name,
                arguments=arguments,
                id=message.message_id,
                queue=options.get("queue"),
                due_at=due_at,
                **fields,
            )
        ).wait()
        self.emit_after("enqueue", message, delay)
        return message

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the middleware's ``before_`` hooks; those of a job's run may raise.

        Stock Dramatiq logs what a hook raises and runs the job anyway, so that a guard whose
        database is down guards nothing. Here the run fails, and the job is retried.
        """
        if signal != "process_message":
            super().emit_before(signal, *args, **kwargs)
            return
        for middleware in self.middleware:
            middleware.before_process_message(self, *args, **kwargs)

    def close(self) -> None:
        """Close the publisher, if there is one."""
        with self._lock:
            publisher = self._publisher
        if publisher is not None:
            publisher.close()


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as it was written, below Dramatiq's wrapper for coroutines."""
    innermost: Callable[..., Any] = inspect.unwrap(function)
    return innermost


def policy_of(actor: dramatiq.Actor[..., Any]) -> Policy:
    """Read an actor's options, ours and those of stock Dramatiq, into its policy."""
    options = actor.options
    values: dict[str, Any] = {}
    if options.get("max_retries") is not None:
        values["max_retries"] = options["max_retries"]
    if "backoff" in options:
        values["backoff"] = options["backoff"]
    elif "min_backoff" in options or "max_backoff" in options:
        cap = timedelta(milliseconds=options.get("max_backoff") or 3_600_000)
        base = timedelta(milliseconds=options.get("min_backoff") or 15_000)
        values["backoff"] = Backoff(base=min(base, cap), cap=cap)
    if options.get("retry_on") is not None:
        values["retry_on"] = _classes(options["retry_on"])
    dead_on = _classes(options.get("dead_on") or ()) + _classes(options.get("throws") or ())
    if dead_on:
        values["dead_on"] = dead_on
    if "time_limit" in options:
        limit = options["time_limit"]
        if isinstance(limit, int | float):  # Dramatiq's are milliseconds
            limit = None if limit == float("inf") else timedelta(milliseconds=limit)
        values["time_limit"] = limit
    values["once"] = bool(options.get("once", False))
    return Policy(**values)


def _classes(value: type[BaseException] | tuple[type[BaseException], ...]) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _source(function: Callable[..., Any]) -> str:
    function = unwrapped(function)
    return f"{function.__module__}.{function.__qualname__}"


_default: LeveretBroker | None = None
_default_lock = threading.Lock()


def get_broker() -> LeveretBroker:
    """Return the process's broker; the first call makes it Dramatiq's global broker too."""
    global _default  # noqa: PLW0603 - one broker for a process, as Dramatiq has it
    with _default_lock:
        if _default is None:
            _default = LeveretBroker()
            dramatiq.set_broker(_default)
        return _default
