"""The actors of housekeeping, and when they run.

==================  ==============================================================================
`leveret.beat`      does nothing: that it succeeds each minute shows that jobs get through
`leveret.rollup`    counts what has ended (`leveret.housekeeping.rollup`)
`leveret.sweep`     deletes claims and the like that have had their time
`leveret.check`     looks for slots of schedules that are missing
`leveret.retain`    drops the days that are no longer kept, and makes those to come
==================  ==============================================================================

`declare` puts them on a broker. They belong to the queue ``scheduled``; where there is none, to the
first. All but the canary need a worker with ``LEVERET_DATABASE_URL``: in another they are dead
letters that say so. Nothing of what they work with is imported before they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from leveret.broker import LeveretBroker, get_broker
from leveret.declaration import actor
from leveret.errors import ConfigurationError
from leveret.retry import Backoff
from leveret.schedules import Cron, Every, Missed, Overlap, Schedule
from leveret.schedules.trigger import Trigger
from leveret.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["BEAT", "CHECK", "QUEUE", "SHIPPED", "Shipped", "declare", "is_housekeeping", "queue_of"]

#: Where the actors belong, if there is such a queue.
QUEUE = "scheduled"
BEAT = "leveret.beat"
CHECK = "leveret.check"


_SOON = Backoff(base=timedelta(seconds=10), cap=timedelta(minutes=1))


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """An actor of housekeeping with its schedule, which has its name."""

    name: str
    run: Callable[[], object]
    trigger: Trigger
    #: Spreads what would otherwise happen at once in all installations on one database server.
    jitter: timedelta = timedelta(0)
    #: For slots that passed while no scheduler led.
    missed: Missed = Missed.ONCE
    time_limit: timedelta = timedelta(minutes=10)
    max_retries: int = 2
    backoff: Backoff = _SOON

    @property
    def schedule(self) -> Schedule:
        """When it runs: never while the one before does."""
        return Schedule(
            self.trigger,
            jitter=self.jitter,
            missed=self.missed,
            overlap=Overlap.SKIP,
            description=self.description,
        )

    @property
    def description(self) -> str:
        """What it is for, in a sentence."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


def declare(
    queues: Sequence[str],
    *,
    schedules: bool = True,
    broker: LeveretBroker | None = None,
) -> None:
    """Declare the actors for the queue ``scheduled``, if it is among ``queues``, else the first.

    Without ``schedules`` they are there to be run, and nothing runs them. Those that ``broker``, by
    default the process's, has already stay as they are.
    """
    broker = broker or get_broker()
    queue = queue_of(queues)
    for shipped in SHIPPED:
        if shipped.name in broker.actors:
            continue
        actor(
            shipped.name,
            queue=queue,
            time_limit=shipped.time_limit,
            max_retries=shipped.max_retries,
            backoff=shipped.backoff,
            dead_on=ConfigurationError,
            schedule=shipped.schedule if schedules else None,
            broker=broker,
        )(shipped.run)


def queue_of(queues: Sequence[str]) -> str:
    """Return the queue of the actors, of those that there are."""
    return QUEUE if QUEUE in queues else queues[0]


def is_housekeeping(name: str) -> bool:
    """Tell whether an actor is one of these."""
    return name in _NAMES


@contextmanager
def _database(settings: Settings, name: str) -> Iterator[Engine]:
    """Return the ledger's database for the time of a run."""
    if settings.database_url is None:
        raise ConfigurationError(
            f"{name} works on the database, and LEVERET_DATABASE_URL is not set in the worker that "
            "ran it; set it for all workers of this queue, or set LEVERET_HOUSEKEEPING=false for "
            "the schedulers"
        )
    from leveret.store import engine  # noqa: PLC0415 - SQLAlchemy, which other jobs do not need

    made = engine(settings.require_listen_url(), pool_size=2, application=name)
    try:
        yield made
    finally:
        made.dispose()


# ------------------------------------------------------------------------------------------ actors


def beat() -> None:
    """Do nothing, so that the time until the ledger knows of it is that of any job."""


def rollup() -> Mapping[str, Any]:
    """Count the jobs that ended lately, in buckets of five minutes, for pages to draw."""
    settings = Settings.from_env()
    with _database(settings, "leveret.rollup") as database:
        from leveret.housekeeping.rollup import refresh  # noqa: PLC0415 - as above

        tally = refresh(database, keep=timedelta(days=settings.retention_days))
    return {"since": tally.since.isoformat(), "jobs": tally.jobs, "marked": tally.marked}


def sweep() -> Mapping[str, int]:
    """Delete claims, unique keys, stored answers and watches whose time is over."""
    settings = Settings.from_env()
    with _database(settings, "leveret.sweep") as database:
        from leveret.housekeeping.sweep import sweep as run  # noqa: PLC0415 - as above

        return run(database, claims_url=settings.claims_url)


def check() -> Mapping[str, Any]:
    """Look for slots of schedules that are missing, or whose job nobody knows; log each new one."""
    settings = Settings.from_env()
    with _database(settings, CHECK) as database:
        from leveret.housekeeping.check import check as run  # noqa: PLC0415 - as above
        from leveret.schedules.gaps import grace_for  # noqa: PLC0415 - as above

        return run(
            database,
            keep=timedelta(days=settings.retention_days),
            grace=grace_for(settings.scheduler_lease),
        )


def retain() -> Mapping[str, Any]:
    """Drop the days that are no longer kept and what else has had its time; make days to come."""
    settings = Settings.from_env()
    with _database(settings, "leveret.retain") as database:
        from leveret.store import retention  # noqa: PLC0415 - as above

        report = retention.run_daily(database, keep=timedelta(days=settings.retention_days))
    return {
        "days": [day.isoformat() for day in report.days],
        "postponed": [day.isoformat() for day in report.postponed],
        "refiled": report.refiled,
        "deleted": {table: count for table, count in report.deleted.items() if count},
        "busy": report.busy,
    }


#: What is declared, in the order in which people read it.
SHIPPED: tuple[Shipped, ...] = (
    Shipped(
        name=BEAT,
        run=beat,
        trigger=Every(timedelta(minutes=1)),
        missed=Missed.SKIP,
        time_limit=timedelta(seconds=30),
        max_retries=0,
    ),
    Shipped(
        name="leveret.rollup",
        run=rollup,
        trigger=Every(timedelta(minutes=1)),
        jitter=timedelta(seconds=20),
        missed=Missed.SKIP,
    ),
    Shipped(
        name=CHECK,
        run=check,
        trigger=Cron("*/10 * * * *"),
        jitter=timedelta(minutes=2),
    ),
    Shipped(
        name="leveret.sweep",
        run=sweep,
        trigger=Cron("23 * * * *"),
        jitter=timedelta(minutes=10),
    ),
    Shipped(
        name="leveret.retain",
        run=retain,
        trigger=Cron("17 3 * * *"),
        jitter=timedelta(minutes=30),
        time_limit=timedelta(hours=2),
        max_retries=4,
        backoff=Backoff(base=timedelta(minutes=5), cap=timedelta(minutes=30)),
    ),
)
_NAMES = frozenset(shipped.name for shipped in SHIPPED)
