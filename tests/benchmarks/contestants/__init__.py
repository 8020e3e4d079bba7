"""Who competes, how each one's workers are started, and what each one can do.

The table is all that the harness imports: a contestant's library is loaded only by the processes
that run it. Each module beside this one holds one contestant's actors and its `Client`.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Ability(enum.Flag):
    """What a contestant can do out of the box, as its documentation recommends."""

    CONFIRMED = enum.auto()
    """Publishes one job at a time and waits for the broker's confirm."""
    UNCONFIRMED = enum.auto()
    """Publishes without waiting for confirms."""
    PIPELINED = enum.auto()
    """Publishes many with their confirms outstanding together."""
    DRAIN = enum.auto()
    """Has workers."""
    LATENCY = enum.auto()
    """Is worth a row of its own where the system is idle."""
    DELAYED = enum.auto()
    """Runs jobs at a time of the publisher's choice."""
    RETRY = enum.auto()
    """Retries a failed job after a pause."""
    MEMORY = enum.auto()
    """Is worth a row of its own where workers idle."""
    TRACKED = enum.auto()
    """Keeps the state of every job in PostgreSQL."""
    OUTBOX = enum.auto()
    """Publishes jobs in the transaction of business data."""
    ONCE = enum.auto()
    """Has the effects of a job once, by a row in PostgreSQL."""
    SCHEDULES = enum.auto()
    """Publishes jobs again and again by schedules that are kept in PostgreSQL."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One row of every table."""

    name: str
    #: Where its `Client` is.
    module: str
    #: The queue in which its jobs wait, to count them.
    queue: str
    abilities: Ability
    #: What to run with `python -m`, one for each command that makes up its workers.
    workers: tuple[tuple[str, ...], ...] = ()
    #: What to run with `python -m` once, before anything else.
    prepare: tuple[tuple[str, ...], ...] = ()
    #: What to run with `python -m` on each empty database.
    prepare_database: tuple[tuple[str, ...], ...] = ()
    #: What to run with `python -m` beside the workers, already while jobs are published.
    beside: tuple[tuple[str, ...], ...] = ()
    #: Count the jobs that have a row, and those whose row says that they have succeeded.
    queued: str = ""
    succeeded: str = ""
    #: `{amqp_url}` and `{management_url}` stand for its own virtual host's, `{database_url}` for
    #: its own database, where the scenario has one.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: A bound for those that no promised figure is held against; `None` for all rounds.
    most_rounds: int | None = 2
    #: What a reader of the table ought to know.
    note: str = ""

    def can(self, ability: Ability) -> bool:
        """Tell whether this contestant takes part where `ability` is needed."""
        return ability in self.abilities


_HERE = "tests.benchmarks.contestants"
#: What needs a database, and has contestants of its own.
_STORED = Ability.TRACKED | Ability.OUTBOX | Ability.ONCE | Ability.SCHEDULES

LEVERET = "leveret"
DRAMATIQ = "dramatiq"
DRAMATIQ_TUNED = "dramatiq-tuned"
LEVERET_TRACKED = "leveret-tracked"
DRAMATIQ_TRACKED = "dramatiq-tracked"
LEVERET_OUTBOX = "leveret-outbox"
LEVERET_SCHEDULER = "leveret-scheduler"

CONTESTANTS = (
    Contestant(
        name=LEVERET,
        module=f"{_HERE}.leveret",
        queue="leveret.default",
        abilities=~(Ability.UNCONFIRMED | _STORED),
        prepare=((f"{_HERE}.leveret",),),
        workers=(("services.worker", "--queues", "default", "--threads", "4", "--processes", "2"),),
        environment={
            "LEVERET_AMQP_URL": "{amqp_url}",
            "LEVERET_MANAGEMENT_URL": "{management_url}",
            "LEVERET_ACTORS": f"{_HERE}.leveret",
        },
        most_rounds=None,
        note="quorum queues, confirms, outcome records and the ledger tap on",
    ),
    Contestant(
        name=DRAMATIQ,
        module=f"{_HERE}.dramatiq",
        queue="default",
        abilities=~(Ability.PIPELINED | _STORED),
        workers=(("dramatiq", f"{_HERE}.dramatiq", "-p", "2", "-t", "4"),),
        most_rounds=None,
        note="classic queues; confirm_delivery on or off as the column says",
    ),
    Contestant(
        name=DRAMATIQ_TUNED,
        module=f"{_HERE}.dramatiq",
        queue="default",
        abilities=Ability.DRAIN | Ability.UNCONFIRMED,
        workers=(("dramatiq", f"{_HERE}.dramatiq", "-p", "2", "-t", "4"),),
        environment={"dramatiq_queue_prefetch": "100"},
        most_rounds=None,
        note="dramatiq with dramatiq_queue_prefetch=100",
    ),
    Contestant(
        name=LEVERET_TRACKED,
        module=f"{_HERE}.leveret",
        queue="leveret.default",
        abilities=Ability.TRACKED | Ability.PIPELINED | Ability.ONCE,
        prepare=((f"{_HERE}.leveret",),),
        prepare_database=((f"{_HERE}.leveret", "migrate"),),
        beside=(("services.recorder",),),
        workers=(("services.worker", "--queues", "default", "--threads", "4", "--processes", "2"),),
        environment={
            "LEVERET_AMQP_URL": "{amqp_url}",
            "LEVERET_MANAGEMENT_URL": "{management_url}",
            "LEVERET_DATABASE_URL": "{database_url}",
            "LEVERET_ACTORS": f"{_HERE}.leveret",
        },
        queued="SELECT count(*) FROM jobs",
        succeeded="SELECT count(*) FROM jobs WHERE state = 'succeeded'",
        most_rounds=None,
        note="leveret with one recorder: every job with its attempts in the ledger",
    ),
    Contestant(
        name=LEVERET_OUTBOX,
        module=f"{_HERE}.outbox",
        queue="leveret.default",
        abilities=Ability.OUTBOX,
        prepare=((f"{_HERE}.leveret",),),
        prepare_database=((f"{_HERE}.leveret", "migrate"),),
        beside=(("services.relay",),),
        workers=(("services.worker", "--queues", "default", "--threads", "4", "--processes", "2"),),
        environment={
            "LEVERET_AMQP_URL": "{amqp_url}",
            "LEVERET_MANAGEMENT_URL": "{management_url}",
            "LEVERET_DATABASE_URL": "{database_url}",
            "LEVERET_ACTORS": f"{_HERE}.leveret",
        },
        most_rounds=None,
        note="leveret with one relay: jobs written into a database's outbox",
    ),
    Contestant(
        name=LEVERET_SCHEDULER,
        module=f"{_HERE}.leveret",
        queue="leveret.default",
        abilities=Ability.SCHEDULES,
        prepare_database=((f"{_HERE}.leveret", "migrate"),),
        beside=(("scheduler",),),
        environment={
            "LEVERET_AMQP_URL": "{amqp_url}",
            "LEVERET_DATABASE_URL": "{database_url}",
            "LEVERET_ACTORS": f"{_HERE}.leveret",
            "LEVERET_HOUSEKEEPING": "false",
        },
        most_rounds=None,
        note="one scheduler and its database; the relay's work comes after it",
    ),
    Contestant(
        name=DRAMATIQ_TRACKED,
        module=f"{_HERE}.dramatiq_tracked",
        queue="default",
        abilities=Ability.TRACKED | Ability.UNCONFIRMED,
        prepare_database=((f"{_HERE}.dramatiq_tracked",),),
        workers=(("dramatiq", f"{_HERE}.dramatiq_tracked", "-p", "2", "-t", "4"),),
        environment={"BENCH_DATABASE_URL": "{database_url}"},
        queued="SELECT count(*) FROM tracked",
        succeeded="SELECT count(*) FROM tracked WHERE state = 'succeeded'",
        most_rounds=None,
        note="dramatiq with a middleware that updates a row at each transition, autocommit",
    ),
    Contestant(
        name="celery",
        module=f"{_HERE}.celery",
        queue="celery",
        abilities=~(Ability.PIPELINED | _STORED),
        workers=tuple(
            (
                *("celery", "-A", f"{_HERE}.celery", "worker", "-P", "threads"),
                *("-c", "4", "-n", f"bench{number}@%h", "-l", "WARNING"),
            )
            for number in (1, 2)
        ),
        note="two nodes of four threads; acknowledges before it runs, its default",
    ),
    Contestant(
        name="taskiq",
        module=f"{_HERE}.taskiq",
        queue="taskiq",
        abilities=~(Ability.UNCONFIRMED | Ability.DELAYED | _STORED),
        workers=(
            (
                *("taskiq", "worker", f"{_HERE}.taskiq:broker", "-w", "2"),
                *("--max-threadpool-threads", "4", "--log-level", "WARNING"),
            ),
        ),
        note="quorum queue, its default; its delay queue is ordered, so no arbitrary times",
    ),
    Contestant(
        name="faststream",
        module=f"{_HERE}.faststream",
        queue="noop",
        abilities=~(Ability.UNCONFIRMED | Ability.DELAYED | Ability.RETRY | _STORED),
        workers=(
            ("faststream", "run", f"{_HERE}.faststream:app", "--workers", "2", "-l", "warning"),
        ),
        note="threads not limited to four; no delays or retries of its own",
    ),
    Contestant(
        name="pika",
        module=f"{_HERE}.pika",
        queue="noop",
        abilities=~(Ability.DELAYED | Ability.RETRY | _STORED),
        workers=((f"{_HERE}.pika",), (f"{_HERE}.pika",)),
        note="the limit: two processes of one bare consumer, a classic queue, no job system",
    ),
)
