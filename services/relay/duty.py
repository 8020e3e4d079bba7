"""What a relay does for its own Leveret database beside moving jobs.

Replays, at their rate; and retention, where no schedule has seen to it for too long.

A duty is a function that does one step and returns after how many seconds it wants to be called
again. It is called from a thread of its own; any number of relays may run the same duty, so a step
takes what locks it needs.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from leveret.deadletters import runner
from leveret.settings import Settings
from leveret.store import partition, retention

__all__ = ["DUTIES", "Duty", "DutyThread"]

log = structlog.get_logger("leveret.relay")

#: Does one step on the database; returns the seconds until the next.
Duty = Callable[[Engine, Settings], float]


def _replay(engine: Engine, settings: Settings) -> float:
    return runner.step(engine, queues=settings.queues, max_body_bytes=settings.max_body_bytes)


def _retain(engine: Engine, settings: Settings) -> float:
    """Do what the schedule ``leveret.retain`` does, where it has not been done for too long."""
    with engine.begin() as connection:
        partition.ensure(connection)
    retention.run_if_overdue(engine, keep=timedelta(days=settings.retention_days))
    return _RETENTION_SECONDS


#: What every relay that has a Leveret database does, by name.
DUTIES: Mapping[str, Duty] = {"replays": _replay, "retention": _retain}

#: How often it is asked whether somebody has to; it costs three statements.
_RETENTION_SECONDS = 300.0
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 15.0


class DutyThread(threading.Thread):
    """Calls a duty again and again until it is told to stop."""

    def __init__(
        self,
        name: str,
        duty: Duty,
        engine: Engine,
        settings: Settings,
        *,
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"duty-{name}", daemon=True)
        self._label = name
        self._duty = duty
        self._engine = engine
        self._settings = settings
        self._stop_event = stop

    def run(self) -> None:
        """Step, wait, step; after an error, wait longer each time."""
        failures = 0
        while not self._stop_event.is_set():
            try:
                seconds = self._duty(self._engine, self._settings)
                if failures:
                    log.warning("relay.duty_works_again", duty=self._label)
                failures = 0
            except DBAPIError as error:
                if not failures:
                    reason = " ".join(str(error.orig).split())[:300]
                    log.warning("relay.duty_failed", duty=self._label, reason=reason)
                failures += 1
                seconds = self._backoff(failures)
            except Exception:
                if not failures:
                    log.exception("relay.duty_failed", duty=self._label)
                failures += 1
                seconds = self._backoff(failures)
            self._stop_event.wait(seconds)

    def _backoff(self, failures: int) -> float:
        bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(failures, 16))
        return random.uniform(bound / 2, bound)  # noqa: S311
