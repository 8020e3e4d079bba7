"""One database's outbox, drained.

A batch is one transaction: lock rows (``FOR UPDATE SKIP LOCKED``), publish their messages, wait for
the broker's confirms, delete the rows that are confirmed, commit. What happens when the relay, the
broker or the database dies, at each point:

========================  ======================================================================
before the publish        the transaction ends, the rows are free again: nothing has happened
after it                  some messages may be in the broker and their rows are free again: they
after the confirms        are published once more, under the same job ids, and the same id twice
after the delete          is the same job
after the commit          all is done
========================  ======================================================================

A row never keeps those beside it from leaving:

- what cannot be a message, or is refused by the broker for what it is, is *set aside*, with its
  error, until somebody mends it (``hold_until = 'infinity'``);
- what the broker cannot take now, because a queue is full, is *put off* for some seconds;
- what is due beyond the delay wheel's horizon is *held* until it is not.

And what is wrong with the broker as a whole (it is away, it blocks publishers, the topology is
missing) is waited for, with no transaction open.
"""

from __future__ import annotations

import math
import os
import random
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from enum import Enum, auto
from functools import partial
from typing import Any

import psycopg
import structlog

from leveret import metrics, tracing
from leveret.errors import InvalidJob, PublishError, PublishRejected, PublishTimeout
from leveret.message import Reason
from leveret.store.engine import connect_options, conninfo
from services.relay.carrier import Carrier, Parcel
from services.relay.cursor import Cursor, Pace
from services.relay.message import Held, Message, Row, message_of
from services.relay.spans import Passage
from services.relay.table import CHANNEL, Table

__all__ = ["Fate", "Source", "fate_of"]

log = structlog.get_logger("leveret.relay")

#: Rows of one batch.
_BATCH_ROWS = 500
#: Bytes of bodies that are in memory at a time.
_BATCH_BYTES = 16 * 1024 * 1024
#: The safety net under LISTEN, and how often to look where LISTEN cannot be had.
_POLL_SECONDS = 5.0
_POLL_WITHOUT_LISTEN_SECONDS = 0.5
#: How often released rows are looked for.
_RELEASED_SECONDS = 1.0
_COUNT_SECONDS = 5.0
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 5.0
_LISTEN_AGAIN_SECONDS = 2.0
_PUT_OFF = timedelta(seconds=5)


class Fate(Enum):
    """What becomes of a row whose message the broker does not have."""

    #: It stays, and is tried again with the next batch.
    STAYS = auto()
    #: It is tried again in some seconds.
    PUT_OFF = auto()
    #: It is not tried again.
    SET_ASIDE = auto()
    #: Whatever is published is refused: it is not the row's fault.
    REFUSED_AS_ALL = auto()


def fate_of(error: PublishError) -> Fate:
    """Tell what an error means for the row whose message it met."""
    match error:
        case PublishRejected(code=None):  # a queue is full, or has no majority
            return Fate.PUT_OFF
        case PublishRejected(code=404):  # the exchange is not there
            return Fate.REFUSED_AS_ALL
        case PublishRejected(code=403) if "topic" not in str(error):
            return Fate.REFUSED_AS_ALL
        case PublishRejected():  # the routing key, the size, a property
            return Fate.SET_ASIDE
        case PublishTimeout():
            return Fate.STAYS
    return Fate.SET_ASIDE if type(error) is PublishError else Fate.STAYS


class Source(threading.Thread):
    """Drains the outbox of one database until it is told to stop."""

    def __init__(
        self,
        label: str,
        url: str,
        listen_url: str,
        *,
        carrier: Carrier,
        stop: threading.Event,
        max_body_bytes: int,
        batch_rows: int = _BATCH_ROWS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name=f"relay-{label}", daemon=True)
        self.label = label
        self._url = url
        self._listen_url = listen_url
        self._carrier = carrier
        self._stop_event = stop
        self._limit = max_body_bytes
        self._rows = batch_rows
        self._clock = clock
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        self._listener: psycopg.Connection[Any] | None = None
        self._listen_at = 0.0
        self._lost: str | None = None
        self._refused = False
        #: Jobs of the present batch that had ended before.
        self._again = 0
        #: Whether the database answers.
        self.is_ready = False
        #: What ended the thread, if something did.
        self.fault: str | None = None

    def wake(self) -> None:
        """End a wait now. Thread-safe, and for signal handlers."""
        with suppress(OSError):
            os.write(self._wake, b"\0")

    def run(self) -> None:
        """Drain, whatever happens to the database, until told to stop."""
        try:
            self._run()
        except Exception as error:
            self.fault = f"{self.label}: {type(error).__name__}: {error}"
            log.exception("relay.failed", database=self.label)
        finally:
            self._close_listener()
            os.close(self._woken)
            os.close(self._wake)

    def _run(self) -> None:
        attempt = 0
        while not self._stop_event.is_set():
            try:
                with self._connect(self._url, autocommit=True) as connection:
                    table = Table(connection)
                    table.counts()
                    self._found()
                    attempt = 0
                    self._serve(table)
            except psycopg.Error as error:
                self._lose(error)
                self._close_listener()
                bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2**attempt)
                attempt = min(attempt + 1, 16)
                self._stop_event.wait(random.uniform(bound / 2, bound))  # noqa: S311

    # ------------------------------------------------------------------------------- the database

    def _connect(self, url: str, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(
            conninfo(url),
            **connect_options("leveret-relay"),
            client_encoding="utf8",
            tcp_user_timeout=20_000,
            **options,
        )

    def _found(self) -> None:
        self.is_ready = True
        if self._lost is not None:
            log.warning("relay.database_found", database=self.label)
            self._lost = None

    def _lose(self, error: psycopg.Error) -> None:
        self.is_ready = False
        for gauge in (metrics.OUTBOX_PENDING, metrics.OUTBOX_OLDEST, metrics.OUTBOX_FAILED):
            gauge.labels(self.label).set(math.nan)
        if isinstance(error, psycopg.errors.UndefinedTable):
            reason = "it has no table leveret_outbox; `leveret outbox ddl` prints it"
        else:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
        if self._lost is None or (self._lost != type(error).__name__ and error.sqlstate):
            log.warning("relay.database_lost", database=self.label, reason=reason)
        self._lost = type(error).__name__

    # ------------------------------------------------------------------------------------ the loop

    def _serve(self, table: Table) -> None:
        cursor = Cursor()
        released, counting = Pace(least=_RELEASED_SECONDS), Pace(least=_COUNT_SECONDS)
        fresh = False
        while self._await_broker(table, counting):
            if self._listener is None:
                self._listen()
            now = time.monotonic()
            begin = cursor.begin(now, fresh=fresh)
            fresh = False
            taken, seconds = self._batch(table, partial(table.take_ready, begin))
            last = taken[-1].id if taken else None
            now = time.monotonic()
            cursor.scanned(begin, last, full=len(taken) == self._rows, seconds=seconds, now=now)
            if not released.wait(now):
                while len(self._batch(table, table.take_released)[0]) == self._rows:
                    if not self._await_broker(table, counting):
                        return
                released.spent(0, now=time.monotonic())
            if not counting.wait(now):
                self._count(table, counting)
            now = time.monotonic()
            if self._refused:
                self._stop_event.wait(_LONGEST_DELAY)
            elif not cursor.more(now):
                longest = min(self._poll_seconds, released.wait(now), counting.wait(now))
                fresh = self._wait(cursor.wait(now, max(longest, 0.01)))

    @property
    def _poll_seconds(self) -> float:
        return _POLL_WITHOUT_LISTEN_SECONDS if self._listener is None else _POLL_SECONDS

    def _await_broker(self, table: Table, counting: Pace) -> bool:
        """Return when the broker takes messages, True, or when the relay is to stop, False.

        Meanwhile the outbox grows, and that is to be seen.
        """
        while not self._carrier.wait_ready(counting.wait(time.monotonic())):
            if self._stop_event.is_set():
                return False
            self._count(table, counting)
        return True

    def _count(self, table: Table, counting: Pace) -> None:
        began = time.monotonic()
        pending, oldest, failed = table.counts()
        now = time.monotonic()
        counting.spent(now - began, now=now)
        metrics.OUTBOX_PENDING.labels(self.label).set(pending)
        metrics.OUTBOX_OLDEST.labels(self.label).set(oldest)
        metrics.OUTBOX_FAILED.labels(self.label).set(failed)

    # ---------------------------------------------------------------------------------- one batch

    def _batch(self, table: Table, take: Callable[[int], list[Row]]) -> tuple[list[Row], float]:
        """Move a batch in one transaction; return its rows, and how long it took to find them."""
        began = time.monotonic()
        rows = take(self._rows)
        found = time.monotonic() - began
        if rows:
            published = self._again = 0
            for chunk in _chunks(rows):
                done, go_on = self._move(table, chunk)
                published += done
                if not go_on:
                    break
            self.commit(table)
            metrics.RELAY_PUBLISHED.labels(self.label).inc(published)
            metrics.REPLAYED.inc(self._again)
            metrics.RELAY_BATCH.labels(self.label).observe(time.monotonic() - began)
        else:
            table.rollback()
        return rows, found

    def _move(self, table: Table, rows: Sequence[Row]) -> tuple[int, bool]:
        """Publish some rows and note what became of them; return how many left, and whether on."""
        parcels = self._pack(table, rows)
        if not parcels:
            return 0, True
        self.publish(parcels)
        self.settle(table, [parcel.row for parcel in parcels if parcel.delivered])
        delivered = stayed = 0
        refusal: PublishError | None = None
        for parcel in parcels:
            if parcel.delivered:
                delivered += 1
                self._again += parcel.again
                continue
            error = parcel.error or PublishTimeout("no confirm came in time")
            match fate_of(error):
                case Fate.SET_ASIDE:
                    self._set_aside(table, parcel.row, str(error))
                case Fate.PUT_OFF:
                    table.put_off(parcel.row, _PUT_OFF, str(error))
                case Fate.REFUSED_AS_ALL:
                    refusal, stayed = error, stayed + 1
                case Fate.STAYS:
                    stayed += 1
        self._note_refusal(refusal, delivered)
        return delivered, stayed == 0

    def _note_refusal(self, refusal: PublishError | None, delivered: int) -> None:
        if refusal is not None and not self._refused:
            log.error("relay.refused", database=self.label, reason=str(refusal))
        elif refusal is None and delivered and self._refused:
            log.warning("relay.accepted_again", database=self.label)
        if refusal is not None or delivered:
            self._refused = refusal is not None

    def publish(self, parcels: Sequence[Parcel]) -> None:
        """Publish, and wait for the confirms."""
        self._carrier.carry(parcels)

    def settle(self, table: Table, ids: Sequence[int]) -> None:
        """Delete the rows whose messages are in the broker."""
        if ids:
            table.delete(ids)

    def commit(self, table: Table) -> None:
        """End the batch's transaction."""
        table.commit()

    def _pack(self, table: Table, rows: Sequence[Row]) -> list[Parcel]:
        """Make messages of rows; hold or set aside those that are none."""
        now = self._clock()
        packed: list[tuple[Row, Message, Passage | None]] = []
        tracer = tracing.tracer()
        for row in rows:
            try:
                if row.body_bytes > self._limit:
                    raise InvalidJob(  # noqa: TRY301 - one way out for all that is refused
                        Reason.TOO_LARGE,
                        f"the body has {row.body_bytes} bytes; {self._limit} are the limit",
                    )
                passage = None if tracer is None else Passage(tracer, row, self.label)
                message = message_of(row, now=now, carry=passage)
            except InvalidJob as error:
                self._set_aside(table, row.id, str(error))
                continue
            except Exception as error:  # whatever it is, it must not stop those beside it
                log.exception("relay.row_unread", database=self.label, row=row.id)
                self._set_aside(table, row.id, f"{type(error).__name__}: {error}")
                continue
            if isinstance(message, Held):
                table.hold(row.id, message.until)
            else:
                packed.append((row, message, passage))
        large = [row.id for row, _, _ in packed if row.body is None]
        bodies = table.bodies(large) if large else {}
        return [
            Parcel(
                row.id,
                message.exchange,
                message.routing_key,
                message.properties,
                bodies[row.id] if row.body is None else row.body,
                again=row.properties is not None,
                passage=passage,
            )
            for row, message, passage in packed
        ]

    def _set_aside(self, table: Table, row: int, error: str) -> None:
        table.set_aside(row, error)
        log.error("relay.set_aside", database=self.label, row=row, error=error)

    # ------------------------------------------------------------------------------------- waiting

    def _listen(self) -> None:
        if time.monotonic() < self._listen_at:
            return
        first = self._listen_at == 0.0
        self._listen_at = time.monotonic() + _LISTEN_AGAIN_SECONDS
        try:
            listener = self._connect(self._listen_url, autocommit=True)
            listener.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error as error:
            if first:
                reason = " ".join(str(error).split())[:300]
                log.warning("relay.cannot_listen", database=self.label, reason=reason)
            return
        self._listener = listener

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        self._listen_at = 0.0
        if listener is not None:
            with suppress(psycopg.Error):
                listener.close()

    def _wait(self, seconds: float) -> bool:
        """Wait for a notification; tell whether one came."""
        listener = self._listener
        ends = [self._woken] if listener is None else [self._woken, listener.fileno()]
        readable, _, _ = select.select(ends, [], [], seconds)
        if self._woken in readable:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if listener is not None and listener.fileno() in readable:
            for _ in listener.notifies(timeout=0):
                pass
            return True
        return False


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut a batch where the bodies become too many to be held at once."""
    start = size = 0
    for index, row in enumerate(rows):
        if size and size + row.body_bytes > _BATCH_BYTES:
            yield rows[start:index]
            start, size = index, 0
        size += row.body_bytes
    yield rows[start:]
