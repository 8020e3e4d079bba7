"""What everything stands on: RabbitMQ, the way in and out of it, and PostgreSQL."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from compose.grafana.board import Row, board
from compose.grafana.panel import (
    BYTES,
    COUNT,
    QUANTILES,
    RATE,
    SECONDS,
    SHARE,
    Lights,
    Panel,
    Query,
    above,
    lines,
    number,
)
from compose.grafana.query import (
    Like,
    broker,
    gauge,
    increase,
    quantile,
    rate,
    share,
    zero,
)
from leveret import metrics

_UP = Lights(((None, "red"), (1, "green")))
_WHEEL = Like(r"leveret\\.delay\\..+")


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return board(
        "broker-and-database",
        "Broker and database",
        "RabbitMQ and PostgreSQL, and what stands between them and jobs: publishers, the API, "
        "outbox, ledger.",
        [
            Row("", _numbers()),
            Row("RabbitMQ", _broker()),
            Row("API, outbox and ledger", _ways()),
            Row("PostgreSQL", _database()),
        ],
    )


def _numbers() -> list[Panel]:
    return [
        number(
            1,
            "Broker",
            'min(up{job=~".*rabbitmq.*"})',
            means="Whether every node of RabbitMQ answers Prometheus.",
            do="Jobs that were accepted are safe on its disk; publishers wait or fail with a clear "
            "error. Start it; runbook *broker*.",
            lights=_UP,
            words={"0": "down", "1": "up"},
        ),
        number(
            2,
            "Alarms",
            f"max({broker('rabbitmq_alarms_memory_used_watermark')})"
            f" + max({broker('rabbitmq_alarms_free_disk_space_watermark')})",
            means="Kinds of alarms that RabbitMQ has raised: memory, disk. While there is one, it "
            "takes no more messages.",
            do="Runbook *broker*: make room; workers go on and empty the queues.",
            lights=above(None, 1),
            decimals=0,
        ),
        number(
            3,
            "Confirm, p99",
            quantile(0.99, metrics.PUBLISH_CONFIRM),
            means="Time until the broker confirms a published job: then it is safe on disk.",
            do="Rising: a slow disk under the broker, or more than it can write.",
            unit=SECONDS,
            lights=above(0.5, 5),
        ),
        number(
            4,
            "Publish failures",
            zero(increase(metrics.PUBLISH_FAILURES)),
            means="Jobs that one of our processes could not publish, in the time shown. The outbox "
            "keeps its jobs and tries again.",
            do="See *Publishing that fails* for the reason.",
            lights=above(1, 100),
            decimals=0,
        ),
        number(
            5,
            "Database",
            gauge(metrics.DATABASE_UP, "min"),
            means="Whether every scheduler can ask the database.",
            do="Jobs go on without it, but for `once` jobs, schedules and the HTTP API. Runbook "
            "*ledger*.",
            lights=_UP,
            words={"0": "down", "1": "up"},
        ),
        number(
            6,
            "Connections",
            share(
                gauge(metrics.DATABASE_CONNECTIONS, "max"),
                gauge(metrics.DATABASE_CONNECTIONS_LIMIT, "max"),
            ),
            means="Share of PostgreSQL's connections that are taken.",
            do="Near the limit, processes cannot start: fewer processes, smaller pools of "
            "connections, or a pooler.",
            unit=SHARE,
            lights=above(0.7, 0.9),
            decimals=0,
        ),
        number(
            7,
            "Outbox, oldest",
            gauge(metrics.OUTBOX_OLDEST, "max"),
            means="Age of the oldest job in an outbox that could be published now.",
            do="Growing: no relay runs, or it cannot publish. Runbook *ledger*.",
            unit=SECONDS,
            lights=above(10, 60),
        ),
        number(
            8,
            "Ledger's lag",
            gauge(metrics.LEDGER_LAG, "max"),
            means="Age of the oldest event that the recorder holds and has not written.",
            do="Jobs are not held up by it; what the API and the pages show is as old as this.",
            unit=SECONDS,
            lights=above(10, 60),
        ),
    ]


def _broker() -> list[Panel]:
    return [
        lines(
            10,
            "Messages, by kind of queue",
            Query(_messages(Like(r"leveret\\.(quarantine\\.)?[^.]+")), "work and ledger"),
            Query(_messages(_WHEEL), "waiting in the delay wheel"),
            Query(_messages(Like(r"leveret\\.(dead\\..+|unroutable)")), "dead, not recorded"),
            means="Messages in RabbitMQ. Jobs that wait for a retry or a wanted time are in the "
            "delay wheel.",
            do="Memory and disk follow this. A wheel that only fills is stuck: see *Overdue* in "
            "*Scheduler*.",
            unit=COUNT,
        ),
        lines(
            11,
            "How near an alarm is",
            Query(
                f"max({broker('rabbitmq_process_resident_memory_bytes')}"
                f" / {broker('rabbitmq_resident_memory_limit_bytes')})",
                "memory: used / limit",
            ),
            Query(
                f"max({broker('rabbitmq_disk_space_available_limit_bytes')}"
                f" / {broker('rabbitmq_disk_space_available_bytes')})",
                "disk: limit / free",
            ),
            means="At 100 % RabbitMQ raises an alarm and takes no more messages. Of the node that "
            "is nearest.",
            do="Before a line reaches the dashed one: drain queues, or give the node more.",
            unit=SHARE,
            lights=above(0.7, 1),
            at_least=1.05,
        ),
        lines(
            12,
            "Time to confirm",
            *(
                Query(quantile(q, metrics.PUBLISH_CONFIRM), name, exemplars=q == 0.99)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            means="Time from giving a job to the publisher to the broker's confirm.",
            do="All lines up: the broker's disk. Only p99: bursts, or a node that restarts.",
            unit=SECONDS,
            colors=QUANTILES,
            logarithmic=True,
        ),
        lines(
            13,
            "Publishing that fails",
            Query(zero(rate(metrics.PUBLISH_FAILURES)), "failures"),
            Query(zero(rate(metrics.BROKER_CONNECTIONS_LOST)), "connections lost"),
            Query(gauge(metrics.BROKER_BLOCKED, "sum"), "processes blocked"),
            means="Publishes that failed and connections that were lost, a second; processes whose "
            "connection the broker blocks because of an alarm.",
            do="Connections of all processes at once: the broker or the network. Blocked: an "
            "alarm.",
            unit=RATE,
            at_least=1,
        ),
    ]


def _messages(queue: Like) -> str:
    return f"sum(max by (vhost, queue) ({broker('rabbitmq_queue_messages', queue=queue)}))"


def _ways() -> list[Panel]:
    return [
        lines(
            24,
            "HTTP API, by status",
            Query(rate(metrics.HTTP_REQUESTS, "status"), "{{status}}"),
            means="Requests that the API has answered, a second, by status.",
            do="5xx is ours: 503 says that the broker or the database is away. 429 is a client "
            "that asks too often, 401 one with an old key.",
            unit=RATE,
            stacked=True,
            colors={
                "200": "green",
                "202": "blue",
                "404": "orange",
                "500": "red",
                "503": "dark-red",
            },
        ),
        lines(
            25,
            "HTTP API, time of answers",
            *(
                Query(quantile(q, metrics.HTTP_DURATION), name)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            means="Time from a request's headers to the end of its answer.",
            do="All calls write to the database or read from it: see its panels below.",
            unit=SECONDS,
            colors=QUANTILES,
            logarithmic=True,
        ),
        lines(
            20,
            "Outbox",
            Query(rate(metrics.RELAY_PUBLISHED), "published, per second"),
            Query(gauge(metrics.OUTBOX_PENDING, "max"), "pending"),
            Query(gauge(metrics.OUTBOX_FAILED, "max"), "failed"),
            means="Jobs that relays have published a second, those that wait to be, and those that "
            "cannot be published and stay with their error.",
            do="Pending that grows: start a relay, or see why it cannot publish. Failed: their "
            "error is in the table `leveret_outbox`.",
            unit=COUNT,
        ),
        lines(
            21,
            "Ledger",
            Query(rate(metrics.LEDGER_EVENTS, "kind"), "{{kind}}"),
            means="Events that the recorder has written, a second, by what happened.",
            do="If it is flat at its highest while the queue of the ledger grows, the database "
            "is the limit.",
            unit=RATE,
            stacked=True,
        ),
        lines(
            22,
            "Queue of the ledger",
            Query(_messages(Like(r"leveret\\.ledger")), "events"),
            means="Events in the broker that the recorder has not written. At its bound the queue "
            "drops the oldest: history, never a job.",
            do="If it grows: see whether the recorder runs, and the database.",
            unit=COUNT,
        ),
        lines(
            23,
            "Time of transactions, p95",
            Query(quantile(0.95, metrics.LEDGER_BATCH_SECONDS), "recorder"),
            Query(quantile(0.95, metrics.RELAY_BATCH), "relay"),
            means="Time that the recorder's and the relay's transactions take; the relay's has "
            "the broker's confirms in it.",
            do="Both up: the database. Only the relay's: the broker.",
            unit=SECONDS,
            logarithmic=True,
        ),
    ]


def _database() -> list[Panel]:
    return [
        lines(
            30,
            "Connections to PostgreSQL",
            Query(gauge(metrics.DATABASE_CONNECTIONS, "max"), "taken"),
            Query(gauge(metrics.DATABASE_CONNECTIONS_LIMIT, "max"), "limit"),
            means="Connections to PostgreSQL, of all its users, and how many it allows (dashed).",
            do="A staircase upwards is a leak in a service; look in `pg_stat_activity` for whose.",
            unit=COUNT,
            dashed=["limit"],
            width=8,
        ),
        lines(
            31,
            "Oldest transaction",
            Query(gauge(metrics.DATABASE_OLDEST_TRANSACTION, "max"), "age"),
            means="Age of the oldest transaction in the database.",
            do="Minutes: vacuum cannot clean the outbox, and the relay becomes slow. End it, and "
            "find who holds it.",
            unit=SECONDS,
            width=8,
        ),
        lines(
            32,
            "Size",
            Query(gauge(metrics.DATABASE_SIZE, "max"), "database"),
            means="Size of the database on disk.",
            do="If it grows without end: `leveret retention` drops what is older than you need.",
            unit=BYTES,
            width=8,
        ),
    ]
