"""What a worker counts of the jobs that it settles, with the trace of the latest beside it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from leveret import metrics
from leveret.exemplars import exemplar_of
from leveret.message import job_time
from leveret.outcome import Retry, Succeeded
from leveret.worker.records import event_of

if TYPE_CHECKING:
    from prometheus_client import Counter

    from leveret.outcome import Outcome
    from leveret.worker.delivery import Delivery

__all__ = ["Counts"]


class _Series:
    """The metrics of one actor on one queue; finding them by their labels costs more than to count.

    ``actor`` and ``queue`` are of those that this worker has, so there are only so many.
    """

    def __init__(self, actor: str, queue: str) -> None:
        self._labels = (actor, queue)
        self.duration = metrics.JOB_DURATION.labels(actor, queue)
        self.queue_time = metrics.JOB_QUEUE_TIME.labels(actor, queue)
        self.settlement = metrics.SETTLEMENT.labels(queue)
        self._jobs: dict[str, Counter] = {}

    def jobs(self, outcome: str) -> Counter:
        """Return the counter of runs that led to ``outcome``."""
        counter = self._jobs.get(outcome)
        if counter is None:
            counter = self._jobs[outcome] = metrics.JOBS.labels(*self._labels, outcome)
        return counter

    def retried(self) -> None:
        """Count a retry."""
        metrics.RETRIES.labels(*self._labels).inc()


class Counts:
    """Counts settled deliveries. For the IO thread."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], _Series] = {}

    def settled(
        self, delivery: Delivery, outcome: Outcome, *, actor: str, duration: float | None
    ) -> None:
        """Count a delivery whose fate is safe; ``duration`` is that of its run, if it had one."""
        labels = (actor, delivery.session.queue)
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series(*labels)
        job = delivery.job
        trace = None
        if job is not None and job.traceparent is not None:
            trace = exemplar_of(job.traceparent)
        counter = series.jobs(event_of(outcome))
        # Who looks at successes looks at how long they took.
        counter.inc(exemplar=None if isinstance(outcome, Succeeded) else trace)
        if isinstance(outcome, Retry):
            series.retried()
        if duration is None or delivery.started_at is None or delivery.ended_at is None:
            return
        series.duration.observe(duration, trace)
        wanted = _wanted_at(delivery)
        if wanted is not None:
            series.queue_time.observe(max(0.0, delivery.started_at - wanted), trace)
        series.settlement.observe(max(0.0, time.time() - delivery.ended_at))


def _wanted_at(delivery: Delivery) -> float | None:
    """Return the moment from which a job waited, in seconds since 1970, if the message says it."""
    job = delivery.job
    if job is None:
        return None
    if job.due_at is not None:
        return job.due_at.timestamp()
    if job.run > 0:  # a replay: its id and its timestamp are those of the first publish
        return None
    made = job_time(job.id)
    if made is None and isinstance(delivery.properties.timestamp, int):
        made = float(delivery.properties.timestamp)
    return made
