"""Schedulers as processes, and schedules for them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import libfaketime
import psycopg

from leveret.schedules import store
from leveret.schedules.definition import Definition
from leveret.schedules.trigger import Every
from leveret.store import engine
from tests.support.processes import OurProcess

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What is loaded into a process to tell it another time.
FAKETIME = Path(libfaketime.__file__).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


class SchedulerProcess(OurProcess):
    """``python -m scheduler`` of one test."""

    def __init__(
        self,
        url: str,
        *,
        folder: Path,
        term: float = 2.0,
        module: str = "scheduler",
        faked: bool = False,
        **variables: str,
    ) -> None:
        settings = {
            "LEVERET_DATABASE_URL": url,
            "LEVERET_ACTORS": "tests.support.tickjobs",
            "LEVERET_HOUSEKEEPING": "false",
            "LEVERET_SCHEDULER_LEASE": f"{term:g}",
            **variables,
        }
        self._time = folder / f"scheduler-{uuid4().hex}.time"
        if faked:
            self.jump(0)
            settings |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self._time),
                "FAKETIME_NO_CACHE": "1",
            }
        super().__init__("scheduler", ("-m", module), settings, folder=folder)

    @property
    def leads(self) -> bool:
        """Whether it has the lease, as it says."""
        return self.metric("leveret_scheduler_is_leader") == 1

    def jump(self, seconds: float) -> None:
        """Set its clocks so many seconds off those of the machine."""
        fresh = self._time.with_suffix(".new")
        fresh.write_text(f"{seconds:+g}\n")
        fresh.rename(self._time)


def every(name: str, seconds: float, **fields: Any) -> Definition:
    """Return a schedule with a slot each so many seconds."""
    return Definition(
        name=name, actor="tick.tock", trigger=Every(timedelta(seconds=seconds)), **fields
    )


def create(url: str, definitions: Iterable[Definition]) -> None:
    """Make schedules, in one transaction."""
    owner = engine(url, pool_size=1)
    try:
        with owner.begin() as connection:
            for definition in definitions:
                store.create(connection, definition, origin="api", by="test")
    finally:
        owner.dispose()


def query(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement; return its rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return [] if cursor.description is None else cursor.fetchall()


__all__ = ["FAKETIME", "SchedulerProcess", "create", "every", "query"]
