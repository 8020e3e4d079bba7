"""The metrics, in one table. Base units, bounded labels, prefix ``leveret_``.

With ``PROMETHEUS_MULTIPROC_DIR`` set before this is imported, the counts of several processes add
up, and those of a dead process stay (its gauges do not).
"""

from __future__ import annotations

import math

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "CANARY_AGE",
    "CANARY_SECONDS",
    "DEAD_LETTERS_OPEN",
    "HTTP_DURATION",
    "HTTP_REQUESTS",
    "JOBS",
    "JOBS_IN_PROGRESS",
    "JOB_DURATION",
    "JOB_QUEUE_TIME",
    "LEDGER_BATCH_SECONDS",
    "LEDGER_EVENTS",
    "LEDGER_LAG",
    "LEDGER_REJECTS",
    "OUTBOX_FAILED",
    "OUTBOX_OLDEST",
    "OUTBOX_PENDING",
    "REDELIVERIES_ADOPTED",
    "RELAY_BATCH",
    "RELAY_PUBLISHED",
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
    "SETTLEMENTS_VOID",
    "WORKER_THREADS",
]

#: From a no-op to ten minutes. Roll-ups of the ledger have the same ones.
DURATION_BUCKETS = (
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600,
)  # fmt: skip

JOBS = Counter(
    "leveret_jobs",
    "Runs that were settled, by what they led to.",
    ["actor", "queue", "outcome"],
)
JOB_DURATION = Histogram(
    "leveret_job_duration_seconds",
    "Time from the start of a run to its end.",
    ["actor", "queue"],
    buckets=DURATION_BUCKETS,
)
JOB_QUEUE_TIME = Histogram(
    "leveret_job_queue_time_seconds",
    "Time from when a job was published, or due, to the start of its run.",
    ["actor", "queue"],
    buckets=DURATION_BUCKETS,
)
JOBS_IN_PROGRESS = Gauge(
    "leveret_jobs_in_progress",
    "Jobs that are running now.",
    multiprocess_mode="livesum",
)
WORKER_THREADS = Gauge(
    "leveret_worker_threads",
    "Worker threads that are alive.",
    multiprocess_mode="livesum",
)
RETRIES = Counter("leveret_retries", "Retries that were published.", ["actor", "queue"])
SETTLEMENTS_VOID = Counter(
    "leveret_settlements_void",
    "Runs whose delivery could not be settled any more, because its channel was gone.",
)
REDELIVERIES_ADOPTED = Counter(
    "leveret_redeliveries_adopted",
    "Redeliveries of a job that was still running here, and that settled it.",
)
LEDGER_LAG = Gauge(
    "leveret_ledger_lag_seconds",
    "Age of the oldest event that the recorder holds and has not written; 0 when there is none.",
)
LEDGER_EVENTS = Counter(
    "leveret_ledger_events", "Events that the recorder has written, by what happened.", ["kind"]
)
LEDGER_BATCH_SECONDS = Histogram(
    "leveret_ledger_batch_seconds",
    "Time that the recorder's transactions take.",
    buckets=DURATION_BUCKETS,
)
LEDGER_REJECTS = Counter(
    "leveret_ledger_rejects",
    "Messages that the recorder could not understand and has set aside.",
)
DEAD_LETTERS_OPEN = Gauge(
    "leveret_dead_letters_open",
    "Dead letters that nobody has replayed or discarded, as the recorder last counted them.",
)
OUTBOX_PENDING = Gauge(
    "leveret_outbox_pending",
    "Jobs in an outbox that could be published now.",
    ["database"],
    multiprocess_mode="livemax",
)
OUTBOX_OLDEST = Gauge(
    "leveret_outbox_oldest_seconds",
    "Age of the oldest of them; 0 when there is none.",
    ["database"],
    multiprocess_mode="livemax",
)
OUTBOX_FAILED = Gauge(
    "leveret_outbox_failed",
    "Jobs in an outbox that cannot be published, and stay there with their error.",
    ["database"],
    multiprocess_mode="livemax",
)
RELAY_PUBLISHED = Counter(
    "leveret_relay_published",
    "Jobs that a relay has published and deleted.",
    ["database"],
)
RELAY_BATCH = Histogram(
    "leveret_relay_batch_seconds",
    "Time from reading a batch of an outbox to its commit, confirms included.",
    ["database"],
    buckets=DURATION_BUCKETS,
)
HTTP_REQUESTS = Counter(
    "leveret_http_requests",
    "Requests that the HTTP API has answered.",
    ["method", "route", "status"],
)
HTTP_DURATION = Histogram(
    "leveret_http_request_duration_seconds",
    "Time from a request's headers to the end of its answer.",
    ["method", "route"],
)
SCHEDULER_IS_LEADER = Gauge(
    "leveret_scheduler_is_leader",
    "1 in the scheduler that has the lease, 0 in those that stand by.",
    multiprocess_mode="livemax",
)
SCHEDULER_LEASE = Gauge(
    "leveret_scheduler_lease_seconds",
    "Term of the scheduler's lease.",
    multiprocess_mode="livemax",
)
SCHEDULER_LEASE_REMAINING = Gauge(
    "leveret_scheduler_lease_remaining_seconds",
    "Time for which this scheduler may still act without renewing its lease; 0 without one.",
    multiprocess_mode="livemax",
)
SCHEDULER_LEASE_RENEWALS = Counter(
    "leveret_scheduler_lease_renewals",
    "Renewals of the lease: renewed, refused (it had ended), or failed (no answer).",
    ["outcome"],
)
SCHEDULE_LATENESS = Histogram(
    "leveret_schedule_lateness_seconds",
    "Time from when the job of a slot was due to when it was committed to the outbox.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
SCHEDULE_SLOTS = Counter(
    "leveret_schedule_slots",
    "Slots that were decided on: fired, skipped or queued.",
    ["schedule", "outcome"],
)
SCHEDULE_MISSED = Counter(
    "leveret_schedule_missed",
    "Slots that were skipped because they had passed while no scheduler led.",
    ["schedule"],
)
SCHEDULES = Gauge(
    "leveret_schedules",
    "Schedules, as the leader last counted them: active, paused, or ended (no slot is to come).",
    ["origin", "state"],
    multiprocess_mode="livemax",
)
CANARY_SECONDS = Gauge(
    "leveret_canary_seconds",
    "Time that the latest canary took, from when it was due to its success in the ledger.",
    multiprocess_mode="livemax",
)
CANARY_AGE = Gauge(
    "leveret_canary_age_seconds",
    "Time since the latest canary that succeeded was due; NaN when there are to be none.",
    multiprocess_mode="livemax",
)
SCHEDULE_GAPS = Gauge(
    "leveret_schedule_gaps",
    "Slots that are lost, as the last check of schedules found: passed over, or without their job.",
    multiprocess_mode="livemax",
)
# Only schedulers know these; 0 would be an answer.
for _unknown in (CANARY_SECONDS, CANARY_AGE, SCHEDULE_GAPS):
    _unknown.set(math.nan)
