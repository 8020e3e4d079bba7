"""What failed for good: how much, since when, why, and whether anybody sees to it."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from compose.grafana.board import QUEUE, Row, board
from compose.grafana.panel import (
    COUNT,
    JOBS_RATE,
    TO_ACTOR,
    Column,
    Panel,
    Query,
    above,
    bars,
    lines,
    number,
    rows,
)
from compose.grafana.query import Like, broker, gauge, increase, rate, zero
from leveret import metrics

_WAITING = Like(r"leveret\\.(dead\\..+|unroutable)")


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return board(
        "dead-letters",
        "Dead letters",
        "Jobs that failed for good and wait for a decision: replay them, or discard them. "
        "`leveret dead groups` has their errors.",
        [Row("", _numbers()), Row("Over time", _series()), Row("Where from", _origins())],
        variables=[QUEUE],
    )


def _numbers() -> list[Panel]:
    return [
        number(
            1,
            "Open",
            gauge(metrics.DEAD_LETTERS_OPEN, "max"),
            means="Dead letters that nobody has replayed or discarded.",
            do="Work through the groups, the largest first: `leveret dead groups`.",
            lights=above(1, 100),
            decimals=0,
            width=4,
        ),
        number(
            2,
            "Open groups",
            gauge(metrics.DEAD_LETTER_GROUPS_OPEN, "max"),
            means="Different causes among them: same actor, same error, same place in the code.",
            do="Each is one thing to mend, however many jobs it has.",
            lights=above(1, 10),
            decimals=0,
            width=4,
        ),
        number(
            3,
            "New groups",
            zero(increase(metrics.DEAD_LETTER_GROUPS)),
            means="Causes that were seen for the first time, in the time shown.",
            do="Something changed: look at the deploys that are marked below.",
            lights=above(1, 5),
            decimals=0,
            width=4,
        ),
        number(
            4,
            "Stored",
            zero(increase(metrics.DEAD_LETTERS, queue="$queue")),
            means="Dead letters that were stored in the time shown.",
            do="Compare with *Open*: the difference was replayed or discarded.",
            lights=above(1, 100),
            decimals=0,
            width=4,
        ),
        number(
            5,
            "Replayed",
            zero(increase(metrics.REPLAYED)),
            means="Dead letters that were published again in the time shown.",
            do="See that they do not come back: *Stored* would rise again.",
            decimals=0,
            width=4,
        ),
        number(
            6,
            "Not recorded yet",
            f"sum({broker('rabbitmq_queue_messages', queue=_WAITING)})",
            means="Dead letters in the broker that the recorder has not stored.",
            do="More than a moment's worth: the recorder or the database is away. None is lost.",
            lights=above(10, 1000),
            decimals=0,
            link="broker-and-database",
            width=4,
        ),
    ]


def _series() -> list[Panel]:
    return [
        lines(
            10,
            "Open, over time",
            Query(gauge(metrics.DEAD_LETTERS_OPEN, "max"), "letters"),
            Query(gauge(metrics.DEAD_LETTER_GROUPS_OPEN, "max"), "groups"),
            means="Dead letters, and groups of them, that wait for a decision.",
            do="Steps up are incidents; a line that only rises is nobody looking.",
            unit=COUNT,
        ),
        lines(
            11,
            "Stored, by reason",
            Query(rate(metrics.DEAD_LETTERS, "reason", queue="$queue"), "{{reason}}"),
            means="Dead letters that were stored, a second, by why the jobs are dead.",
            do="A burst of one reason is one incident.",
            unit=JOBS_RATE,
            stacked=True,
        ),
        lines(
            12,
            "New groups and replays",
            Query(zero(rate(metrics.DEAD_LETTER_GROUPS)), "new groups"),
            Query(zero(rate(metrics.REPLAYED)), "replayed"),
            means="Causes that were seen for the first time, and dead letters that were published "
            "again, a second.",
            do="New groups right after a replay: the replay failed in another way.",
            unit=JOBS_RATE,
        ),
        lines(
            13,
            "In the broker, by queue",
            Query(
                "max by (queue) (" + broker("rabbitmq_queue_messages", queue=_WAITING) + ")",
                "{{queue}}",
            ),
            means="Dead letters that the recorder has not stored.",
            do="If they stay, see whether the recorder runs, and the database.",
            unit=COUNT,
        ),
    ]


def _origins() -> list[Panel]:
    return [
        rows(
            20,
            "By actor and reason",
            Query(increase(metrics.DEAD_LETTERS, "actor", "queue", "reason", queue="$queue")),
            columns=[
                Column("actor", "Actor", link=TO_ACTOR),
                Column("queue", "Queue", width=110),
                Column("reason", "Reason"),
                Column("Value", "Letters", unit=COUNT, lights=above(1, 50), width=90),
            ],
            means="Dead letters that were stored in the time shown.",
            do="A click on an actor opens its dashboard. `unknown` is what no worker has run: "
            "look at its reason.",
            sort="Letters",
            width=16,
            height=8,
        ),
        bars(
            21,
            "By queue",
            Query(increase(metrics.DEAD_LETTERS, "queue", queue="$queue"), "{{queue}}"),
            means="Dead letters that were stored in the time shown.",
            do="All queues at once: the broker, the database, or a deploy.",
            unit=COUNT,
            lights=above(1, 50),
            width=8,
            height=8,
        ),
    ]
