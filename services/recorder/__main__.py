"""``python -m services.recorder``."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time

import structlog
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from leveret import health, logs, metrics, store
from leveret.errors import ConfigurationError
from leveret.settings import Settings
from leveret.store import migrate
from leveret.tracing import process
from services.recorder.recorder import Recorder

log = structlog.get_logger("leveret.recorder")

_LONGEST_DELAY = 5.0


def main() -> int:
    """Record until SIGTERM; the exit status is 0 then, and 2 when misconfigured."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _frame: stopping.append(n))
    try:
        settings = Settings.from_env()
        url, database_url = settings.require_amqp_url(), settings.require_database_url()
        logs.configure(settings.log_level, settings.log_format)
        process.configure("recorder")
        engine = store.engine(database_url, pool_size=2, application="leveret recorder")
        recorder = Recorder(
            url,
            engine,
            queues=settings.queues,
            name=f"leveret recorder {socket.gethostname().split('.')[0]}-{os.getpid()}",
        )
        server = health.HealthServer(
            settings.http_host,
            settings.http_port,
            livez=recorder.faults,
            readyz=lambda: recorder.is_ready,
            metrics=health.own_metrics,
        )
    except ConfigurationError as error:
        print(f"leveret recorder: {error}", file=sys.stderr)
        return 2
    metrics.announce(metrics.RECORDER)
    server.start()  # from here on probes are answered, also while the database is away
    try:
        if not _wait_for(engine, stopping):
            return 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _n, _frame: recorder.stop())
        if stopping:
            recorder.stop()
        log.info("recorder.starting", queues=",".join(settings.queues), http=server.address)
        recorder.run()
    except ConfigurationError as error:
        print(f"leveret recorder: {error}", file=sys.stderr)
        return 2
    finally:
        server.stop()
        engine.dispose()
        process.shutdown()
    log.info("recorder.stopped")
    return 0


def _wait_for(engine: Engine, stopping: list[int]) -> bool:
    """Return when the database answers, True, or when the process is to end, False.

    Raises `ConfigurationError` when its tables are not those of this release.
    """
    delay, begin, told = 0.2, time.monotonic(), False
    while not stopping:
        try:
            migrate.require(engine)
        except OperationalError as error:
            if not told:
                told = True
                cause = " ".join(str(error.orig).split())[:300]
                log.warning("recorder.waiting_for_database", error=cause)
            time.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter
            delay = min(_LONGEST_DELAY, delay * 2)
            continue
        if told:
            log.warning("recorder.database_found", seconds=round(time.monotonic() - begin, 1))
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
