"""Does the relay slow down as dead rows pile up? `python -m tests.benchmarks.outbox --hold`.

Waves of jobs are committed to the outbox of a private PostgreSQL, and one relay empties it after
each, into an exchange that nothing is bound to: what is measured is the relay and the table, not
queues. With `--hold` a transaction stays open elsewhere in the database, so that no vacuum can
remove a dead row. `--from-the-start` scans as one would without a cursor, for comparison.
"""

import argparse
import secrets
import statistics
import sys
import threading
import time
from contextlib import ExitStack

import pika
import psycopg

from compose.native.paths import Checkout
from compose.native.postgres import PostgresServer
from leveret import names, outbox
from leveret.store.outbox import statements
from services.relay.carrier import Carrier
from services.relay.cursor import Cursor
from services.relay.source import Source
from tests.benchmarks.node import Node

_WAVE = """
INSERT INTO leveret_outbox (job_id, actor, queue, body)
SELECT gen_random_uuid()::text, 'order.pack', 'bulk',
    convert_to('{"order":' || n || ',"note":"' || repeat('x', 80) || '"}', 'UTF8')
FROM generate_series(1, %s) AS n"""
_SIZES = """
SELECT pg_table_size('leveret_outbox') / 1048576.0, pg_indexes_size('leveret_outbox') / 1048576.0,
    (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'leveret_outbox'),
    (SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'leveret_outbox')"""


def main(arguments: list[str]) -> int:
    """Run the waves and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.outbox", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--waves", type=int, default=20)
    parser.add_argument("--hold", action="store_true", help="keep a transaction open elsewhere")
    parser.add_argument("--from-the-start", action="store_true", help="scan without a cursor")
    chosen = parser.parse_args(arguments)
    if chosen.from_the_start:
        Cursor.begin = lambda self, now, fresh=False: 0  # type: ignore[method-assign]
    with ExitStack() as stack:
        node = stack.enter_context(Node())
        node.create_vhost("outbox")
        with pika.BlockingConnection(pika.URLParameters(node.amqp_url("outbox"))) as connection:
            connection.channel().exchange_declare(names.JOBS, "topic", durable=True)
        server = PostgresServer(
            Checkout.here().new_scratch("postgres"), password=secrets.token_urlsafe(16)
        )
        stack.callback(server.destroy)
        server.start()
        with psycopg.connect(server.url()) as connection:
            for statement in statements():
                connection.execute(statement)
        stop = threading.Event()
        carrier = Carrier(node.amqp_url("outbox"), stop=stop)
        source = Source(
            "bench", server.url(), server.url(), carrier=carrier, stop=stop, max_body_bytes=1 << 20
        )
        stack.callback(carrier.close)
        stack.callback(source.join)
        stack.callback(source.wake)
        stack.callback(stop.set)
        source.start()
        _waves(server.url(), chosen.jobs // chosen.waves, chosen.waves, hold=chosen.hold)
    return 0


def _waves(url: str, size: int, waves: int, *, hold: bool) -> None:
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as connection:
        if hold:
            holder.execute("SELECT txid_current()")
        print(
            "   jobs   jobs/s   one job ms   table MB   index MB   dead rows   vacuums", flush=True
        )
        for wave in range(1, waves + 1):
            connection.execute(_WAVE, (size,))
            began = time.monotonic()
            _wait_until_empty(connection)
            rate = size / (time.monotonic() - began)
            one = statistics.median(_one(url, connection) for _ in range(15))
            table, index, dead, vacuums = connection.execute(_SIZES).fetchone() or (0, 0, 0, 0)
            print(
                f"{wave * size:>7} {rate:>8.0f} {one * 1000:>12.1f} {table:>10.0f} {index:>10.0f}"
                f" {dead:>11} {vacuums:>9}",
                flush=True,
            )


_LATEST = "SELECT id FROM leveret_outbox WHERE id = (SELECT last_value FROM leveret_outbox_id_seq)"


def _wait_until_empty(connection: psycopg.Connection) -> None:
    # By the last id: this must not walk over what is dead.
    while connection.execute(_LATEST).fetchone() is not None:
        time.sleep(0.01)


def _one(url: str, connection: psycopg.Connection) -> float:
    """Return the seconds from a commit until the row is gone: published, confirmed, deleted."""
    with psycopg.connect(url) as service:
        outbox.enqueue(service, "order.pack", {"order": 1}, queue="bulk")
        began = time.monotonic()
        service.commit()
        while connection.execute(_LATEST).fetchone() is not None:
            time.sleep(0.0005)
        return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
