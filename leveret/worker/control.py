"""What a worker is told by others: which jobs it must not start.

Each worker process has an exclusive queue on the fanout ``leveret.control``, and holds the jobs
that were cancelled. A delivery of such a job ends as `Cancelled` before it starts: when it comes,
when it has waited in this process, and when it is the copy of a retry that comes out of the wheel
in a week.

What was said while a worker was not connected, it reads in the ledger (table ``cancellations``), if
it has a database: first it listens, then it reads, then it begins to consume jobs, so that nothing
falls in between. A database that does not answer holds the jobs up for a moment only; the reading
goes on in the background.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from leveret import names
from leveret.amqp import IOThread
from leveret.control import decode_cancel

if TYPE_CHECKING:
    from leveret.amqp.connection import Connection
    from leveret.message import Job

__all__ = ["Control"]

log = logging.getLogger("leveret.worker")

#: How long jobs wait for the control queue and for what the database says.
PREPARE_SECONDS = 3.0
#: Cancelled jobs that a process holds; the oldest are forgotten.
MAX_CANCELLED = 100_000
_AGAIN_SECONDS = 30.0
_FIRST_DELAY = 1.0

Load = Callable[[], Mapping[str, int]]


class Control:
    """The jobs that must not be started, by id, with the last run that this holds for.

    `is_cancelled` may be asked from any thread; the rest is for the IO thread. ``load`` reads from
    the database what is cancelled, on a thread of its own; ``on_cancelled()`` is called when there
    are more than before.
    """

    def __init__(
        self,
        io: IOThread,
        worker_id: str,
        *,
        load: Load | None,
        on_cancelled: Callable[[], object],
    ) -> None:
        self._io = io
        self._worker_id = worker_id
        self._load = load
        self._on_cancelled = on_cancelled
        self._runs: OrderedDict[str, int] = OrderedDict()
        self._connections = 0
        self._closed = False
        self._failed = False
        #: Whether it listens.
        self.is_listening = False

    def is_cancelled(self, job: Job) -> bool:
        """Tell whether a job must not be started. Thread-safe."""
        run = self._runs.get(job.id)
        return run is not None and job.run <= run

    def knows(self, job_id: object) -> bool:
        """Tell whether there may be something about a job. Thread-safe."""
        return job_id in self._runs

    def close(self) -> None:
        """Stop reading from the database. Thread-safe."""
        self._closed = True

    # ---------------------------------------------------------------------------- on the IO thread

    def prepare(self, connection: Connection, begin: Callable[[], object]) -> None:
        """Listen on a new connection and read what was missed; then ``begin()``, in any case."""
        self._connections += 1
        self.is_listening = False
        number = self._connections
        begun = False

        def once() -> None:
            nonlocal begun
            if not begun:
                begun = True
                begin()

        self._io.call_later(PREPARE_SECONDS, once)
        self._listen(connection, number, once)

    def _listen(self, connection: Connection, number: int, begin: Callable[[], object]) -> None:
        if number != self._connections or not connection.is_open or self._closed:
            return
        # A queue of the last connection may still be there, and is nobody else's.
        queue = f"{names.CONTROL}.{self._worker_id}-{number}"

        def opened(channel: Any) -> None:
            def bind(_frame: Any) -> None:
                channel.queue_bind(queue, names.CONTROL, callback=consume)

            def consume(_frame: Any) -> None:
                channel.basic_consume(
                    queue, self._heard, auto_ack=True, exclusive=True, callback=consuming
                )

            channel.add_on_close_callback(closed)
            channel.queue_declare(queue, exclusive=True, auto_delete=True, callback=bind)

        def consuming(_frame: Any) -> None:
            self.is_listening = True
            self._failed = False
            if self._load is None:
                begin()
                return
            threading.Thread(
                target=self._read,
                args=(self._load, number, begin),
                name="leveret-cancellations",
                daemon=True,
            ).start()

        def closed(_channel: Any, error: Exception) -> None:
            if number != self._connections or not connection.is_open or self._closed:
                return
            self.is_listening = False
            if not self._failed:
                self._failed = True
                log.warning("this worker hears no cancellations (%s); trying again", error)
            begin()
            self._io.call_later(_AGAIN_SECONDS, lambda: self._listen(connection, number, _nothing))

        connection.channel(on_open_callback=opened)

    def _heard(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        runs = decode_cancel(properties.type, body)
        if runs:
            self._add(runs)
        else:
            log.debug("ignoring a control message of type %r", properties.type)

    def _add(self, runs: Mapping[str, int]) -> None:
        more = False
        for job_id, run in runs.items():
            known = self._runs.get(job_id)
            if known is None or known < run:
                self._runs[job_id] = run
                more = True
        forgotten = len(self._runs) - MAX_CANCELLED
        if forgotten > 0:
            for _ in range(forgotten):
                self._runs.popitem(last=False)
            log.warning(
                "%d cancellations are forgotten: a worker holds %d", forgotten, MAX_CANCELLED
            )
        if more:
            self._on_cancelled()

    # -------------------------------------------------------------------------- on its own thread

    def _read(self, load: Load, number: int, begin: Callable[[], object]) -> None:
        """Read what is cancelled, until it is read or there is a newer connection."""
        delay = _FIRST_DELAY
        told = False
        while number == self._connections and not self._closed:
            try:
                runs = load()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                if not told:
                    told = True
                    log.warning(
                        "the cancellations in the database cannot be read (%s); jobs run meanwhile",
                        " ".join(str(error).split())[:200],
                    )
                end = time.monotonic() + delay * random.uniform(0.5, 1.0)  # noqa: S311
                while time.monotonic() < end and not self._closed:
                    time.sleep(0.2)
                delay = min(_AGAIN_SECONDS, delay * 2)
                continue

            def read() -> None:
                self._add(runs)  # noqa: B023 - the loop ends here
                begin()

            self._io.call_soon(read)
            return


def _nothing() -> None:
    """Begin nothing: the jobs have begun long ago."""
