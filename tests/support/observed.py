"""A worker of the test's own, whose one actor writes down what it was called with."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pika

import leveret
from leveret import names
from leveret.broker import LeveretBroker
from leveret.worker import Worker
from leveret.worker.settlement import RECORDS_TYPE
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.brokers import Vhost


class Observed:
    """What the actor `email.send` of a worker has seen, and what became of its jobs."""

    def __init__(self, vhost: Vhost) -> None:
        self._vhost = vhost
        self._lock = threading.Lock()
        self._runs: list[dict[str, Any]] = []
        self._records: list[dict[str, Any]] = []
        #: Texts with which the actor fails.
        self.failing: set[str] = set()
        self.broker = LeveretBroker()

        @leveret.actor("email.send", broker=self.broker)
        def send(to: str, subject: str, text: str = "") -> str:
            job = leveret.current_job()
            run = {"job": job, "at": time.time(), "to": to, "subject": subject, "text": text}
            with self._lock:
                self._runs.append(run)
            if text in self.failing:
                raise ConnectionError(f"no mail server for {text!r}")
            return text

    def runs(self, text: str, count: int, timeout: float = 30) -> list[dict[str, Any]]:
        """Wait until jobs with this text have run so often; return the runs, first to last."""

        def enough() -> list[dict[str, Any]]:
            with self._lock:
                found = [run for run in self._runs if run["text"] == text]
            return found if len(found) >= count else []

        return wait_until(enough, timeout=timeout, what=f"{count} runs of {text!r}")

    def outcome(self, job_id: str, timeout: float = 30) -> dict[str, Any]:
        """Wait for the record of how a job ended, in the ledger queue, and return it."""

        def found() -> dict[str, Any] | None:
            self._collect()
            ended = (r for r in self._records if r.get("id") == job_id and r["event"] != "started")
            return next(ended, None)

        return wait_until(found, timeout=timeout, what=f"an outcome record of {job_id}", every=0.2)

    def _collect(self) -> None:
        """Take what is in the ledger queue."""
        with pika.BlockingConnection(pika.URLParameters(self._vhost.amqp_url)) as connection:
            channel = connection.channel()
            while True:
                method, properties, body = channel.basic_get(names.LEDGER, auto_ack=True)
                if method is None:
                    return
                if properties.type == RECORDS_TYPE:
                    self._records += json.loads(body)["records"]


@contextmanager
def observing_worker(vhost: Vhost) -> Iterator[Observed]:
    """Run a worker for all queues of a virtual host, whose `email.send` only takes notes."""
    observed = Observed(vhost)
    worker = Worker(observed.broker, vhost.url("worker"), queues=names.DEFAULT_QUEUES, threads=2)
    worker.start()
    try:
        wait_until(lambda: worker.is_ready, timeout=30, what="the worker is ready")
        yield observed
    finally:
        worker.stop(10)
