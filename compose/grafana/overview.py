"""Is anything wrong? The page that an alert leads to, and that hangs on the wall."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from compose.grafana.board import QUEUE, Row, board
from compose.grafana.panel import (
    COUNT,
    JOBS_RATE,
    OUTCOMES,
    QUANTILES,
    SECONDS,
    SEVERITIES,
    SHARE,
    STATES,
    TO_RUNBOOK,
    Column,
    Panel,
    Query,
    above,
    bars,
    below,
    lines,
    number,
    queue_colors,
    rows,
)
from compose.grafana.query import (
    Like,
    alerts,
    gauge,
    increase,
    quantile,
    rate,
    recorded,
    share,
    top,
    zero,
)
from leveret import metrics

_FAILED = Like("retrying|dead|quarantined")
_LATE = "leveret:queue_time_late:ratio_rate"
#: One job in a hundred may begin later than its queue's objective.
_BUDGET = 0.01


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return board(
        "overview",
        "Overview",
        "Whether jobs get through, in time: begin here. Each number has its traffic light, and a "
        "click on it leads to the dashboard with the details.",
        [Row("", _numbers()), Row("Work", _work()), Row("Waiting", _waiting())],
        variables=[QUEUE],
    )


def _numbers() -> list[Panel]:
    return [
        number(
            1,
            "Alerts firing",
            zero(
                'count(count by (alertname) (ALERTS{alertstate="firing", alertname=~"Leveret.*"}))'
            ),
            means="Alerts of Leveret's rules that fire now.",
            do="Read which below, and open the runbook of each.",
            lights=above(None, 1),
            decimals=0,
        ),
        number(
            2,
            "Runs",
            zero(rate(metrics.JOBS, queue="$queue")),
            means="Runs of jobs that were settled, a second: each attempt counts.",
            do="Nothing, if it follows the load. If it falls while the backlog grows, see *Pools*.",
            unit=JOBS_RATE,
            link="pools",
        ),
        number(
            3,
            "Runs that fail",
            share(
                rate(metrics.JOBS, queue="$queue", outcome=_FAILED),
                rate(metrics.JOBS, queue="$queue"),
            ),
            means="Share of runs that failed, whether they are tried again or the job is dead.",
            do="Find the actor under *Retries* below; its dashboard tells since when.",
            unit=SHARE,
            lights=above(0.05, 0.2),
            decimals=1,
            link="actor",
        ),
        number(
            4,
            "Time in queue, p99",
            quantile(0.99, metrics.JOB_QUEUE_TIME, queue="$queue"),
            means="99 of 100 jobs began within this time from when they were published, or due.",
            do="Compare with the objective of each queue below. If it grows, see *Pools*.",
            unit=SECONDS,
            lights=above(30, 300),
            link="pools",
        ),
        number(
            5,
            "Time to drain",
            f"max({recorded('leveret:backlog_seconds', queue='$queue')})",
            means="How long the fullest queue takes to empty if nothing more comes, at the pace "
            "of the last five minutes. Infinite while jobs wait and none ends.",
            do="Add workers to that queue's pool if it grows for longer than its objective allows.",
            unit=SECONDS,
            lights=above(60, 600),
            link="pools",
        ),
        number(
            6,
            "Budget left, 3 days",
            f"1 - max({recorded(_LATE + '3d', queue='$queue')}) / {_BUDGET}",
            means="Share of the worst queue's error budget that the last three days have left: one "
            "job in a hundred may begin late.",
            do="Below 0 the objective is missed: look for the hour under *Time in queue*.",
            unit=SHARE,
            lights=below(0.0001, 0.25),
            decimals=0,
        ),
        number(
            7,
            "Dead letters open",
            gauge(metrics.DEAD_LETTERS_OPEN, "max"),
            means="Jobs that are dead and that nobody has replayed or discarded.",
            do="Read the groups (`leveret dead groups`), mend the cause, replay or discard them.",
            lights=above(1, 100),
            decimals=0,
            link="dead-letters",
        ),
        number(
            8,
            "Canary",
            gauge(metrics.CANARY_AGE, "min"),
            means="Time since the last job that was sent the whole way, scheduler to ledger, and "
            "came through. One is sent each minute.",
            do="Above two minutes no job may get through at all: open *Scheduler*.",
            unit=SECONDS,
            lights=above(120, 300),
            decimals=0,
            link="scheduler",
        ),
    ]


def _work() -> list[Panel]:
    return [
        lines(
            10,
            "Runs by what they led to",
            Query(rate(metrics.JOBS, "outcome", queue="$queue"), "{{outcome}}"),
            means="Runs that were settled, a second, stacked by outcome.",
            do="Green should be nearly all of it. Yellow comes back as another attempt; red is "
            "lost to its publisher until somebody replays it.",
            unit=JOBS_RATE,
            stacked=True,
            colors=OUTCOMES,
        ),
        lines(
            11,
            "Runs that fail, by queue",
            Query(
                share(
                    rate(metrics.JOBS, "queue", queue="$queue", outcome=_FAILED),
                    rate(metrics.JOBS, "queue", queue="$queue"),
                ),
                "{{queue}}",
            ),
            means="Share of each queue's runs that failed.",
            do="A step in one queue is an actor or what it calls; a step in all is a deploy, the "
            "broker or the database.",
            unit=SHARE,
            lights=above(None, 0.2),
            colors=queue_colors(),
        ),
        lines(
            12,
            "Retries",
            Query(top(8, rate(metrics.RETRIES, "actor", queue="$queue")), "{{actor}}"),
            means="Retries that were published, a second: the actors with the most.",
            do="Open the actor. If what it calls is away, its retries wait in the broker and need "
            "nothing; a storm that takes the threads of others is in the runbook *jobs*.",
            unit=JOBS_RATE,
        ),
        rows(
            13,
            "Alerts",
            Query(alerts()),
            columns=[
                Column("severity", "Severity", colors=SEVERITIES, width=90),
                Column("alertname", "Alert"),
                Column("alertstate", "State", colors=STATES, width=90),
                Column("runbook", "Runbook", link=TO_RUNBOOK, width=120),
            ],
            means="Alerts of Leveret's rules: pending ones hold, but not yet for long enough.",
            do="Open the runbook: it has a section with the name of each alert.",
            sort="Severity",
            descending=False,
        ),
    ]


def _waiting() -> list[Panel]:
    return [
        lines(
            20,
            "Time in queue",
            *(
                Query(
                    quantile(q, metrics.JOB_QUEUE_TIME, queue="$queue"),
                    name,
                    exemplars=name == "p99",
                )
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            means="Time from when jobs were published, or due, to the start of their run. Points "
            "are single jobs, with their trace.",
            do="If p50 rises, all jobs wait: add workers. If only p99 does, look for one queue.",
            unit=SECONDS,
            colors=QUANTILES,
            logarithmic=True,
        ),
        lines(
            21,
            "Time in queue, p99 by queue, and its objective",
            Query(quantile(0.99, metrics.JOB_QUEUE_TIME, "queue", queue="$queue"), "{{queue}}"),
            Query(
                recorded("leveret:queue_time_objective_seconds", queue="$queue"),
                "{{queue}}: objective",
            ),
            means="99 of 100 jobs of a queue should begin within its objective, the dashed line.",
            do="Above its line a queue uses up its budget. See *Pools* for why it waits.",
            unit=SECONDS,
            colors=queue_colors("", ": objective"),
            dashed=[".*objective"],
            logarithmic=True,
        ),
        lines(
            22,
            "Time to drain, by queue",
            Query(recorded("leveret:backlog_seconds", queue="$queue"), "{{queue}}"),
            means="How long each queue takes to empty at its pace of the last five minutes.",
            do="A line that rises without end has too few workers, or workers that hang.",
            unit=SECONDS,
            logarithmic=True,
            linear_below=1,
            colors=queue_colors(),
        ),
        lines(
            23,
            "How fast the budget burns",
            Query(
                f"{recorded(_LATE + '1h', queue='$queue')} / {_BUDGET}",
                "{{queue}}, 1 h",
            ),
            Query(
                f"{recorded(_LATE + '5m', queue='$queue')} / {_BUDGET}",
                "{{queue}}, 5 min",
            ),
            means="1 uses up the budget exactly as fast as it comes; 14.4, dashed, uses up that of "
            "a month in two days. An alert fires when both windows are above it.",
            do="If only the short window is high, it has just begun; if only the long one, it is "
            "over.",
            unit=COUNT,
            lights=above(6, 14.4),
            at_least=16,
            colors=queue_colors(", 1 h", ", 5 min"),
            dashed=[".*, 5 min"],
        ),
        bars(
            24,
            "Dead letters by actor",
            Query(
                top(8, increase(metrics.DEAD_LETTERS, "actor")),
                "{{actor}}",
            ),
            means="Dead letters that were stored in the time shown, of the actors with the most.",
            do="Open *Dead letters* for their reasons.",
            unit=COUNT,
            lights=above(1, 50),
            width=12,
            height=5,
        ),
        bars(
            25,
            "Budget left, 3 days, by queue",
            Query(f"1 - {recorded(_LATE + '3d', queue='$queue')} / {_BUDGET}", "{{queue}}"),
            means="Share of each queue's error budget that the last three days have left.",
            do="A queue at 0 has missed its objective: give its pool more workers, or the queue "
            "another objective.",
            unit=SHARE,
            lights=below(0.0001, 0.25),
            most=1,
            width=12,
            height=5,
        ),
    ]
