"""Looking every few seconds how the canary and the database are, in each scheduler, leader or not.

A database that has stopped without a word keeps a look waiting; meanwhile what it said before gets
too old to be shown.
"""

from __future__ import annotations

import threading

import structlog
from psycopg.errors import QueryCanceled
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from leveret.housekeeping.exporter import Exporter
from leveret.store import engine as make_engine

__all__ = ["Observer"]

log = structlog.get_logger("leveret.scheduler")

_EVERY_SECONDS = 5.0


class Observer(threading.Thread):
    """Keeps the metrics of housekeeping and of the database, on a connection of its own."""

    def __init__(self, url: str, *, every_seconds: float = _EVERY_SECONDS) -> None:
        super().__init__(name="observer", daemon=True)
        self._engine = make_engine(url, pool_size=1, application="leveret-scheduler-observer")
        self._every_seconds = every_seconds
        self._stopped = threading.Event()
        self._exporter = Exporter()
        self._looks = (
            self._exporter.look_at_server,
            self._exporter.look,
            self._exporter.look_at_jobs,
        )

    def run(self) -> None:
        """Look, wait, look; without a database, the canary's age grows by itself."""
        failed = False
        while not self._stopped.is_set():
            try:
                for look in self._looks:
                    with self._engine.begin() as connection:
                        look(connection)
            except OperationalError as error:
                # Of a database that is away, the candidate tells, once.
                if not isinstance(error.orig, QueryCanceled):
                    self._exporter.lost()
            except SQLAlchemyError as error:
                if not failed:
                    reason = " ".join(str(error).split())[:300]
                    log.warning("scheduler.canary_unseen", reason=reason)
                failed = True
            else:
                if failed:
                    log.info("scheduler.canary_seen_again")
                failed = False
            self._stopped.wait(self._every_seconds)
        self._engine.dispose()

    def stop(self) -> None:
        """Tell it to end after its look. Thread-safe."""
        self._stopped.set()
