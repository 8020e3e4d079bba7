"""The metrics, in one table. Base units, bounded labels, prefix ``leveret_``.

Each process shows all that it has imported; what only another one knows is 0 there, or NaN where 0
would be an answer. `shown_by` says who knows which.

With ``PROMETHEUS_MULTIPROC_DIR`` set before this is imported, the counts of several processes add
up, and those of a dead process stay (its gauges do not).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import Exemplar, Metric

from leveret import exemplars, meter

__all__ = [
    "BROKER_BLOCKED",
    "BROKER_CONNECTIONS_LOST",
    "BUILD_INFO",
    "CANARY_AGE",
    "CANARY_SECONDS",
    "DATABASE_CONNECTIONS",
    "DATABASE_CONNECTIONS_LIMIT",
    "DATABASE_OLDEST_TRANSACTION",
    "DATABASE_SIZE",
    "DATABASE_UP",
    "DEAD_LETTERS",
    "DEAD_LETTERS_OPEN",
    "DEAD_LETTER_GROUPS",
    "DEAD_LETTER_GROUPS_OPEN",
    "HTTP_DURATION",
    "HTTP_REQUESTS",
    "JOBS",
    "JOBS_IN_PROGRESS",
    "JOBS_OVERDUE",
    "JOBS_OVERDUE_OLDEST",
    "JOBS_PREFETCHED",
    "JOBS_PUBLISHED",
    "JOB_DURATION",
    "JOB_QUEUE_TIME",
    "LEDGER_BATCH_SECONDS",
    "LEDGER_EVENTS",
    "LEDGER_LAG",
    "LEDGER_REJECTS",
    "OUTBOX_FAILED",
    "OUTBOX_OLDEST",
    "OUTBOX_PENDING",
    "PUBLISH_CONFIRM",
    "PUBLISH_FAILURES",
    "PUBLISH_UNCONFIRMED",
    "REDELIVERIES_ADOPTED",
    "RELAY_BATCH",
    "RELAY_PUBLISHED",
    "REPLAYED",
    "RETRIES",
    "SCHEDULER_IS_LEADER",
    "SCHEDULER_LEASE",
    "SCHEDULER_LEASE_REMAINING",
    "SCHEDULER_LEASE_RENEWALS",
    "SCHEDULES",
    "SCHEDULE_GAPS",
    "SCHEDULE_LATENESS",
    "SCHEDULE_MISSED",
    "SCHEDULE_SLOTS",
    "SETTLEMENT",
    "SETTLEMENTS_VOID",
    "WORKER_RESTARTS",
    "WORKER_THREADS",
]

#: From a no-op to ten minutes. Roll-ups of the ledger have the same ones.
DURATION_BUCKETS = meter.BOUNDS

exemplars.share()


class _Fetched:
    """Comes before all metrics in the registry: fetches what the core has counted."""

    def describe(self) -> list[Metric]:
        """Name no metric."""
        return []

    def collect(self) -> list[Metric]:
        """Fetch."""
        refresh()
        return []


REGISTRY.register(_Fetched())

WORKER, RELAY, RECORDER, API, SCHEDULER = "worker", "relay", "recorder", "api", "scheduler"
ALL = (API, RECORDER, RELAY, SCHEDULER, WORKER)
#: Those with a connection to the broker.
CONNECTED = (API, RECORDER, RELAY, WORKER)
#: Those that publish jobs; also any service of others that does, and shows metrics.
PUBLISHING = (RELAY, WORKER)

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)
_shown_by: dict[str, tuple[str, ...]] = {}


def shown_by(metric: object) -> tuple[str, ...]:
    """Name the processes that know a metric of this table."""
    return _shown_by[metric._name]  # type: ignore[attr-defined]  # noqa: SLF001


def _counter(
    name: str, about: str, labels: Sequence[str] = (), *, by: str | tuple[str, ...]
) -> Counter:
    return _noted(Counter(name, about, labels), by)


def _gauge(
    name: str,
    about: str,
    labels: Sequence[str] = (),
    *,
    by: str | tuple[str, ...],
    of_all: str = "livemax",
) -> Gauge:
    """Define a gauge; ``of_all`` says how those of several processes of a pool are one."""
    mode: Any = of_all
    return _noted(Gauge(name, about, labels, unit=unit_of(name), multiprocess_mode=mode), by)


def _histogram(
    name: str,
    about: str,
    labels: Sequence[str] = (),
    *,
    by: str | tuple[str, ...],
    buckets: Sequence[float] = DURATION_BUCKETS,
) -> Histogram:
    return _noted(Histogram(name, about, labels, unit=unit_of(name), buckets=buckets), by)


def _noted(metric: _Metric, by: str | tuple[str, ...]) -> _Metric:
    _shown_by[metric._name] = (by,) if isinstance(by, str) else by  # noqa: SLF001
    return metric


def unit_of(name: str) -> str:
    """Return the unit of a metric, which is the last word of its name, or "" if it has none."""
    last = name.rpartition("_")[2]
    return last if last in ("seconds", "bytes") else ""


# ------------------------------------------------------------------------------------- publishing

JOBS_PUBLISHED = _counter(
    "leveret_jobs_published",
    "Jobs that this process has published, and the broker has confirmed. A queue is `any` for jobs "
    "that the routing table finds one for, and `other` for one that LEVERET_QUEUES does not name.",
    ["queue"],
    by=PUBLISHING,
)
PUBLISH_FAILURES = _counter(
    "leveret_publish_failures",
    "Jobs that this process could not publish, by why: timeout, rejected, blocked, closed, or "
    "invalid (AMQP cannot write it).",
    ["reason"],
    by=PUBLISHING,
)
PUBLISH_CONFIRM = _histogram(
    "leveret_publish_confirm_seconds",
    "Time from when a job is given to the publisher to the broker's confirm.",
    by=PUBLISHING,
)
PUBLISH_UNCONFIRMED = _gauge(
    "leveret_publish_unconfirmed",
    "Jobs that are on their way to the broker, and not confirmed yet.",
    by=PUBLISHING,
    of_all="livesum",
)
BROKER_CONNECTIONS_LOST = _counter(
    "leveret_broker_connections_lost",
    "Connections to the broker that were lost, not closed by this process.",
    by=CONNECTED,
)
BROKER_BLOCKED = _gauge(
    "leveret_broker_blocked",
    "1 while the broker blocks a connection of this process, because it is short of memory or "
    "disk; else 0.",
    by=CONNECTED,
)

# ------------------------------------------------------------------------------------------ worker

JOBS = _counter(
    "leveret_jobs",
    "Runs that were settled, by what they led to.",
    ["actor", "queue", "outcome"],
    by=WORKER,
)
JOB_DURATION = _histogram(
    "leveret_job_duration_seconds",
    "Time from the start of a run to its end.",
    ["actor", "queue"],
    by=WORKER,
)
JOB_QUEUE_TIME = _histogram(
    "leveret_job_queue_time_seconds",
    "Time from when a job was published, or due, to the start of its run.",
    ["actor", "queue"],
    by=WORKER,
)
SETTLEMENT = _histogram(
    "leveret_settlement_seconds",
    "Time from the end of a run until what follows from it is safe in the broker, and it is acked.",
    ["queue"],
    by=WORKER,
)
JOBS_IN_PROGRESS = _gauge(
    "leveret_jobs_in_progress",
    "Jobs that are running now.",
    by=WORKER,
    of_all="livesum",
)
JOBS_PREFETCHED = _gauge(
    "leveret_jobs_prefetched",
    "Deliveries that a worker holds and has not started.",
    by=WORKER,
    of_all="livesum",
)
WORKER_THREADS = _gauge(
    "leveret_worker_threads",
    "Worker threads that are alive.",
    by=WORKER,
    of_all="livesum",
)
WORKER_RESTARTS = _counter(
    "leveret_worker_restarts",
    "Worker processes that died and were started again.",
    by=WORKER,
)
RETRIES = _counter("leveret_retries", "Retries that were published.", ["actor", "queue"], by=WORKER)
SETTLEMENTS_VOID = _counter(
    "leveret_settlements_void",
    "Runs whose delivery could not be settled any more, because its channel was gone.",
    by=WORKER,
)
REDELIVERIES_ADOPTED = _counter(
    "leveret_redeliveries_adopted",
    "Redeliveries of a job that was still running here, and that settled it.",
    by=WORKER,
)

# ---------------------------------------------------------------------------------------- recorder

LEDGER_LAG = _gauge(
    "leveret_ledger_lag_seconds",
    "Age of the oldest event that the recorder holds and has not written; 0 when there is none.",
    by=RECORDER,
)
LEDGER_EVENTS = _counter(
    "leveret_ledger_events",
    "Events that the recorder has written, by what happened.",
    ["kind"],
    by=RECORDER,
)
LEDGER_BATCH_SECONDS = _histogram(
    "leveret_ledger_batch_seconds",
    "Time that the recorder's transactions take.",
    by=RECORDER,
)
LEDGER_REJECTS = _counter(
    "leveret_ledger_rejects",
    "Messages that the recorder could not understand and has set aside.",
    by=RECORDER,
)
DEAD_LETTERS = _counter(
    "leveret_dead_letters",
    "Dead letters that the recorder has stored. An actor is `unknown` where no worker has run it.",
    ["actor", "queue", "reason"],
    by=RECORDER,
)
DEAD_LETTER_GROUPS = _counter(
    "leveret_dead_letter_groups",
    "Groups of dead letters (fingerprints) that the recorder has seen for the first time.",
    by=RECORDER,
)
DEAD_LETTERS_OPEN = _gauge(
    "leveret_dead_letters_open",
    "Dead letters that nobody has replayed or discarded, as the recorder last counted them.",
    by=RECORDER,
)
DEAD_LETTER_GROUPS_OPEN = _gauge(
    "leveret_dead_letter_groups_open",
    "Groups of dead letters that have open ones, as the recorder last counted them.",
    by=RECORDER,
)

# ------------------------------------------------------------------------------------------- relay

OUTBOX_PENDING = _gauge(
    "leveret_outbox_pending",
    "Jobs in an outbox that could be published now.",
    ["database"],
    by=RELAY,
)
OUTBOX_OLDEST = _gauge(
    "leveret_outbox_oldest_seconds",
    "Age of the oldest of them; 0 when there is none.",
    ["database"],
    by=RELAY,
)
OUTBOX_FAILED = _gauge(
    "leveret_outbox_failed",
    "Jobs in an outbox that cannot be published, and stay there with their error.",
    ["database"],
    by=RELAY,
)
RELAY_PUBLISHED = _counter(
    "leveret_relay_published",
    "Jobs that a relay has published and deleted.",
    ["database"],
    by=RELAY,
)
RELAY_BATCH = _histogram(
    "leveret_relay_batch_seconds",
    "Time from reading a batch of an outbox to its commit, confirms included.",
    ["database"],
    by=RELAY,
)
REPLAYED = _counter(
    "leveret_replayed",
    "Jobs that had ended without success and that a relay has published again: dead letters that "
    "were replayed, and retries that somebody asked for.",
    by=RELAY,
)

# -------------------------------------------------------------------------------------------- HTTP

HTTP_REQUESTS = _counter(
    "leveret_http_requests",
    "Requests that the HTTP API has answered.",
    ["method", "route", "status"],
    by=API,
)
HTTP_DURATION = _histogram(
    "leveret_http_request_duration_seconds",
    "Time from a request's headers to the end of its answer.",
    ["method", "route"],
    by=API,
    buckets=Histogram.DEFAULT_BUCKETS,
)

# --------------------------------------------------------------------------------------- scheduler

SCHEDULER_IS_LEADER = _gauge(
    "leveret_scheduler_is_leader",
    "1 in the scheduler that has the lease, 0 in those that stand by.",
    by=SCHEDULER,
)
SCHEDULER_LEASE = _gauge(
    "leveret_scheduler_lease_seconds",
    "Term of the scheduler's lease.",
    by=SCHEDULER,
)
SCHEDULER_LEASE_REMAINING = _gauge(
    "leveret_scheduler_lease_remaining_seconds",
    "Time for which this scheduler may still act without renewing its lease; 0 without one.",
    by=SCHEDULER,
)
SCHEDULER_LEASE_RENEWALS = _counter(
    "leveret_scheduler_lease_renewals",
    "Renewals of the lease: renewed, refused (it had ended), or failed (no answer).",
    ["outcome"],
    by=SCHEDULER,
)
SCHEDULE_LATENESS = _histogram(
    "leveret_schedule_lateness_seconds",
    "Time from when the job of a slot was due to when it was committed to the outbox.",
    by=SCHEDULER,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
SCHEDULE_SLOTS = _counter(
    "leveret_schedule_slots",
    "Slots that were decided on: fired, skipped or queued.",
    ["schedule", "outcome"],
    by=SCHEDULER,
)
SCHEDULE_MISSED = _counter(
    "leveret_schedule_missed",
    "Slots that were skipped because they had passed while no scheduler led.",
    ["schedule"],
    by=SCHEDULER,
)
SCHEDULES = _gauge(
    "leveret_schedules",
    "Schedules, as the leader last counted them: active, paused, or ended (no slot is to come).",
    ["origin", "state"],
    by=SCHEDULER,
)
CANARY_SECONDS = _gauge(
    "leveret_canary_seconds",
    "Time that the latest canary took, from when it was due to its success in the ledger.",
    by=SCHEDULER,
)
CANARY_AGE = _gauge(
    "leveret_canary_age_seconds",
    "Time since the latest canary that succeeded was due; NaN when there are to be none.",
    by=SCHEDULER,
)
SCHEDULE_GAPS = _gauge(
    "leveret_schedule_gaps",
    "Slots that are lost, as the last check of schedules found: passed over, or without their job.",
    by=SCHEDULER,
)
JOBS_OVERDUE = _gauge(
    "leveret_jobs_overdue",
    "Jobs that are scheduled or retrying in the ledger, though they were due more than 60 s ago.",
    by=SCHEDULER,
)
JOBS_OVERDUE_OLDEST = _gauge(
    "leveret_jobs_overdue_oldest_seconds",
    "Time since the first of them was due; 0 when there is none.",
    by=SCHEDULER,
)
DATABASE_UP = _gauge(
    "leveret_database_up",
    "1 while a scheduler can ask the database, 0 while it cannot.",
    by=SCHEDULER,
)
DATABASE_SIZE = _gauge(
    "leveret_database_size_bytes",
    "Size of the database on its server's disk.",
    by=SCHEDULER,
)
DATABASE_CONNECTIONS = _gauge(
    "leveret_database_connections",
    "Connections to the database's server, of all users to all of its databases.",
    by=SCHEDULER,
)
DATABASE_CONNECTIONS_LIMIT = _gauge(
    "leveret_database_connections_limit",
    "Connections that the database's server allows to users that are no superusers.",
    by=SCHEDULER,
)
DATABASE_OLDEST_TRANSACTION = _gauge(
    "leveret_database_oldest_transaction_seconds",
    "Age of the oldest transaction in the database, of those that its user may see; 0 when there "
    "is none.",
    by=SCHEDULER,
)

# --------------------------------------------------------------------------------------------- all

BUILD_INFO = _gauge(
    "leveret_build_info",
    "1, with the release that runs, and as which process.",
    ["version", "process"],
    by=ALL,
)

# Only schedulers know these; 0 would be an answer.
for _unknown in (
    CANARY_SECONDS,
    CANARY_AGE,
    SCHEDULE_GAPS,
    JOBS_OVERDUE,
    JOBS_OVERDUE_OLDEST,
    DATABASE_UP,
    DATABASE_SIZE,
    DATABASE_CONNECTIONS,
    DATABASE_CONNECTIONS_LIMIT,
    DATABASE_OLDEST_TRANSACTION,
):
    _unknown.set(math.nan)


def announce(process: str) -> None:
    """Show in this process's metrics as which process it runs, and of which release."""
    BUILD_INFO.labels(release(), process).set(1)


def release() -> str:
    """Return the version of Leveret that is installed."""
    try:
        return version("leveret")
    except PackageNotFoundError:  # run from its sources
        return "unknown"


# -------------------------------------------------------------------------------- what the core has

_refreshing = threading.Lock()
_fetched = meter.Totals()


def refresh() -> None:
    """Bring the metrics of publishing and of connections up to date. Thread-safe.

    Reading the registry does it. Where the metrics are files, whoever reads them cannot: there the
    gauges are as old as the last call.
    """
    global _fetched  # noqa: PLW0603 - what is fetched the next time is what came since
    with _refreshing:
        now, before = meter.totals(), _fetched
        _fetched = now
        for queue, number in (now.published - before.published).items():
            JOBS_PUBLISHED.labels(queue).inc(number)
        for reason, number in (now.failed - before.failed).items():
            PUBLISH_FAILURES.labels(reason).inc(number)
        for index, number in enumerate(now.took):
            if number > before.took[index]:
                PUBLISH_CONFIRM._buckets[index].inc(number - before.took[index])  # noqa: SLF001
        PUBLISH_CONFIRM._sum.inc(now.seconds - before.seconds)  # noqa: SLF001
        for index, (traceparent, seconds, at) in now.traced.items():
            labels = exemplars.exemplar_of(traceparent)
            if labels is not None and now.traced[index] != before.traced.get(index):
                exemplar = Exemplar(labels, seconds, at)
                PUBLISH_CONFIRM._buckets[index].set_exemplar(exemplar)  # noqa: SLF001
        BROKER_CONNECTIONS_LOST.inc(now.connections_lost - before.connections_lost)
        PUBLISH_UNCONFIRMED.set(now.unconfirmed)
        BROKER_BLOCKED.set(now.is_blocked)


class _Observer:
    """Counts at once: what is in files outlives the process, however it ends."""

    def __init__(self) -> None:
        self._published: dict[str, Counter] = {}

    def confirmed(self, queue: str, seconds: float, traceparent: str | None) -> None:
        """Count a job that the broker has."""
        counter = self._published.get(queue)
        if counter is None:
            counter = self._published[queue] = JOBS_PUBLISHED.labels(queue)
        counter.inc()
        PUBLISH_CONFIRM.observe(seconds, exemplars.exemplar_of(traceparent))

    def failed(self, reason: str) -> None:
        """Count a job that could not be published."""
        PUBLISH_FAILURES.labels(reason).inc()

    def connection_lost(self) -> None:
        """Count a connection to the broker that was lost."""
        BROKER_CONNECTIONS_LOST.inc()


if exemplars.in_files():
    meter.observe(_Observer())
