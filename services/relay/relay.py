"""The relay as a whole: one connection to the broker, a thread for each database, duties."""

from __future__ import annotations

import signal
import threading
import time

import structlog
from sqlalchemy import Engine

from leveret import metrics
from leveret.health import HealthServer, own_metrics
from leveret.settings import Settings
from leveret.store import engine as make_engine
from leveret.store.engine import conninfo, labels_of
from services.relay.carrier import Carrier
from services.relay.duty import DUTIES, DutyThread
from services.relay.source import Source

__all__ = ["Relay"]

log = structlog.get_logger("leveret.relay")

#: On SIGTERM: a batch that is under way may take so long.
_GRACE_SECONDS = 5.0
_LOOK_SECONDS = 0.2


class Relay:
    """Runs until it is told to stop; `run` returns the exit status."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        #: Set by a signal's handler, which must not touch what its own thread may be holding.
        self._told = False
        outboxes = settings.outboxes()
        if settings.outbox_urls is not None:
            for url, listen_url in outboxes:
                conninfo(url, variable="LEVERET_OUTBOX_URLS")
                conninfo(listen_url, variable="LEVERET_OUTBOX_LISTEN_URLS")
        labels = labels_of([url for url, _ in outboxes])
        self._carrier = Carrier(settings.require_amqp_url(), stop=self._stop)
        self._sources = [
            Source(
                label,
                url,
                listen_url,
                carrier=self._carrier,
                stop=self._stop,
                max_body_bytes=settings.max_body_bytes,
            )
            for label, (url, listen_url) in zip(labels, outboxes, strict=True)
        ]
        self._engine: Engine | None = None
        if settings.database_url is not None and DUTIES:
            self._engine = make_engine(
                settings.database_url, pool_size=len(DUTIES), application="leveret-relay"
            )

    def run(self) -> int:
        """Relay until SIGTERM; the status is 1 when a thread has failed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        server = HealthServer(
            self._settings.http_host,
            self._settings.http_port,
            livez=self.faults,
            readyz=self.is_ready,
            metrics=own_metrics,
        )
        metrics.announce(metrics.RELAY)
        server.start()
        duties: list[DutyThread] = []
        if self._engine is not None:
            duties = [
                DutyThread(name, duty, self._engine, self._settings, stop=self._stop)
                for name, duty in DUTIES.items()
            ]
        log.info(
            "relay.starting",
            databases=",".join(source.label for source in self._sources),
            http=server.address,
        )
        for thread in (*self._sources, *duties):
            thread.start()
        while not self._told and not self.faults():
            time.sleep(_LOOK_SECONDS)
        self.stop()
        end = time.monotonic() + _GRACE_SECONDS
        for thread in (*self._sources, *duties):
            thread.join(max(0.1, end - time.monotonic()))
        faults = self.faults()
        self._carrier.close()
        if self._engine is not None:
            self._engine.dispose()
        server.stop()
        log.info("relay.stopped")
        return 1 if faults else 0

    def stop(self) -> None:
        """Tell every thread to end after its batch. Thread-safe."""
        self._stop.set()
        for source in self._sources:
            source.wake()

    def faults(self) -> list[str]:
        """Say what is wrong and will not get better by itself."""
        faults = [source.fault for source in self._sources if source.fault is not None]
        if not self._carrier.is_alive and not self._stop.is_set():
            faults.append("the connection's thread has ended")
        return faults

    def is_ready(self) -> bool:
        """Tell whether the broker takes messages, and every database answers."""
        return (
            not self._stop.is_set()
            and self._carrier.is_ready
            and all(source.is_ready for source in self._sources)
        )

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._told = True
