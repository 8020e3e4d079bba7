"""Declaring actors."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import dramatiq

from leveret.broker import LeveretBroker, get_broker
from leveret.errors import ConfigurationError
from leveret.retry import Backoff
from leveret.schedules.declaration import Schedules, definitions
from leveret.settings import Settings

__all__ = ["actor", "load_actors"]

P = ParamSpec("P")
R = TypeVar("R")
_Errors = type[BaseException] | tuple[type[BaseException], ...]


def actor(
    name: str,
    *,
    queue: str = "default",
    time_limit: timedelta | None = timedelta(minutes=10),
    max_retries: int = 5,
    backoff: Backoff | None = None,
    retry_on: _Errors = Exception,
    dead_on: _Errors = (),
    priority: int = 0,
    once: bool = False,
    schedule: Schedules | None = None,
    broker: LeveretBroker | None = None,
    **options: Any,
) -> Callable[[Callable[P, R]], dramatiq.Actor[P, R]]:
    """Declare a function, or a coroutine function, as the actor ``name``.

    :param name: how jobs name it, as ``noun.verb``: ``email.send``.
    :param queue: the pool that runs it, unless a job says otherwise.
    :param time_limit: how long a run may take before it is interrupted and counts as failed.
    :param max_retries: attempts after the first.
    :param backoff: how long to wait between attempts; 15 s doubling to 1 h, with jitter.
    :param retry_on: the exceptions that are retried.
    :param dead_on: those that are not, and make the job a dead letter at once.
    :param priority: among jobs that a worker process holds, lower numbers run first.
    :param once: each job's effects happen once, however often it is delivered (`once_session`).
    :param schedule: when jobs are published by themselves: `Cron`, `Every` or `At` of
        `leveret.schedules`, a `Schedule` that says more, or a list of these.

    Arguments are checked against the annotations before the function runs. What it returns, when
    JSON can write it, is the job's result. The function stays callable; ``.send(...)`` publishes.
    """
    where = get_broker() if broker is None else broker
    scheduled = [] if schedule is None else definitions(name, schedule)
    declare: Any = dramatiq.actor(
        actor_name=name,
        queue_name=queue,
        priority=priority,
        broker=where,
        time_limit=time_limit,
        max_retries=max_retries,
        backoff=backoff or Backoff(),
        retry_on=(*_tuple(retry_on), dramatiq.middleware.Interrupt),
        dead_on=_tuple(dead_on),
        once=once,
        **options,
    )

    def decorate(function: Callable[P, R]) -> dramatiq.Actor[P, R]:
        made: dramatiq.Actor[P, R] = declare(function)
        where.declare_schedules(name, scheduled)
        return made

    return decorate


def load_actors(
    modules: Sequence[str], *, queues: Sequence[str] | None = None, housekeeping: bool | None = None
) -> LeveretBroker:
    """Import modules that declare actors; return the process's broker, which then has them.

    It has those of `leveret.housekeeping`, too: for the queue that they belong to of ``queues``,
    and with their schedules if ``housekeeping``. What is not given is read from the environment
    (``LEVERET_QUEUES``, ``LEVERET_HOUSEKEEPING``). Raises `ConfigurationError` naming the module
    that cannot be imported.
    """
    from leveret import housekeeping as own  # noqa: PLC0415 - it declares actors by this module

    if queues is None or housekeeping is None:
        settings = Settings.from_env()
        queues = settings.queues if queues is None else queues
        housekeeping = settings.housekeeping if housekeeping is None else housekeeping
    broker = get_broker()
    for module in modules:
        try:
            importlib.import_module(module)
        except ConfigurationError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"LEVERET_ACTORS names the module {module!r}, which cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
    if all(map(own.is_housekeeping, broker.actors)):
        raise ConfigurationError(
            f"LEVERET_ACTORS ({','.join(modules)}) declares no actor; name the modules that do"
        )
    own.declare(queues, schedules=housekeeping, broker=broker)
    return broker


def _tuple(errors: _Errors) -> tuple[type[BaseException], ...]:
    return errors if isinstance(errors, tuple) else (errors,)
