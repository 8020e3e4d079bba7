"""Do schedules fire, once, in time? Leadership, lateness, slots, and the canary."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from compose.grafana.board import Row, board
from compose.grafana.panel import (
    COUNT,
    JOBS_RATE,
    QUANTILES,
    RATE,
    SECONDS,
    SHARE,
    Lights,
    Panel,
    Query,
    above,
    bars,
    below,
    heat_map,
    lines,
    number,
)
from compose.grafana.query import buckets, gauge, increase, quantile, rate, share, top, zero
from leveret import metrics
from leveret.housekeeping import BEAT


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return board(
        "scheduler",
        "Scheduler",
        "Whether one scheduler leads, schedules fire in time, and the jobs that wait in the broker "
        "come back when they are due.",
        [Row("", _numbers()), Row("Leadership", _leading()), Row("Slots and the canary", _slots())],
    )


def _numbers() -> list[Panel]:
    return [
        number(
            1,
            "Leaders",
            gauge(metrics.SCHEDULER_IS_LEADER, "sum"),
            means="Schedulers that have the lease. It must be exactly one.",
            do="None: no schedule fires; see whether a scheduler runs and reaches the database. "
            "Two, for longer than a term: they work on different databases.",
            lights=Lights(((None, "red"), (1, "green"), (2, "red"))),
            decimals=0,
        ),
        number(
            2,
            "Lease remaining",
            share(
                gauge(metrics.SCHEDULER_LEASE_REMAINING, "max"),
                gauge(metrics.SCHEDULER_LEASE, "max"),
            ),
            means="Share of its term for which the leader may act without renewing its lease. It "
            "renews at two thirds.",
            do="If it nears 0 the leader cannot reach the database; a standby takes over.",
            unit=SHARE,
            lights=below(0.15, 0.33),
            decimals=0,
        ),
        number(
            3,
            "Lateness, p99",
            quantile(0.99, metrics.SCHEDULE_LATENESS, over="$__range"),
            means="99 of 100 jobs of schedules were in the outbox this long after they were due.",
            do="Above a term: a change of leader. Longer: the database is slow or was away.",
            unit=SECONDS,
            lights=above(1, 10),
        ),
        number(
            4,
            "Slots missed",
            zero(increase(metrics.SCHEDULE_MISSED)),
            means="Slots that were skipped because they passed while no scheduler led, as their "
            "schedules' policies want it, in the time shown.",
            do="If one must not be missed: `leveret schedules backfill`.",
            lights=above(1, 10),
            decimals=0,
        ),
        number(
            5,
            "Gaps",
            gauge(metrics.SCHEDULE_GAPS, "max"),
            means="Slots that were lost without a decision, as the last check found.",
            do="That should never happen: `leveret audit` names them.",
            lights=above(None, 1),
            decimals=0,
        ),
        number(
            6,
            "Overdue jobs",
            gauge(metrics.JOBS_OVERDUE, "max"),
            means="Jobs that the ledger has as waiting though they were due a minute ago.",
            do="The delay wheel is stuck, or the recorder is behind: see *Broker and database*.",
            lights=above(1, 100),
            decimals=0,
            link="broker-and-database",
        ),
        number(
            7,
            "Canary's age",
            gauge(metrics.CANARY_AGE, "min"),
            means="Time since the last canary that came through was due. One is sent each minute.",
            do="Above two minutes: follow the way of a job, from *Slots* to *Ledger*.",
            unit=SECONDS,
            lights=above(120, 300),
            decimals=0,
        ),
        number(
            8,
            "Canary's trip",
            gauge(metrics.CANARY_SECONDS, "max"),
            means="Time that the last canary took from when it was due to its success in the "
            "ledger.",
            do="Less than a second is usual. If it grows, look where: outbox, queue, or ledger.",
            unit=SECONDS,
            lights=above(5, 30),
        ),
    ]


def _leading() -> list[Panel]:
    return [
        lines(
            10,
            "Who leads",
            Query(gauge(metrics.SCHEDULER_IS_LEADER, "max", "instance") + " > 0", "{{instance}}"),
            means="The scheduler that has the lease: a line for as long as it leads.",
            do="A line that ends where another begins is a takeover; a gap between them is time "
            "in which nothing fired.",
            unit=COUNT,
            most=1.2,
        ),
        lines(
            11,
            "Renewals of the lease",
            Query(rate(metrics.SCHEDULER_LEASE_RENEWALS, "outcome"), "{{outcome}}"),
            means="Renewals a second: `renewed`, `refused` (the lease had ended), `failed` (the "
            "database did not answer).",
            do="Any but `renewed`, again and again: look at the database, and at the machine's "
            "load.",
            unit=RATE,
            stacked=True,
            colors={"renewed": "green", "refused": "orange", "failed": "red"},
        ),
    ]


def _slots() -> list[Panel]:
    return [
        lines(
            20,
            "Slots, by what was decided",
            Query(rate(metrics.SCHEDULE_SLOTS, "outcome"), "{{outcome}}"),
            means="Slots of schedules that were fired, skipped or queued, a second.",
            do="`skipped` and `queued` come from the policies for overlap and missed runs: a job "
            "that takes longer than its schedule's interval.",
            unit=JOBS_RATE,
            stacked=True,
            colors={"fired": "green", "skipped": "orange", "queued": "blue"},
        ),
        lines(
            21,
            "Lateness",
            *(
                Query(quantile(q, metrics.SCHEDULE_LATENESS), name)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            means="Time from when the job of a slot was due to its commit to the outbox.",
            do="A peak is a takeover. A plateau is a slow database, or too many schedules for one "
            "process.",
            unit=SECONDS,
            colors=QUANTILES,
            logarithmic=True,
        ),
        heat_map(
            22,
            "Lateness, spread",
            buckets(metrics.SCHEDULE_LATENESS),
            means="How many jobs of schedules a second were so late.",
            do="All should be in the lowest rows.",
        ),
        lines(
            23,
            "The canary's trip, and its queue",
            Query(gauge(metrics.CANARY_SECONDS, "max"), "whole way"),
            Query(
                quantile(0.99, metrics.JOB_QUEUE_TIME, over="5m", actor=BEAT),
                "in queue, p99",
            ),
            means="Time of the last canary for its whole way, and in its queue alone.",
            do="If the queue explains it, the pool of its queue is full; if not, look at outbox "
            "and ledger.",
            unit=SECONDS,
            logarithmic=True,
        ),
        lines(
            24,
            "Overdue",
            Query(gauge(metrics.JOBS_OVERDUE_OLDEST, "max"), "oldest"),
            means="How long ago the oldest overdue job was due; 0 when none is.",
            do="Growing: jobs do not come back from the delay wheel, or the recorder is behind.",
            unit=SECONDS,
            at_least=60,
        ),
        bars(
            25,
            "Schedules",
            Query(gauge(metrics.SCHEDULES, "max", "origin", "state"), "{{state}}, {{origin}}"),
            means="Schedules as the leader counted them: from code or the API, active, paused, or "
            "ended.",
            do="A paused one that nobody remembers: `leveret schedules list`.",
            unit=COUNT,
            width=6,
        ),
        bars(
            26,
            "Busiest schedules",
            Query(
                top(6, increase(metrics.SCHEDULE_SLOTS, "schedule", outcome="fired")),
                "{{schedule}}",
            ),
            means="Slots that were fired in the time shown.",
            do="Compare with their intervals.",
            unit=COUNT,
            width=6,
        ),
    ]
