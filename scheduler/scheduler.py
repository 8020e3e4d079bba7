"""The process: its threads, its signals, and what it says of its health.

========================  =========================================================================
the main thread           waits for signals, and sees to it that no statement hangs
`candidate`               has the lease, or waits for it
`listener`                hears of changed schedules, and of a leader that resigns
`observer`                looks how the canary and the database are, for the metrics
APScheduler's, as leader  waits until something is due
`executor`, as leader     reads, decides, fires
========================  =========================================================================
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path

import psycopg
import structlog
from sqlalchemy.exc import DBAPIError

from leveret import metrics
from leveret.declaration import load_actors
from leveret.health import HealthServer, own_metrics
from leveret.schedules.declared import Found, gather
from leveret.schedules.reconcile import reconcile
from leveret.settings import Settings
from leveret.store import engine
from leveret.store.lease import Lease
from scheduler.bell import Bell
from scheduler.candidate import Candidate
from scheduler.clock import DatabaseClock
from scheduler.leader import Leader
from scheduler.line import Line
from scheduler.listener import Listener
from scheduler.observer import Observer

__all__ = ["LEASE", "Scheduler"]

log = structlog.get_logger("leveret.scheduler")

#: The name of the lease that decides who fires.
LEASE = "scheduler"
_WATCH_SECONDS = 0.2
#: On SIGTERM: how long threads may take to end.
_GRACE_SECONDS = 3.0
_LEAST_PATIENCE = 2.0


class Scheduler:
    """Runs until it is told to stop; `run` returns the exit status."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._declared = _declared(settings)
        self._bell = Bell()
        self._told = False
        url = settings.require_database_url()
        term = settings.scheduler_lease
        patience = max(_LEAST_PATIENCE, term.total_seconds() / 2)
        self.clock = DatabaseClock()
        self._lines = [
            Line(url, patience=patience, application="leveret-scheduler"),
            Line(url, patience=max(patience, 5.0), application="leveret-scheduler-fire"),
        ]
        self._host = socket.gethostname()
        holder = f"{self._host}:{os.getpid()}:{secrets.token_hex(4)}"
        self.lease = Lease(
            self._lines[0],
            LEASE,
            holder=holder,
            term=term,
            clock=self.clock.elapsed,
            observe=self.clock.observe,
        )
        self.candidate = Candidate(
            self.lease,
            self.clock,
            make_leader=lambda leadership, lost: Leader(
                leadership,
                self.lease,
                self._lines[1],
                self.clock,
                max_body_bytes=settings.max_body_bytes,
                lost=lost,
            ),
            prepare=self._prepare,
        )
        self._listener = Listener(settings.require_listen_url(), self.candidate)
        self._observer = Observer(url)

    def run(self) -> int:
        """Schedule until SIGTERM; the status is 1 when a thread has failed.

        Raises `ConfigurationError` for declared schedules that cannot be those of this database.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        server = HealthServer(
            self._settings.http_host,
            self._settings.http_port,
            livez=self.faults,
            readyz=self.is_ready,
            metrics=own_metrics,
        )
        server.start()
        term = self._settings.scheduler_lease.total_seconds()
        metrics.announce(metrics.SCHEDULER)
        metrics.SCHEDULER_LEASE.set(term)
        metrics.SCHEDULER_IS_LEADER.set(0)
        log.info(
            "scheduler.starting", holder=self.lease.holder, lease_seconds=term, http=server.address
        )
        self.candidate.start()
        self._listener.start()
        self._observer.start()
        while not self._told and not self.candidate.has_ended:
            self._bell.wait(_WATCH_SECONDS)
            self._watch()
        self.candidate.stop()
        end = time.monotonic() + _GRACE_SECONDS
        while self.candidate.is_alive() and time.monotonic() < end:
            self.candidate.join(0.05)
            self._watch()
        self._listener.stop()
        self._observer.stop()
        self._listener.join(1.0)
        self._observer.join(1.0)
        for line in self._lines:
            line.cut()
        server.stop()
        if self.candidate.misconfigured is not None:
            raise self.candidate.misconfigured
        log.info("scheduler.stopped")
        return 0 if self.candidate.fault is None else 1

    def faults(self) -> list[str]:
        """Say why the process is not live: it led, and cannot speak to the database."""
        if self.candidate.fault is not None:
            return [self.candidate.fault]
        if self.candidate.cannot_renew:
            return ["it had the lease, and cannot renew it: the database does not answer"]
        return []

    def is_ready(self) -> bool:
        """Tell whether it leads, or could."""
        return not self._told and self.candidate.is_connected

    def _prepare(self) -> None:
        """Make the rows of declared schedules what the declarations say; done once."""
        owner = engine(
            self._settings.require_database_url(), pool_size=1, application="leveret-scheduler"
        )
        try:
            with owner.begin() as connection:
                reconcile(
                    connection,
                    self._declared.schedules,
                    by=f"scheduler:{self._host}:{os.getpid()}",
                    limit=self._settings.max_body_bytes,
                )
        except DBAPIError as error:
            if isinstance(error.orig, psycopg.Error):
                raise error.orig from None
            raise
        finally:
            owner.dispose()

    def _watch(self) -> None:
        for line in self._lines:
            line.watch()
        leadership = self.candidate.leadership
        metrics.SCHEDULER_LEASE_REMAINING.set(0 if leadership is None else leadership.remaining)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._told = True
        self._bell.ring()


def _declared(settings: Settings) -> Found:
    """Return the schedules that code and files declare."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    found = gather(load_actors(settings.actors), settings)
    for warning in found.warnings:
        log.warning("scheduler.declared_unchecked", reason=warning)
    return found
