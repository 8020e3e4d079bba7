"""One actor: how often it runs, how long it takes, and how it ends."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from compose.grafana.board import ACTOR, Row, board
from compose.grafana.panel import (
    COUNT,
    JOBS_RATE,
    OUTCOMES,
    QUANTILES,
    SECONDS,
    SHARE,
    TO_ACTOR,
    Column,
    Panel,
    Query,
    above,
    bars,
    below,
    heat_map,
    lines,
    number,
    rows,
)
from compose.grafana.query import (
    Like,
    buckets,
    increase,
    mean,
    quantile,
    rate,
    share,
    zero,
)
from leveret import metrics

_ENDED = Like("succeeded|dead|expired|cancelled")
_FAILED = Like("retrying|dead|quarantined")


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return board(
        "actor",
        "Actor",
        "One kind of job: its rate, its errors, its times. Choose the actor above, or in the table "
        "at the end.",
        [Row("", _numbers()), Row("$actor", _details()), Row("All actors", [_everyone()])],
        variables=[ACTOR],
    )


def _numbers() -> list[Panel]:
    return [
        number(
            1,
            "Runs",
            rate(metrics.JOBS, actor="$actor"),
            means="Runs that were settled, a second: each attempt counts.",
            do="Nothing by itself.",
            unit=JOBS_RATE,
            width=4,
        ),
        number(
            2,
            "Succeed in the end",
            share(
                increase(metrics.JOBS, actor="$actor", outcome="succeeded"),
                increase(metrics.JOBS, actor="$actor", outcome=_ENDED),
            ),
            means="Of the jobs that came to their end in the time shown, those that succeeded.",
            do="What is missing is dead, expired or cancelled: see below which.",
            unit=SHARE,
            lights=below(0.95, 0.99),
            decimals=1,
            width=4,
        ),
        number(
            3,
            "Runs that fail",
            share(
                rate(metrics.JOBS, actor="$actor", outcome=_FAILED),
                rate(metrics.JOBS, actor="$actor"),
            ),
            means="Share of runs that failed, whether they are tried again or not.",
            do="Read the errors: `leveret jobs list --actor` … `--state retrying`.",
            unit=SHARE,
            lights=above(0.05, 0.2),
            decimals=1,
            width=4,
        ),
        number(
            4,
            "Time of a run, p95",
            quantile(0.95, metrics.JOB_DURATION, actor="$actor"),
            means="19 of 20 runs take less.",
            do="Compare with the actor's time limit; what exceeds it is ended and tried again.",
            unit=SECONDS,
            width=4,
        ),
        number(
            5,
            "Time in queue, p99",
            quantile(0.99, metrics.JOB_QUEUE_TIME, actor="$actor"),
            means="99 of 100 of its jobs began within this time.",
            do="If it is long while runs are short, its queue is full of others: see *Pools*.",
            unit=SECONDS,
            lights=above(30, 300),
            link="pools",
            width=4,
        ),
        number(
            6,
            "Dead letters",
            zero(increase(metrics.DEAD_LETTERS, actor="$actor")),
            means="Dead letters of this actor that were stored in the time shown.",
            do="`leveret dead groups --actor` … lists them by cause.",
            lights=above(1, 50),
            decimals=0,
            link="dead-letters",
            width=4,
        ),
    ]


def _details() -> list[Panel]:
    return [
        lines(
            10,
            "Runs by what they led to",
            Query(rate(metrics.JOBS, "outcome", actor="$actor"), "{{outcome}}"),
            means="Runs that were settled, a second, stacked by outcome.",
            do="A step from green to yellow dates the fault: look what changed then; deploys are "
            "marked.",
            unit=JOBS_RATE,
            stacked=True,
            colors=OUTCOMES,
        ),
        lines(
            11,
            "Time of runs",
            *(
                Query(quantile(q, metrics.JOB_DURATION, actor="$actor"), name, exemplars=q == 0.99)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            means="How long its runs take. Points are single jobs, with their trace.",
            do="If all lines rise, what it calls became slow; if only p99 does, look at the inputs "
            "of the slowest jobs.",
            unit=SECONDS,
            colors=QUANTILES,
            logarithmic=True,
        ),
        heat_map(
            12,
            "Time of runs, spread",
            buckets(metrics.JOB_DURATION, actor="$actor"),
            means="How many runs a second took so long.",
            do="Two bands are two kinds of work; a band at the time limit is what is cut off.",
        ),
        lines(
            13,
            "Time in queue",
            *(
                Query(
                    quantile(q, metrics.JOB_QUEUE_TIME, actor="$actor"), name, exemplars=q == 0.99
                )
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            means="Time from when its jobs were published, or due, to the start of their run.",
            do="It is that of its queue: see *Pools*.",
            unit=SECONDS,
            colors=QUANTILES,
            logarithmic=True,
        ),
        lines(
            14,
            "Retries",
            Query(zero(rate(metrics.RETRIES, actor="$actor")), "retries"),
            means="Retries that were published, a second.",
            do="Retries that pass away are what they are for. Those that stay end as dead letters.",
            unit=JOBS_RATE,
        ),
        bars(
            15,
            "Dead letters by reason",
            Query(increase(metrics.DEAD_LETTERS, "reason", actor="$actor"), "{{reason}}"),
            means="Dead letters of this actor that were stored in the time shown.",
            do="`exhausted` is worth a replay once the cause is mended; `refused` is the actor's "
            "own decision, and `bad-arguments` needs its publisher mended.",
            unit=COUNT,
            lights=above(1, 50),
            width=12,
        ),
    ]


def _everyone() -> Panel:
    return rows(
        20,
        "Actors",
        Query(rate(metrics.JOBS, "actor", over="$__range")),
        Query(
            share(
                rate(metrics.JOBS, "actor", over="$__range", outcome=_FAILED),
                rate(metrics.JOBS, "actor", over="$__range"),
            )
        ),
        Query(mean(metrics.JOB_DURATION, "actor", over="$__range")),
        Query(quantile(0.95, metrics.JOB_DURATION, "actor", over="$__range")),
        Query(quantile(0.95, metrics.JOB_QUEUE_TIME, "actor", over="$__range")),
        columns=[
            Column("actor", "Actor", link=TO_ACTOR),
            Column("Value #A", "Runs", unit=JOBS_RATE),
            Column("Value #B", "Fail", unit=SHARE, lights=above(0.05, 0.2)),
            Column("Value #C", "Mean time", unit=SECONDS),
            Column("Value #D", "p95 time", unit=SECONDS),
            Column("Value #E", "p95 in queue", unit=SECONDS, lights=above(30, 300)),
        ],
        means="Every actor that ran in the time shown.",
        do="Sort by a column; a click on a name opens that actor above.",
        sort="Runs",
        width=24,
        height=8,
    )
