"""One worker process: its threads, its two connections, and their beginning and end."""

from __future__ import annotations

import functools
import os
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from dramatiq.middleware import Middleware

from leveret import metrics, tracing
from leveret.amqp import IOThread, Outbound
from leveret.amqp.connection import thread_name
from leveret.claims.desk import Desk
from leveret.errors import InvalidJob
from leveret.message import MAX_BODY_BYTES, PREFIX, Reason, decode
from leveret.outcome import (
    Cancelled,
    Dead,
    Expired,
    Outcome,
    Quarantine,
    Retry,
    Returned,
    Snooze,
    Succeeded,
)
from leveret.publisher import Publisher
from leveret.worker.control import Control
from leveret.worker.counts import Counts
from leveret.worker.executor import Executor
from leveret.worker.failure import message_of
from leveret.worker.intake import Intake
from leveret.worker.lane import LaneIntake, LaneWatch
from leveret.worker.prefetch import PrefetchGovernor
from leveret.worker.records import event_of, heartbeat, keep_result, progress, started
from leveret.worker.settlement import Settler
from leveret.worker.spans import unstarted
from leveret.worker.timelimit import TimeLimits
from leveret.worker.workqueue import WorkQueue

if TYPE_CHECKING:
    from leveret.broker import LeveretBroker
    from leveret.results.store import ResultStore
    from leveret.worker.control import Load
    from leveret.worker.delivery import Delivery, Session

__all__ = ["Health", "Worker", "WorkerThread"]

log = structlog.get_logger("leveret.job")

_Run = tuple[str, object]

#: Deliveries of one message that may end with the death of its worker before it runs alone.
KILLS_BEFORE_QUARANTINE = 2
#: A run longer than this gets a started record of its own.
ANNOUNCE_SECONDS = 0.1
HEARTBEAT_SECONDS = 5.0
#: A thread that is still in a run so long after its time limit is stuck.
STUCK_SECONDS = 30.0
_TICK_SECONDS = 0.1
_MAX_UNSETTLED = 10_000
_IO_SILENCE_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """How a worker process is, as its health checks see it."""

    #: Whether every queue is being consumed and outcomes can be published.
    ready: bool
    #: What will not get better by itself; empty when all is well.
    faults: tuple[str, ...]
    #: Ids of the jobs that are running.
    running: tuple[str, ...]
    #: Whether a job waits for the quarantine lane.
    suspects: bool = False


class WorkerThread(threading.Thread):
    """Runs one job at a time."""

    def __init__(self, worker: Worker, number: int) -> None:
        super().__init__(name=f"leveret-worker-{number}", daemon=True)
        self._worker = worker
        #: What it is running.
        self.delivery: Delivery | None = None

    def run(self) -> None:
        """Take deliveries from the work queue until the worker stops."""
        self._worker.work(self)


class _Source(Protocol):
    """Where deliveries come from."""

    @property
    def consuming(self) -> dict[str, bool]: ...
    def open(self) -> None: ...
    def stop(self) -> None: ...
    def close(self, on_closed: Callable[[], object] | None = None) -> None: ...
    def set_prefetch(self, prefetch: int) -> None: ...
    def charged(self, delivery: Delivery) -> int: ...


class Worker:
    """Consumes queues and runs their jobs on ``threads`` threads.

    Start it with `start`, end it with `stop`; both from the same thread. With ``lane`` it serves
    the quarantine lane of its queues instead: one job at a time, alone in its process.
    """

    def __init__(
        self,
        broker: LeveretBroker,
        url: str,
        *,
        queues: Sequence[str],
        threads: int = 8,
        prefetch: int = 0,
        lane: bool = False,
        max_body_bytes: int = MAX_BODY_BYTES,
        database_url: str | None = None,
        results: ResultStore | None = None,
        claims_url: str | None = None,
        claim_lease: timedelta = timedelta(seconds=30),
        claim_keep: timedelta = timedelta(days=30),
    ) -> None:
        self.broker = broker
        self.queues = tuple(queues)
        self.id = f"{socket.gethostname().split('.')[0]}-{os.getpid()}-{secrets.token_hex(3)}"
        self.lane = lane
        self._work = WorkQueue()
        self._limits = TimeLimits()
        self._desk = Desk(
            self.id,
            database_url=database_url,
            claims_url=claims_url,
            lease=claim_lease,
            keep=claim_keep,
            threads=1 if lane else threads,
        )
        self._threads = [WorkerThread(self, n) for n in range(1 if lane else threads)]
        self._max_body_bytes = max_body_bytes
        self._io = IOThread(thread_name("worker"))
        self._control = Control(
            self._io,
            self.id,
            load=None if database_url is None else _cancellations(database_url),
            on_cancelled=self._on_cancelled,
        )
        self._executor = Executor(
            broker,
            self._limits,
            max_body_bytes=max_body_bytes,
            desk=self._desk,
            is_cancelled=self._control.is_cancelled,
            keep=None if results is None else functools.partial(keep_result, store=results),
        )
        self._outbound = Outbound(
            self._io,
            url,
            name=f"leveret worker {self.id} (publishing)",
            on_blocked=self._on_blocked,
        )
        self.publisher = Publisher(
            url, io=self._io, outbound=self._outbound, max_body_bytes=max_body_bytes
        )
        self._counts = Counts()
        self._settler = Settler(
            self._io,
            self._outbound,
            self.id,
            on_settled=self._on_settled,
            on_void=self._on_void,
        )
        self._governor = PrefetchGovernor(len(self._threads), fixed=prefetch)
        name = f"leveret worker {self.id} (consuming)"
        self._source: _Source = (
            LaneIntake(
                self._io,
                url,
                name=name,
                queues=queues,
                on_delivery=self._on_delivery,
                prepare=self._control.prepare,
            )
            if lane
            else Intake(
                self._io,
                url,
                name=name,
                queues=queues,
                prefetch=self._governor.prefetch,
                on_delivery=self._on_delivery,
                on_over=self._on_over,
                prepare=self._control.prepare,
            )
        )
        self._lane_watch = LaneWatch(self.queues, self._on_suspects)
        #: Running jobs whose session is over, by job and attempt.
        self._orphans: dict[_Run, Delivery] = {}
        #: Outcomes of runs that could not be settled because their session was over.
        self._unsettled: OrderedDict[_Run, tuple[Delivery, Outcome]] = OrderedDict()
        self._ack_hooked = any(
            getattr(type(middleware), hook) is not getattr(Middleware, hook)
            for middleware in broker.middleware
            for hook in ("before_ack", "after_ack", "before_nack", "after_nack")
        )
        self._stopping = False
        self._draining = False
        self._suspects = False
        self._last_heartbeat = 0.0

    # ------------------------------------------------------------------------ beginning and end

    def start(self) -> None:
        """Connect, start the threads, and begin to consume; returns at once."""
        self.broker.check_actors()
        self._desk.check(name for name in self.broker.actors if self.broker.policy(name).once)
        self.broker.publisher = self.publisher
        self.broker.emit_before("worker_boot", self)
        for thread in self._threads:
            thread.start()
        self._io.call_soon(self._outbound.open)
        self._io.call_soon(self._source.open)
        self._io.call_soon(self._tick)
        self.broker.emit_after("worker_boot", self)

    def stop(self, grace: float = 30.0) -> bool:
        """Stop consuming, give back what was not started, and let running jobs end.

        Waits at most ``grace`` seconds; jobs that still run then go back to their queues when the
        connection closes. Tells whether all had ended.
        """
        if self._stopping:
            return self._is_idle()
        self.broker.emit_before("worker_shutdown", self)
        end = time.monotonic() + grace
        self._io.run(self._drain)
        while time.monotonic() < end and not self._is_idle():
            time.sleep(0.01)
        idle = self._is_idle()
        self._stopping = True
        self._control.close()
        self._work.wake(len(self._threads))
        self._disconnect()
        self._limits.close()
        if idle:
            for thread in self._threads:
                if thread.is_alive():
                    thread.join(2.0)
        self._io.stop()
        self._desk.close()
        self.broker.emit_after("worker_shutdown", self)
        return idle

    def _is_idle(self) -> bool:
        return not self._work.unfinished and not self._settler.pending

    def _drain(self) -> None:
        self._draining = True
        self._source.stop()
        for delivery in self._work.clear():
            self._give_back(delivery)

    def _give_back(self, delivery: Delivery) -> None:
        """Return what was not started; a worker that cannot publish leaves that to the broker."""
        if self._outbound.is_up:
            self._settler.submit(delivery, Returned(self._source.charged(delivery)))
        else:
            delivery.session.reject(delivery.tag, requeue=True)

    def _disconnect(self) -> None:
        """Close both connections, and wait until their sockets are closed."""
        for close in (self._source.close, self._outbound.close):
            closed = threading.Event()
            self._io.call_soon(functools.partial(close, closed.set))
            closed.wait(3.0)

    # -------------------------------------------------------------------------- the worker threads

    def work(self, thread: WorkerThread) -> None:
        """Run jobs on the calling thread until the worker stops."""
        self.broker.emit_after("worker_thread_boot", thread)
        metrics.WORKER_THREADS.inc()
        try:
            while not self._stopping:
                delivery = self._work.get(timeout=1.0)
                if delivery is None:
                    continue
                if not delivery.session.is_over:
                    thread.delivery = delivery
                    outcome = self._executor.run(delivery)
                    self._settler.submit(delivery, outcome)
                    thread.delivery = None
                self._work.done()
        finally:
            metrics.WORKER_THREADS.dec()
            self.broker.emit_before("worker_thread_shutdown", thread)

    # ---------------------------------------------------------------------------- on the IO thread

    def _on_blocked(self, reason: str | None) -> None:
        self.publisher.on_blocked(reason)

    def _on_suspects(self) -> None:
        self._suspects = True

    def _on_delivery(self, delivery: Delivery) -> None:
        if self._draining:
            self._give_back(delivery)
            return
        if (self._orphans or self._unsettled) and self._adopt(delivery):
            return
        kills = self._source.charged(delivery)
        if self.lane:
            if kills:
                self._settler.submit(
                    delivery,
                    Dead(Reason.WORKER_KILLED, WorkerKilled(KILLS_BEFORE_QUARANTINE + kills)),
                )
                return
        elif kills >= KILLS_BEFORE_QUARANTINE:
            self._suspects = True
            self._settler.submit(delivery, Quarantine(kills))
            return
        self._work.put(delivery, self._priority(delivery))

    def _on_cancelled(self) -> None:
        """End what was cancelled and waits here, without waiting for a thread to be free."""
        for delivery in self._work.take(self._is_cancelled):
            self._settler.submit(delivery, Cancelled("it was cancelled before it started"))

    def _is_cancelled(self, delivery: Delivery) -> bool:
        if delivery.session.is_over or not self._control.knows(delivery.properties.message_id):
            return False
        try:
            job = decode(
                delivery.properties,
                delivery.routing_key,
                delivery.body,
                limit=self._max_body_bytes,
            )
        except InvalidJob:
            return False  # a worker thread says what is wrong with it
        if not self._control.is_cancelled(job):
            return False
        delivery.job = job
        return True

    def _adopt(self, delivery: Delivery) -> bool:
        """Settle a redelivery by the run that it repeats, if that run was here."""
        run = _run_of(delivery)
        orphan = self._orphans.get(run)
        if orphan is not None and orphan.latest.session.is_over:
            orphan.latest.successor = delivery
            metrics.REDELIVERIES_ADOPTED.inc()
            return True
        known = self._unsettled.pop(run, None)
        if known is not None and delivery.unsuccessful:  # not a new message, as a replay is
            delivery.take_over(known[0])
            metrics.REDELIVERIES_ADOPTED.inc()
            self._settler.submit(delivery, known[1])
            return True
        return False

    def _priority(self, delivery: Delivery) -> int:
        actor = self.broker.actors.get(delivery.properties.type)
        return 0 if actor is None else actor.priority

    def _on_over(self, session: Session) -> None:
        """Remember the running jobs of a session that is over."""
        for thread in self._threads:
            delivery = thread.delivery
            if delivery is not None and delivery.session is session and delivery.has_id:
                self._orphans[_run_of(delivery)] = delivery

    def _on_void(self, delivery: Delivery, outcome: Outcome) -> None:
        run = _run_of(delivery)
        self._orphans.pop(run, None)
        if delivery.has_id:
            self._unsettled[run] = (delivery, outcome)
            if len(self._unsettled) > _MAX_UNSETTLED:
                self._unsettled.popitem(last=False)
        if delivery.spans is not None:
            delivery.spans.settled(delivery, outcome, void="its channel is gone")
        metrics.SETTLEMENTS_VOID.inc()
        log.warning(
            "job.void",
            job_id=delivery.label,
            queue=delivery.session.queue,
            outcome=event_of(outcome),
            why="its channel is gone; the broker delivers it again",
        )

    def _on_settled(self, delivery: Delivery, outcome: Outcome) -> None:
        if self._orphans:
            self._orphans.pop(_run_of(delivery), None)
        if isinstance(outcome, Returned):
            log.debug("job.returned", **_who(delivery))
            return
        if delivery.spans is not None:
            delivery.spans.settled(delivery, outcome)
        elif (tracer := tracing.tracer()) is not None:
            unstarted(tracer, delivery, outcome)
        if self._ack_hooked and delivery.job is not None:
            signal = "nack" if isinstance(outcome, Dead | Expired) else "ack"
            self.broker.emit_before(signal, delivery)
            self.broker.emit_after(signal, delivery)
        if delivery.noted and isinstance(outcome, Succeeded):
            self._desk.forget_checkpoint(delivery.label)
        job = delivery.job
        actor = "unknown"
        if job is not None and job.actor in self.broker.actors:
            actor = job.actor
        duration = None
        if delivery.started_at is not None and delivery.ended_at is not None:
            duration = delivery.ended_at - delivery.started_at
            self._governor.observe(duration)
        self._counts.settled(delivery, outcome, actor=actor, duration=duration)
        _log_transition(delivery, outcome, event_of(outcome), duration)

    def _tick(self) -> None:
        self._io.call_later(_TICK_SECONDS, self._tick)
        now = time.time()
        running = []
        for thread in self._threads:
            delivery = thread.delivery
            if delivery is None or delivery.job is None or delivery.started_at is None:
                continue
            running.append(delivery.job.id)
            if not delivery.announced and now - delivery.started_at >= ANNOUNCE_SECONDS:
                delivery.announced = True
                self._settler.note(started(delivery))
                log.info("job.started", **_who(delivery))
            if self._outbound.is_up and (report := delivery.news()) is not None:
                self._settler.note(progress(delivery, report))
        metrics.JOBS_IN_PROGRESS.set(len(running))
        metrics.JOBS_PREFETCHED.set(len(self._work))
        metrics.refresh()
        if now - self._last_heartbeat >= HEARTBEAT_SECONDS and self._outbound.is_up:
            self._last_heartbeat = now
            self._settler.note(heartbeat(self.queues, len(self._threads), running, now))
        self._source.set_prefetch(self._governor.adapt())
        if isinstance(self._source, Intake):
            self._lane_watch.look(self._source.connection)

    # -------------------------------------------------------------------------------------- health

    @property
    def is_ready(self) -> bool:
        """Whether every queue is consumed and outcomes can be published."""
        return self._outbound.is_up and all(self._source.consuming.values())

    @property
    def is_alive(self) -> bool:
        """Whether its IO thread runs, without which nothing is consumed or settled."""
        return self._io.is_alive

    @property
    def idle_seconds(self) -> float:
        """How long the quarantine lane has had no suspect; 0 for other workers."""
        if isinstance(self._source, LaneIntake) and self._is_idle():
            return time.monotonic() - self._source.last_busy
        return 0.0

    def health(self) -> Health:
        """Look at the worker from outside; thread-safe."""
        faults = []
        if time.monotonic() - self._io.last_tick > _IO_SILENCE_SECONDS or not self._io.is_alive:
            faults.append("the IO thread does not run")
        dead = sum(not thread.is_alive() for thread in self._threads)
        if dead and not self._stopping:
            faults.append(f"{dead} of {len(self._threads)} worker threads are dead")
        now = time.time()
        running = []
        for thread in self._threads:
            delivery = thread.delivery
            if delivery is None or delivery.job is None or delivery.started_at is None:
                continue
            job = delivery.job
            running.append(job.id)
            limit = self.broker.policy(job.actor).time_limit
            ran = now - delivery.started_at
            if limit is not None and ran > limit.total_seconds() + STUCK_SECONDS:
                faults.append(
                    f"job {job.id} ({job.actor}) is stuck: it runs for "
                    f"{now - delivery.started_at:.0f} s and does not heed its time limit"
                )
        suspects, self._suspects = self._suspects, False
        return Health(
            ready=self.is_ready and not faults,
            faults=tuple(faults),
            running=tuple(running),
            suspects=suspects,
        )


class WorkerKilled(Exception):  # noqa: N818 - says what happened
    """A delivery has ended with the death of its worker too often."""

    def __init__(self, kills: int) -> None:
        super().__init__(
            f"the worker process died while it ran this job, {kills} times, the last time alone"
        )


def _run_of(delivery: Delivery) -> _Run:
    """Identify a run by job and attempt: a retry copy has the same id, but is another run."""
    headers = delivery.properties.headers or {}
    attempt, run = headers.get(f"{PREFIX}attempt", 1), headers.get(f"{PREFIX}run", 0)
    return delivery.label, repr((attempt, run))  # a stranger's may be of any type


def _cancellations(url: str) -> Load | None:
    try:
        from leveret.ledger.cancel import load  # noqa: PLC0415 - plain jobs need no psycopg
    except ImportError:
        return None
    return functools.partial(load, url)


def _who(delivery: Delivery) -> dict[str, Any]:
    job = delivery.job
    who: dict[str, Any] = {"job_id": delivery.label, "queue": delivery.session.queue}
    if job is not None:
        who["actor"] = job.actor
        who["attempt"] = job.attempt
        if job.traceparent is not None:
            who["trace_id"] = job.traceparent[3:35]
            if delivery.spans is not None:
                who["span_id"] = job.traceparent[36:52]
    return who


def _log_transition(
    delivery: Delivery, outcome: Outcome, event: str, duration: float | None
) -> None:
    who = _who(delivery)
    if duration is not None:
        who["duration"] = round(duration, 6)
    match outcome:
        case Succeeded(done_by=done_by):
            if done_by is not None:
                who["done_by"] = done_by
            log.info("job.succeeded", **who)
        case Retry(delay, error):
            log.warning(
                "job.retrying", **who, delay=round(delay.total_seconds(), 3), error=_brief(error)
            )
        case Snooze(delay, why):
            log.info("job.snoozed", **who, delay=round(delay.total_seconds(), 3), why=why)
        case Dead(reason, error):
            log.error("job.dead", **who, reason=str(reason), error=_brief(error))
        case Cancelled(detail):
            log.info("job.cancelled", **who, why=detail)
        case Expired(detail):
            log.warning("job.expired", **who, why=detail)
        case Quarantine(kills):
            log.warning("job.quarantined", **who, kills=kills)
        case _:
            log.info("job.settled", **who, outcome=event)


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {message_of(error)[:500]}"
