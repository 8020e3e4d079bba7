"""Running one job: a pipeline from a delivery to an outcome.

::

    read ──► cancelled? ──► expired? ──► due? ──► find the actor ──► check arguments ──► claim
                                                                                          │
      outcome ◄── complete the claim ◄── judge ◄── after hooks ◄── run ◄── before hooks ◄─┘

Every step may end the pipeline with an outcome, and none of them can end it without one. Only jobs
that are once, or unique, have something to claim (`leveret.claims`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from dramatiq.middleware import Middleware, SkipMessage, TimeLimitExceeded

from leveret import context, tracing, wheel
from leveret.amqp.connection import Unreadable
from leveret.broker import LeveretBroker
from leveret.claims.desk import Admission, Desk, needs_admission
from leveret.context import Run
from leveret.errors import InvalidJob
from leveret.message import MAX_BODY_BYTES, Job, Reason, decode
from leveret.outcome import Cancelled, Dead, Expired, Outcome, Snooze, Succeeded
from leveret.retry import decide
from leveret.worker.delivery import Delivery
from leveret.worker.spans import begin
from leveret.worker.timelimit import TimeLimits

__all__ = ["Executor"]

#: What the wheel let go of is delayed again only when it is far from due: clocks of two machines
#: may differ, and a wait that is longer than the wheel's horizon takes several rounds.
_CLOCK_TOLERANCE = timedelta(minutes=1)
#: Dramatiq's envelope says when a job is due, and has not been in the wheel yet.
_ENVELOPE_TOLERANCE = timedelta(milliseconds=50)


class Executor:
    """Runs deliveries, one at a time for each calling thread. Thread-safe."""

    def __init__(
        self,
        broker: LeveretBroker,
        limits: TimeLimits,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        desk: Desk | None = None,
        is_cancelled: Callable[[Job], bool] | None = None,
        keep: Callable[[Delivery, Succeeded], Succeeded] | None = None,
        dice: random.Random | None = None,
    ) -> None:
        self._broker = broker
        self._desk = desk or Desk("", database_url=None)
        self._is_cancelled = is_cancelled
        self._keep = keep
        self._limits = limits
        self._max_body_bytes = max_body_bytes
        self._dice = dice or random.Random()  # noqa: S311 - jitter
        self._hooked = any(_has_run_hooks(middleware) for middleware in broker.middleware)

    def run(self, delivery: Delivery) -> Outcome:
        """Run the job of a delivery; whatever happens, there is an outcome."""
        tracer = tracing.tracer()
        if tracer is None:
            return self._run(delivery, time.time())
        now = time.time()
        spans = delivery.spans = begin(tracer, delivery, now)
        if spans is None:
            return self._run(delivery, now)
        token = tracer.enter(spans.span)
        try:
            outcome = self._run(delivery, now)
        finally:
            tracer.leave(token)
        spans.ended(outcome)
        return outcome

    def _run(self, delivery: Delivery, now: float) -> Outcome:
        try:
            entered = self._prepare(delivery, now) or self._claim(delivery)
        except InvalidJob as error:
            return Dead(Reason(error.reason), error)
        except BaseException as error:  # noqa: BLE001 - a message must never end its worker thread
            return Dead(Reason.REFUSED, error)
        if entered is not None and not isinstance(entered, Admission):
            return entered
        delivery.started_at = now if entered is None else time.time()
        try:
            outcome = self._perform(delivery, entered)
        except BaseException as error:  # noqa: BLE001 - as above; what judges a run may fail, too
            outcome = Dead(Reason.REFUSED, error)
        delivery.ended_at = time.time()
        if self._keep is not None and isinstance(outcome, Succeeded):
            outcome = self._keep(delivery, outcome)
        return outcome if entered is None else entered.leave(outcome)

    def _prepare(self, delivery: Delivery, now: float) -> Outcome | None:
        """Make a delivery ready to run; an outcome when it must not."""
        properties = delivery.properties
        if isinstance(properties, Unreadable):
            raise InvalidJob(
                Reason.UNREADABLE_HEADER, f"the header cannot be read: {properties.cause}"
            )
        job = delivery.job = decode(
            properties, delivery.routing_key, delivery.body, limit=self._max_body_bytes
        )
        if delivery.spans is not None:
            job = delivery.job = delivery.spans.adopt(job)
        if self._is_cancelled is not None and self._is_cancelled(job):
            return Cancelled("it was cancelled before it started")
        if _expired_early(properties.headers):
            return Expired("its AMQP expiration was shorter than its delay")
        if job.expires_at is not None and job.expires_at.timestamp() <= now:
            return Expired(f"it was not to be started after {job.expires_at.isoformat()}")
        if job.due_at is not None:
            wait = job.due_at - datetime.fromtimestamp(now, UTC)
            if wait > (_ENVELOPE_TOLERANCE if properties.type is None else _CLOCK_TOLERANCE):
                return Snooze(wait, "it is due later")
        if job.actor not in self._broker.actors:
            known = ", ".join(sorted(self._broker.actors)) or "none"
            return Dead(
                Reason.UNKNOWN_ACTOR,
                InvalidJob(
                    Reason.UNKNOWN_ACTOR,
                    f"no actor {job.actor!r} is declared in this worker (it has: {known[:500]}); "
                    "add its module to LEVERET_ACTORS, or publish to the queue of a worker that "
                    "has it",
                ),
            )
        signature = self._broker.signature(job.actor)
        delivery.positional, delivery.named = signature.check(job.positional, job.arguments)
        return None

    def _claim(self, delivery: Delivery) -> Admission | Outcome | None:
        """Ask for what has its effects once, or is unique; None for a plain job."""
        job = delivery.job
        if job is None:
            return None
        once = self._broker.policy(job.actor).once
        if not needs_admission(job, once=once):
            return None
        return self._desk.admit(job, delivery.properties.timestamp, once=once)

    def _perform(self, delivery: Delivery, admission: Admission | None) -> Outcome:
        job = delivery.job
        if job is None:
            raise InvalidJob(Reason.NOT_JSON, "the delivery was not read")
        actor = self._broker.actors[job.actor]
        policy = self._broker.policy(job.actor)
        limit = None if policy.time_limit is None else policy.time_limit.total_seconds()
        result: Any = None
        error: BaseException | None = None
        run = delivery.run = Run(job, notebook=self._desk, admission=admission)
        token = context.running.set(run)
        try:
            if self._hooked:
                self._broker.emit_before("process_message", delivery)
            if delivery.failed:  # by a before hook
                return Dead(Reason.REFUSED, SkipMessage("a before hook failed the message"))
            result = self._limits.limited(
                limit, lambda: actor.fn(*delivery.positional, **delivery.named)
            )
        except SkipMessage as skip:
            self._broker.emit_after("skip_message", delivery)
            if delivery.failed:
                return Dead(Reason.REFUSED, skip)
            return Succeeded()
        except TimeLimitExceeded as failure:
            failure.args = (f"it ran longer than its time limit of {limit:g} s",)
            error = failure
        except BaseException as failure:  # noqa: BLE001 - whatever an actor raises is its outcome
            error = failure
        finally:
            context.running.reset(token)
            delivery.noted = run.noted
        if self._hooked:
            hook_error = self._after(delivery, result, error)
            error = error or hook_error
        if error is None:
            return Succeeded(result)
        return decide(error, job, policy, self._dice)

    def _after(
        self, delivery: Delivery, result: Any, error: BaseException | None
    ) -> BaseException | None:
        """Call the after hooks; a hook that fails fails the run.

        What a hook does (enqueue the next job of a pipeline, store a result) follows from the run;
        acking the job although it was not done would lose it.
        """
        failure: BaseException | None = None
        for middleware in reversed(self._broker.middleware):
            try:
                middleware.after_process_message(
                    self._broker, delivery, result=result, exception=error
                )
            except BaseException as hook_error:  # noqa: BLE001 - becomes the outcome
                failure = failure or hook_error
        return failure


def _has_run_hooks(middleware: Middleware) -> bool:
    return any(
        getattr(type(middleware), hook) is not getattr(Middleware, hook)
        for hook in ("before_process_message", "after_process_message", "after_skip_message")
    )


def _expired_early(headers: Any) -> bool:
    """Tell whether an AMQP expiration ended a wait in the wheel before its time.

    A client that sets ``expiration`` on a delayed job makes the broker let go of it early. The
    broker writes the expiration into ``x-death``, next to the queue whose TTL was longer.
    """
    deaths = headers.get("x-death") if headers else None
    if not isinstance(deaths, list):
        return False
    for death in deaths:
        if not isinstance(death, dict) or "original-expiration" not in death:
            continue
        ttl = wheel.queue_ttl(str(death.get("queue", "")))
        try:
            expiration = timedelta(milliseconds=int(str(death["original-expiration"])))
        except (ValueError, OverflowError):
            continue
        if ttl is not None and expiration < ttl:
            return True
    return False
