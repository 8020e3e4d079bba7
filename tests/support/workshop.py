"""Workers in the test's own process, with actors that the test can hold and count."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import leveret
from leveret.broker import LeveretBroker
from leveret.worker import Worker
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import dramatiq

QUICK = leveret.Backoff(base=timedelta(seconds=0.3), jitter=False)


class Workshop:
    """A Dramatiq broker with actors, and the workers that run them.

    ``probe.run`` returns at once, ``probe.hold`` when the gate is open, ``probe.fail_once`` fails
    its first attempt, ``probe.refuse`` becomes a dead letter.
    """

    def __init__(self) -> None:
        self.broker = LeveretBroker(middleware=[])
        self.gate = threading.Event()
        #: How often each job has started, and come to its end.
        self.starts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._workers: list[Worker] = []

        self.actor("probe.run")(self._run)
        self.actor("probe.hold")(self._hold)
        self.actor("probe.fail_once")(self._fail_once)
        self.actor("probe.refuse")(self._refuse)

    def actor(self, name: str, **options: Any) -> Any:
        """Declare a further actor."""
        return leveret.actor(name, **{"broker": self.broker, "backoff": QUICK, **options})

    @property
    def actors(self) -> dict[str, dramatiq.Actor[..., Any]]:
        """The declared actors."""
        return self.broker.actors

    def start(self, url: str, **options: Any) -> Worker:
        """Start a worker; return when it is ready."""
        worker = Worker(self.broker, url, **{"queues": ["default"], "threads": 4, **options})
        self._workers.append(worker)
        worker.start()
        wait_until(lambda: worker.is_ready, timeout=20, what="the worker is ready")
        return worker

    def stop(self, worker: Worker, grace: float = 10.0) -> bool:
        """Stop a worker, once; tell whether all its jobs had ended."""
        self._workers.remove(worker)
        return worker.stop(grace)

    def close(self) -> None:
        """Let everything go, and stop the workers."""
        self.gate.set()
        for worker in [*self._workers]:
            self.stop(worker, 5)

    def running(self) -> int:
        """Count the runs that have not ended."""
        with self._lock:
            return self.starts.total() - self.ends.total()

    def count(self, counter: Counter[str]) -> None:
        """Count the job that runs in this thread."""
        job = leveret.current_job()
        assert job is not None
        with self._lock:
            counter[job.id] += 1

    def _run(self, n: int = 0) -> int:
        self.count(self.starts)
        self.count(self.ends)
        return n

    def _hold(self, n: int = 0) -> int:
        self.count(self.starts)
        assert self.gate.wait(60)
        self.count(self.ends)
        return n

    def _fail_once(self, n: int = 0) -> int:
        self.count(self.starts)
        self.count(self.ends)
        job = leveret.current_job()
        assert job is not None
        if job.attempt == 1:
            raise ConnectionError("the first attempt fails")
        return n

    def _refuse(self, n: int = 0) -> int:
        self.count(self.starts)
        self.count(self.ends)
        raise leveret.Dead(f"no retry can help job {n}")
