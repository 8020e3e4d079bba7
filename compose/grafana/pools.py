"""Do the workers keep up? Threads, what they are busy with, and what waits for them."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from compose.grafana.board import QUEUE, Row, board
from compose.grafana.panel import (
    COUNT,
    JOBS_RATE,
    QUANTILES,
    RATE,
    SECONDS,
    SHARE,
    Panel,
    Query,
    above,
    bars,
    below,
    heat_map,
    lines,
    number,
    queue_colors,
)
from compose.grafana.query import (
    Like,
    broker,
    buckets,
    gauge,
    increase,
    quantile,
    rate,
    recorded,
    share,
    zero,
)
from leveret import metrics

#: Only workers have threads; the other processes show the gauge as 0.
_POOLS = Like(".+")
#: What does not end a job.
_COMES_BACK = Like("retrying|snoozed|quarantined", negated=True)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return board(
        "pools",
        "Pools",
        "Whether each worker pool keeps up with its queues, and what keeps it from doing so.",
        [Row("", _numbers()), Row("Load", _load()), Row("Runs", _runs())],
        variables=[QUEUE],
    )


def _numbers() -> list[Panel]:
    return [
        number(
            1,
            "Threads",
            gauge(metrics.WORKER_THREADS, "sum"),
            means="Worker threads of all pools: as many jobs can run at once.",
            do="If it fell without a deploy, processes are missing: see *Restarts*, and your "
            "orchestrator.",
            decimals=0,
            lights=above(None, 1e9),
        ),
        number(
            2,
            "Busy",
            share(gauge(metrics.JOBS_IN_PROGRESS, "sum"), gauge(metrics.WORKER_THREADS, "sum")),
            means="Share of the threads of all pools that run a job.",
            do="Near 100 % with a backlog that grows: add workers to the pool that is full.",
            unit=SHARE,
            decimals=0,
            lights=above(0.8, 0.95),
        ),
        number(
            3,
            "Running",
            gauge(metrics.JOBS_IN_PROGRESS, "sum"),
            means="Jobs that run now.",
            do="Nothing by itself.",
            decimals=0,
        ),
        number(
            4,
            "Prefetched",
            gauge(metrics.JOBS_PREFETCHED, "sum"),
            means="Deliveries that workers hold and have not started: no other worker can take "
            "them.",
            do="If these wait while other workers are idle, lower LEVERET_PREFETCH of the pool.",
            decimals=0,
        ),
        number(
            5,
            "Jobs waiting",
            f"sum({recorded('leveret:backlog_waiting_jobs', queue='$queue')})",
            means="Jobs in the chosen queues that no worker holds.",
            do="Compare with *Time to drain*: many quick jobs are no trouble, few long ones are.",
            decimals=0,
            lights=above(1000, 10000),
        ),
        number(
            6,
            "Time to drain",
            f"max({recorded('leveret:backlog_seconds', queue='$queue')})",
            means="How long the fullest of the chosen queues takes to empty at its pace.",
            do="Add workers if it exceeds what the queue's users can wait for.",
            unit=SECONDS,
            lights=above(60, 600),
        ),
        number(
            7,
            "Restarts",
            zero(increase(metrics.WORKER_RESTARTS)),
            means="Worker processes that died and were started again, in the time shown.",
            do="Look for `worker.died` in the logs: out of memory, or a crash in native code. A "
            "job that kills twice goes to quarantine, and then is a dead letter.",
            decimals=0,
            lights=above(1, 5),
        ),
        number(
            8,
            "Settlement, p99",
            quantile(0.99, metrics.SETTLEMENT, queue="$queue"),
            means="Time from the end of a run until what follows from it is safe in the broker.",
            do="If it grows, the broker confirms slowly: see *Broker and database*.",
            unit=SECONDS,
            lights=above(0.5, 5),
            link="broker-and-database",
        ),
    ]


def _load() -> list[Panel]:
    return [
        lines(
            10,
            "Busy threads, by pool",
            Query(
                share(
                    gauge(metrics.JOBS_IN_PROGRESS, "sum", "pool", pool=_POOLS),
                    gauge(metrics.WORKER_THREADS, "sum", "pool", pool=_POOLS),
                ),
                "{{pool}}",
            ),
            means="Share of each pool's threads that run a job.",
            do="A pool at 100 % for long is full: scale it. One at 0 % with a backlog does not "
            "consume: look at its log and at *Consumers*.",
            unit=SHARE,
            most=1,
            lights=above(None, 0.95),
        ),
        lines(
            11,
            "Jobs waiting, by queue",
            Query(recorded("leveret:backlog_waiting_jobs", queue="$queue"), "{{queue}}"),
            means="Jobs that no worker holds, in the broker's count.",
            do="A saw-tooth is a schedule or a batch. A line that only rises needs workers.",
            unit=COUNT,
            colors=queue_colors(),
        ),
        lines(
            12,
            "Published and done",
            Query(rate(metrics.JOBS_PUBLISHED), "published"),
            Query(rate(metrics.JOBS, outcome=_COMES_BACK), "done"),
            means="Jobs that our own processes published, a second, and jobs that came to their "
            "end, of all queues. What others publish by AMQP is not in it.",
            do="While less is done than published, a backlog grows.",
            unit=JOBS_RATE,
            colors={"published": "blue", "done": "green"},
        ),
        bars(
            13,
            "Consumers, by queue",
            Query(
                "sum by (queue) (label_replace("
                + broker("rabbitmq_queue_consumers", queue=Like(r"leveret\\.[^.]+"))
                + r', "queue", "$1", "queue", "leveret\\.(.+)"))',
                "{{queue}}",
            ),
            means="Worker processes that take jobs from each queue now; the recorder takes from "
            "`ledger` and `unroutable`.",
            do="0 means that nothing runs the jobs of a queue: start its pool.",
            unit=COUNT,
            lights=below(1, 1),
            width=12,
        ),
    ]


def _runs() -> list[Panel]:
    return [
        lines(
            20,
            "Time of runs",
            *(
                Query(quantile(q, metrics.JOB_DURATION, queue="$queue"), name, exemplars=q == 0.99)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            means="How long runs take in the chosen queues. Points are single jobs, with a trace.",
            do="If it rises, jobs became slower, and the same threads drain less: see *Actor*.",
            unit=SECONDS,
            colors=QUANTILES,
            logarithmic=True,
        ),
        heat_map(
            21,
            "Time in queue, spread",
            buckets(metrics.JOB_QUEUE_TIME, queue="$queue"),
            means="How many runs a second began after waiting so long.",
            do="A second band high up is one queue, or one kind of job, that waits: choose it "
            "above.",
        ),
        lines(
            22,
            "Runs, by queue",
            Query(rate(metrics.JOBS, "queue", queue="$queue"), "{{queue}}"),
            means="Runs that were settled, a second.",
            do="Nothing, if it follows what is published.",
            unit=JOBS_RATE,
            stacked=True,
            colors=queue_colors(),
        ),
        lines(
            23,
            "What goes wrong in workers",
            Query(zero(rate(metrics.WORKER_RESTARTS)), "processes restarted"),
            Query(zero(rate(metrics.SETTLEMENTS_VOID)), "settlements void"),
            Query(zero(rate(metrics.REDELIVERIES_ADOPTED)), "redeliveries adopted"),
            Query(zero(rate(metrics.BROKER_CONNECTIONS_LOST, pool=_POOLS)), "connections lost"),
            means="Processes that died; runs whose delivery was gone when they ended, so that they "
            "run again; redeliveries that a run which still went on took over; connections to the "
            "broker that were lost.",
            do="All of them together are a restart of the broker or a cut in the network. Restarts "
            "alone are a job that kills its worker.",
            unit=RATE,
        ),
    ]
