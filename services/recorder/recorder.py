"""The recorder's loop: take what has come, write it, ack it.

One thread writes. What comes in while a batch is being written is the next batch: batches are small
and quick when there is little to do, and large when there is much. Messages are acked after the
commit, so whatever dies in between, the broker delivers them again, and writing them again changes
nothing. While the database is away, the batch is held and tried again; the broker keeps the rest.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import timedelta

import psycopg
import structlog
from sqlalchemy import text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from leveret import metrics, names
from leveret.amqp import IOThread
from leveret.amqp.connection import thread_name
from leveret.ledger.abandon import SILENCE, Abandonments
from leveret.ledger.batch import Batch
from leveret.ledger.writer import BadData, Writer
from services.recorder.intake import Arrival, Intake
from services.recorder.lettercounts import LetterCounts
from services.recorder.spans import buried

__all__ = ["Recorder"]

log = structlog.get_logger("leveret.recorder")

#: Messages in one transaction, at most; a message with records may have hundreds of them.
_MAX_BATCH = 4_000
_MAX_BATCH_BYTES = 2 * 1024 * 1024
#: After a batch of so many messages, more are waited for.
_FULL_ENOUGH = 200
_LINGER_SECONDS = 0.05
_IDLE_SECONDS = 0.5
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0
_IO_SILENCE_SECONDS = 15.0
#: How often the broker is asked what the ledger's queue holds.
_LOOK_SECONDS = 1.0
#: An answer of the broker counts for so long.
_LOOK_VALID_SECONDS = 5.0
#: What has waited for longer means that the ledger is behind.
_BEHIND_SECONDS = 2.0
_GAUGE_SECONDS = 10.0

_OPEN_LETTERS = text(
    "SELECT COALESCE(sum(open), 0), count(*) FILTER (WHERE open > 0) FROM dead_letter_groups"
)


class Recorder:
    """Records until it is told to stop. `run` is for one thread; the rest may be used from any.

    ``silence`` is how long a worker may say nothing until it counts as gone.
    """

    def __init__(
        self,
        url: str,
        engine: Engine,
        *,
        queues: Sequence[str],
        name: str,
        silence: timedelta = SILENCE,
    ) -> None:
        self._engine = engine
        self._writer = Writer(engine)
        self._abandonments = Abandonments(silence)
        self._silence = silence.total_seconds()
        self._letter_counts = LetterCounts(queues)
        self._io = IOThread(thread_name("recorder"))
        self._intake = Intake(
            self._io,
            url,
            name=name,
            queues=[names.LEDGER, *map(names.dead_queue, queues), names.UNROUTABLE],
            on_count=self._counted,
        )
        self._stopping = False
        self._database_is_there = True
        self._held: Sequence[Arrival] = ()
        now = time.monotonic()
        # When the ledger was last known not to be up to date, and when the broker last said it is.
        self._behind_at = now
        self._empty_at = 0.0
        self._next_look = self._next_sweep = self._next_gauge = 0.0
        metrics.LEDGER_LAG.set_function(self.lag)

    def stop(self) -> None:
        """Have `run` finish its batch and return. Fit for a signal handler."""
        self._stopping = True
        self._intake.wake()

    def run(self) -> None:
        """Record until `stop`."""
        self._intake.open()
        try:
            while not self._stopping:
                arrivals = self._intake.take(
                    most=_MAX_BATCH, most_bytes=_MAX_BATCH_BYTES, timeout=_IDLE_SECONDS
                )
                if arrivals:
                    self._held = arrivals
                    if self._record(arrivals):
                        self._intake.ack(arrivals)
                        buried(arrivals)
                        self._held = ()
                self._keep_house()
                if len(arrivals) >= _FULL_ENOUGH and self._intake.waiting < _FULL_ENOUGH:
                    time.sleep(_LINGER_SECONDS)
        finally:
            self._intake.close()
            self._io.stop()

    # ------------------------------------------------------------------------------------ writing

    def _record(self, arrivals: Sequence[Arrival]) -> bool:
        """Write messages; tell whether they are written, which they are unless it is to stop."""
        batch = Batch()
        for arrival in arrivals:
            batch.add(arrival.message, arrival.received_at)
        try:
            return self._write(batch)
        except BadData as error:
            why = str(error)
        # Write what can be written, and set the rest aside.
        if len(arrivals) > 1:
            half = len(arrivals) // 2
            return self._record(arrivals[:half]) and self._record(arrivals[half:])
        message = arrivals[0].message
        log.error("ledger.rejected", queue=message.queue, error=why[:500])
        batch = Batch()
        batch.reject(message, f"the database cannot store it: {why}")
        return self._write(batch)

    def _write(self, batch: Batch) -> bool:
        """Write a batch, however long it takes; tell whether it is written."""
        delay = _FIRST_DELAY
        lost_at: float | None = None
        while True:
            begin = time.perf_counter()
            try:
                self._writer.write(batch, again=lost_at is not None)
            except (psycopg.Error, SQLAlchemyError) as error:
                self._database_is_there = False
                if lost_at is None:
                    lost_at = time.monotonic()
                    log.warning("ledger.database_away", error=_one_line(error))
                if self._stopping:
                    return False
                self._engine.dispose()
                time.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter
                delay = min(_LONGEST_DELAY, delay * 2)
                continue
            self._database_is_there = True
            if lost_at is not None:
                log.warning("ledger.database_back", seconds=round(time.monotonic() - lost_at, 1))
            metrics.LEDGER_BATCH_SECONDS.observe(time.perf_counter() - begin)
            for kind, number in batch.counts.items():
                metrics.LEDGER_EVENTS.labels(kind).inc(number)
            metrics.LEDGER_REJECTS.inc(len(batch.rejects))
            self._letter_counts.count(batch)
            return True

    # ------------------------------------------------------------------------------- housekeeping

    def _keep_house(self) -> None:
        """Do what is due beside recording; what fails is done the next time."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._intake.count(names.LEDGER)
        if not self._is_up_to_date(now):
            self._behind_at = now
        try:
            if now - self._behind_at >= self._silence and now >= self._next_sweep:
                self._next_sweep = now + self._silence / 3
                self._abandon()
            if now >= self._next_gauge:
                self._next_gauge = now + _GAUGE_SECONDS
                with self._engine.connect() as connection:
                    letters, groups = connection.execute(_OPEN_LETTERS).one()
                metrics.DEAD_LETTERS_OPEN.set(letters)
                metrics.DEAD_LETTER_GROUPS_OPEN.set(groups)
        except (psycopg.Error, SQLAlchemyError, BadData) as error:
            log.debug("ledger.housekeeping_failed", error=_one_line(error))

    def _counted(self, _queue: str, messages: int) -> None:
        """Take note of how many messages the broker has for nobody yet; on the IO thread."""
        if not messages:
            self._empty_at = time.monotonic()

    def _is_up_to_date(self, now: float) -> bool:
        """Tell whether all that was told until a moment ago is written.

        The queue has nothing that nobody holds, and what is held here is fresh. What another
        recorder holds it writes itself; one that cannot loses its connection in the end.
        """
        oldest = self._intake.oldest
        return (
            self._intake.is_ready
            and now - self._empty_at < _LOOK_VALID_SECONDS
            and (oldest is None or time.time() - oldest.received_at < _BEHIND_SECONDS)
        )

    def _abandon(self) -> None:
        with self._engine.begin() as connection:
            events = self._abandonments.find(connection)
        if events:
            batch = Batch()
            for event in events:
                batch.add_event(event)
            self._writer.write(batch)
            log.warning("ledger.abandoned", runs=len(events), such_as=events[0].id)

    # ------------------------------------------------------------------------------------- health

    def lag(self) -> float:
        """Return the age in seconds of the oldest event that is not written; 0 when all are."""
        held = self._held
        oldest = held[0] if held else self._intake.oldest
        if oldest is None:
            return 0.0
        now = time.time()
        published = oldest.message.properties.timestamp
        age = now - oldest.received_at
        # The broker's clock has seconds only.
        if isinstance(published, int) and now - published > age + 2:
            age = now - published
        return max(0.0, age)

    @property
    def is_ready(self) -> bool:
        """Whether every queue is consumed and the database takes what is written."""
        return not self._stopping and self._intake.is_ready and self._database_is_there

    def faults(self) -> list[str]:
        """Say what is wrong and will not get better by itself."""
        silence = time.monotonic() - self._io.last_tick
        if not self._io.is_alive or silence > _IO_SILENCE_SECONDS:
            return [f"the IO thread has been silent for {silence:.0f} s"]
        return []


def _one_line(error: Exception) -> str:
    """Say what an error of the database says, without its statement."""
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:300]
