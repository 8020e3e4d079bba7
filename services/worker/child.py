"""One child of the worker pool: loads the actors and runs a `leveret.worker.Worker`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import io
import json
import os
import select
import signal
import sys
import time

from leveret import exemplars, logs
from leveret.declaration import load_actors
from leveret.errors import ConfigurationError
from leveret.results.store import ResultStore
from leveret.settings import Settings
from leveret.tracing import process
from leveret.worker import Worker

_STATUS_SECONDS = 1.0
_LANE_IDLE_SECONDS = 15.0
#: What a status may bring with it, at most: bounds on what a second costs.
_EXEMPLARS_IN_LINE = 8
_MOST_LINES = 16
#: For spans that are not exported yet, at the end: at least, and at most while the grace lasts.
_FLUSH_SECONDS = 1.0
_LONGEST_FLUSH_SECONDS = 5.0


def main() -> int:
    """Run until SIGTERM, or until the launcher is gone."""
    options = _parse()
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _frame: stopping.append(n))
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    status = os.fdopen(options.status_fd, "wb", buffering=0)
    try:
        settings = Settings.from_env()
        logs.configure(settings.log_level, settings.log_format)
        if process.configure("worker"):
            process.instrument_http()
        broker = load_actors(
            settings.actors, queues=settings.queues, housekeeping=settings.housekeeping
        )
        results = None
        if settings.result_store is not None:
            results = ResultStore(settings.result_store)
        worker = Worker(
            broker,
            settings.require_amqp_url(),
            queues=options.queues.split(","),
            threads=options.threads,
            prefetch=options.prefetch,
            lane=options.lane,
            max_body_bytes=settings.max_body_bytes,
            database_url=settings.database_url,
            results=results,
            claims_url=settings.claims_url,
            claim_lease=settings.claim_lease,
            claim_keep=settings.claim_keep,
        )
        worker.start()
    except ConfigurationError as error:
        status.write(json.dumps({"fatal": str(error)}).encode() + b"\n")
        return 2
    gc.collect()
    gc.freeze()
    next_status = 0.0
    while not stopping:
        if time.monotonic() >= next_status:
            next_status = time.monotonic() + (_STATUS_SECONDS if worker.is_ready else 0.05)
            _report(status, worker)
        if not worker.is_alive:
            os._exit(1)  # nothing can be settled any more; the launcher starts another
        if options.lane and worker.idle_seconds > _LANE_IDLE_SECONDS:
            break
        wait = max(0.0, min(0.5, next_status - time.monotonic()))
        readable, _, _ = select.select([0, woken], [], [], wait)
        if 0 in readable and not os.read(0, 1):
            break  # the launcher is gone
    end = time.monotonic() + options.grace
    drained = worker.stop(options.grace)
    process.shutdown(max(_FLUSH_SECONDS, min(end - time.monotonic(), _LONGEST_FLUSH_SECONDS)))
    status.close()
    sys.stderr.flush()
    # Threads that do not heed their time limit must not hold the process back.
    os._exit(0 if drained else 1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.worker.child")
    parser.add_argument("--queues", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prefetch", type=int, default=0)
    parser.add_argument("--grace", type=float, default=30.0)
    parser.add_argument("--status-fd", type=int, required=True)
    parser.add_argument("--lane", action="store_true")
    return parser.parse_args()


def _report(status: io.RawIOBase, worker: Worker) -> None:
    line = json.dumps(dataclasses.asdict(worker.health())).encode() + b"\n"
    further: list[bytes] = []
    # A line leaves whole, or not at all, as long as it is no longer than a pipe takes at once.
    while len(further) < _MOST_LINES and (found := exemplars.take(_EXEMPLARS_IN_LINE)):
        further.append(json.dumps({"exemplars": found}, separators=(",", ":")).encode() + b"\n")
    with contextlib.suppress(BrokenPipeError):
        status.writelines((line, *(part for part in further if len(part) <= select.PIPE_BUF)))


if __name__ == "__main__":
    sys.exit(main())
