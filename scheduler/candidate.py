"""Taking the lease, keeping it, giving it back: the thread on which a process leads or stands by.

It alone speaks to the database about the lease, on a connection of its own, so that a fire that
takes long does not keep it from renewing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import structlog

from leveret import metrics
from leveret.errors import ConfigurationError
from leveret.store.lease import Grant, Held, Lease
from scheduler.bell import LONGEST_SECONDS, Bell
from scheduler.clock import DatabaseClock
from scheduler.leader import Leader
from scheduler.leadership import Leadership

__all__ = ["CHANNEL", "Candidate"]

log = structlog.get_logger("leveret.scheduler")

#: Where it is told that a schedule has changed (its name), or that the lease is free (``lease``).
CHANNEL = "leveret_schedules"

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 0.5
#: How often a standby looks when nobody can tell it that the leader has resigned.
_POLL_SECONDS = 0.4


class Candidate(threading.Thread):
    """Leads whenever it can, until it is told to stop; then it resigns."""

    def __init__(
        self,
        lease: Lease,
        clock: DatabaseClock,
        *,
        make_leader: Callable[[Leadership, Callable[[], None]], Leader],
        prepare: Callable[[], None],
    ) -> None:
        """Run ``prepare`` once, as soon as the database answers, before anything else.

        What it raises ends the thread when it is a `ConfigurationError`; after a `psycopg.Error` it
        is run again.
        """
        super().__init__(name="candidate", daemon=True)
        self._lease = lease
        self._clock = clock
        self._make_leader = make_leader
        self._prepare: Callable[[], None] | None = prepare
        self._bell = Bell()
        self._stopping = threading.Event()
        self._leader: Leader | None = None
        self._holder: str | None = None
        self._failures = 0
        #: It led, and has not reached the database since it could not renew.
        self._silent = False
        #: Whether the listener is told of changes.
        self.listening = False
        #: Whether the database has answered the last time it was asked.
        self.is_connected = False
        #: What ended the thread, if something did.
        self.fault: str | None = None
        #: … or what is wrong with what somebody has set, which ended it, too.
        self.misconfigured: ConfigurationError | None = None

    @property
    def leadership(self) -> Leadership | None:
        """What it leads by, if it does."""
        leader = self._leader
        return None if leader is None else leader.leadership

    @property
    def cannot_renew(self) -> bool:
        """Whether it led, its term is over, and the database has not been reached since."""
        leadership = self.leadership
        return self._silent or (leadership is not None and not leadership.holds())

    @property
    def has_ended(self) -> bool:
        """Whether the thread has ended without being told to."""
        return self.fault is not None or self.misconfigured is not None

    def wake(self) -> None:
        """Look at the lease now. For any thread."""
        self._bell.ring()

    def changed(self, name: str | None) -> None:
        """Tell the leader, if it is one, that a schedule has changed. For any thread."""
        leader = self._leader
        if leader is not None:
            leader.changed(name)

    def stop(self) -> None:
        """Resign and end. For any thread."""
        self._stopping.set()
        self._bell.ring()

    def run(self) -> None:
        """Compete, lead, compete again."""
        try:
            while not self._stopping.is_set():
                try:
                    self._step()
                except psycopg.Error as error:
                    self._lose_database(error)
            self._resign()
        except ConfigurationError as error:
            self.misconfigured = error
        except Exception as error:
            self.fault = f"{type(error).__name__}: {error}"
            log.exception("scheduler.failed")
        finally:
            self._step_down()

    def _step(self) -> None:
        if self._leader is None:
            self._compete()
            return
        leadership = self._leader.leadership
        self._wait_to_renew(leadership)
        if self._stopping.is_set():
            return
        if leadership.is_lost:
            self._step_down()
        else:
            self._renew(leadership)

    # ---------------------------------------------------------------------------------- competing

    def _compete(self) -> None:
        if self._prepare is not None:
            self._prepare()
            self._prepare = None
        answer = self._lease.take()
        self._find_database()
        if isinstance(answer, Held):
            self._stand_by(answer)
            return
        self._lead(answer)

    def _stand_by(self, held: Held) -> None:
        if held.holder != self._holder:
            self._holder = held.holder
            log.info("scheduler.standing_by", leader=held.holder)
        longest = LONGEST_SECONDS if self.listening else _POLL_SECONDS
        # A moment more, so that it has ended when it is asked again.
        self._bell.wait(min(max(held.remaining, 0.0) + 0.01, longest))

    def _lead(self, grant: Grant) -> None:
        self._holder = None
        leadership = Leadership(grant, clock=self._clock.elapsed)
        leader = self._make_leader(leadership, self.wake)
        leader.start()
        self._leader = leader
        metrics.SCHEDULER_IS_LEADER.set(1)
        log.info("scheduler.leading", epoch=grant.epoch, holder=self._lease.holder)

    # ------------------------------------------------------------------------------------ leading

    def _wait_to_renew(self, leadership: Leadership) -> None:
        """Wait for a third of the term, by waits and not by a clock, which may be set meanwhile."""
        left = self._lease.renewal_seconds
        began = self._clock.elapsed()
        while left > 0 and not self._stopping.is_set() and not leadership.is_lost:
            piece = min(left, LONGEST_SECONDS)
            if not self._bell.wait(piece):
                left -= piece
            passed = self._clock.elapsed() - began
            if not 0 <= passed < self._lease.renewal_seconds:
                return

    def _renew(self, leadership: Leadership) -> None:
        try:
            grant = self.renew(leadership.epoch)
        except psycopg.Error:
            metrics.SCHEDULER_LEASE_RENEWALS.labels("failed").inc()
            if not leadership.holds():
                self._silent = True
                log.warning("scheduler.cannot_renew", epoch=leadership.epoch)
                self._step_down()
            raise
        self._find_database()
        if grant is None:
            metrics.SCHEDULER_LEASE_RENEWALS.labels("refused").inc()
            log.warning("scheduler.lease_lost", epoch=leadership.epoch)
            leadership.lose()
            self._step_down()
        else:
            metrics.SCHEDULER_LEASE_RENEWALS.labels("renewed").inc()
            leadership.extend(grant)

    def renew(self, epoch: int) -> Grant | None:
        """Ask for another term."""
        return self._lease.renew(epoch)

    def _step_down(self) -> None:
        leader, self._leader = self._leader, None
        if leader is not None:
            leader.leadership.lose()
            metrics.SCHEDULER_IS_LEADER.set(0)
            leader.stop()

    def _resign(self) -> None:
        leadership = self.leadership
        if leadership is None:
            return
        self._step_down()
        try:
            self._lease.resign(leadership.epoch, channel=CHANNEL)
        except psycopg.Error as error:
            log.warning("scheduler.not_resigned", reason=_reason(error))
        else:
            log.info("scheduler.resigned", epoch=leadership.epoch)

    # ------------------------------------------------------------------------------- the database

    def _find_database(self) -> None:
        if self._failures:
            log.warning("scheduler.database_found")
            self._failures = 0
        self._silent = False
        self.is_connected = True

    def _lose_database(self, error: psycopg.Error) -> None:
        self.is_connected = False
        if not self._failures:
            log.warning("scheduler.database_lost", reason=_reason(error))
        self._bell.wait(min(_LONGEST_DELAY, _FIRST_DELAY * 2.0**self._failures))
        self._failures = min(self._failures + 1, 8)


def _reason(error: psycopg.Error) -> str:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, psycopg.errors.UndefinedTable):
        reason += "; run `leveret migrate`"
    return reason
