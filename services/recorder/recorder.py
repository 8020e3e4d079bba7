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

import psycopg
import structlog
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from leveret import metrics, names
from leveret.amqp import IOThread
from leveret.amqp.connection import thread_name
from leveret.ledger.batch import Batch
from leveret.ledger.writer import BadData, Writer
from services.recorder.intake import Arrival, Intake

__all__ = ["Recorder"]

log = structlog.get_logger("leveret.recorder")

#: Messages in one transaction, at most.
_MAX_BATCH = 4_000
_MAX_BATCH_BYTES = 32 * 1024 * 1024
#: A batch of so many messages is worth waiting for.
_FULL_ENOUGH = 200
#: How long after a large batch the next one is waited for.
_LINGER_SECONDS = 0.05
_IDLE_SECONDS = 0.5
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0
_IO_SILENCE_SECONDS = 15.0


class Recorder:
    """Records until it is told to stop. `run` is for one thread; the rest may be used from any."""

    def __init__(self, url: str, engine: Engine, *, queues: Sequence[str], name: str) -> None:
        self._engine = engine
        self._writer = Writer(engine)
        self._io = IOThread(thread_name("recorder"))
        self._intake = Intake(
            self._io,
            url,
            name=name,
            queues=[names.LEDGER, *map(names.dead_queue, queues), names.UNROUTABLE],
        )
        self._stopping = False
        self._database_is_there = True
        self._held: Sequence[Arrival] = ()
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
                        self._held = ()
                    if len(arrivals) >= _FULL_ENOUGH and self._intake.waiting < _FULL_ENOUGH:
                        time.sleep(_LINGER_SECONDS)
        finally:
            self._intake.close()
            self._io.stop()

    # ------------------------------------------------------------------------------------ writing

    def _record(self, arrivals: Sequence[Arrival]) -> bool:
        """Write messages, however long it takes; tell whether they are written."""
        batch = _read(arrivals)
        delay = _FIRST_DELAY
        lost_at: float | None = None
        while True:
            begin = time.perf_counter()
            try:
                self._writer.write(batch, again=lost_at is not None)
            except BadData as error:
                return self._isolate(arrivals, str(error))
            except (psycopg.Error, SQLAlchemyError) as error:
                self._database_is_there = False
                if lost_at is None:
                    lost_at = time.monotonic()
                    log.warning("ledger.database_away", error=_one_line(error), held=len(arrivals))
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
            return True

    def _isolate(self, arrivals: Sequence[Arrival], why: str) -> bool:
        """Write what can be written of a batch, and set the rest aside."""
        if len(arrivals) > 1:
            half = len(arrivals) // 2
            return self._record(arrivals[:half]) and self._record(arrivals[half:])
        message = arrivals[0].message
        log.error("ledger.rejected", queue=message.queue, error=why[:500])
        batch = Batch()
        batch.reject(message, f"the database cannot store it: {why}")
        self._writer.write(batch)
        metrics.LEDGER_REJECTS.inc()
        return True

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


def _read(arrivals: Sequence[Arrival]) -> Batch:
    batch = Batch()
    for arrival in arrivals:
        batch.add(arrival.message, arrival.received_at)
    return batch


def _one_line(error: Exception) -> str:
    """Say what an error of the database says, without its statement."""
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:300]
