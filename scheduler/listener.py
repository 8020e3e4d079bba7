"""Hearing of changes: ``LISTEN leveret_schedules``, on a connection that does nothing else."""

from __future__ import annotations

import random
import threading
from contextlib import suppress

import psycopg
import structlog

from leveret.store.engine import connect_options, conninfo
from scheduler.bell import LONGEST_SECONDS, Bell
from scheduler.candidate import CHANNEL, Candidate

__all__ = ["Listener"]

log = structlog.get_logger("leveret.scheduler")

_LONGEST_DELAY = 2.0


class Listener(threading.Thread):
    """Tells the candidate what it hears, until it is told to stop.

    What is told while it does not listen is lost. So after each connecting everything is read
    anew, and the leader's sweep finds what matters in any case.
    """

    def __init__(self, url: str, candidate: Candidate) -> None:
        super().__init__(name="listener", daemon=True)
        self._conninfo = conninfo(url, variable="LEVERET_DATABASE_LISTEN_URL")
        self._candidate = candidate
        self._bell = Bell()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End soon. For any thread."""
        self._stopping.set()
        self._bell.ring()

    def run(self) -> None:
        """Listen, and after a lost connection listen again."""
        said = False
        while not self._stopping.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                if not said and self._candidate.is_connected:
                    reason = " ".join(str(error).split())[:300] or type(error).__name__
                    log.warning("scheduler.cannot_listen", reason=reason)
                    said = True
            finally:
                said = said and not self._candidate.listening
                self._candidate.listening = False
            if not self._stopping.is_set():
                self._bell.wait(random.uniform(_LONGEST_DELAY / 4, _LONGEST_DELAY))  # noqa: S311

    def _listen(self) -> None:
        options = connect_options("leveret-scheduler-listen")
        with psycopg.connect(self._conninfo, autocommit=True, **options) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            self._candidate.listening = True
            self._candidate.changed(None)
            self._candidate.wake()
            while not self._stopping.is_set():
                self._bell.wait(LONGEST_SECONDS, connection.fileno())
                for told in connection.notifies(timeout=0):
                    self._hear(told.payload)
            with suppress(psycopg.Error):
                connection.execute("UNLISTEN *")

    def _hear(self, payload: str) -> None:
        if payload == "lease":
            self._candidate.wake()
        self._candidate.changed(payload)
