"""A worker in the test's own process, and what a test asks of it."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pika

import leveret
from leveret import Backoff, Publisher
from leveret.broker import LeveretBroker
from leveret.names import DEAD, JOBS, LEDGER, dead_queue, quarantine_queue, work_queue
from leveret.worker import Worker
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.brokers import Vhost

#: For an actor whose retries a test does not want to wait for.
AT_ONCE = Backoff(base=timedelta(0), cap=timedelta(0))


def cut(link: Any) -> None:
    """Cut the TCP connection of a link, as a network does."""
    with contextlib.suppress(OSError):  # the broker was faster
        link.connection._transport._sock.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Letter:
    """A message as it lies in a queue."""

    body: bytes
    properties: pika.BasicProperties
    routing_key: str

    @property
    def headers(self) -> dict[str, Any]:
        """Its headers; an empty mapping when it has none."""
        return self.properties.headers or {}

    @property
    def reason(self) -> str | None:
        """Why it is a dead letter: our word, or `natively rejected`."""
        if "x-leveret-reason" in self.headers:
            return self.headers["x-leveret-reason"]
        return "natively rejected" if self.headers.get("x-death") else None


class Rig:
    """A worker of the test's own on a virtual host, with privileges of its role alone.

    Declare actors with `actor`, then `start`. `letters`, `records` and `ready` look into the
    broker as its owner.
    """

    def __init__(self, vhost: Vhost, *, middleware: Sequence[Any] | None = None) -> None:
        self.vhost = vhost
        self.broker = LeveretBroker(middleware=None if middleware is None else list(middleware))
        self.publisher = Publisher(vhost.url("publisher"), timeout=20)
        self.worker: Worker | None = None
        #: What actors have noted with `note`, in order.
        self.notes: list[Any] = []
        self._records: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._owner = pika.BlockingConnection(pika.URLParameters(vhost.amqp_url))
        self.channel = self._owner.channel()
        for queue in ("critical", "default", "bulk", "scheduled"):
            for name in (work_queue(queue), dead_queue(queue), quarantine_queue(queue)):
                self.channel.queue_purge(name)
        self.channel.queue_purge(LEDGER)
        self.channel.queue_purge("leveret.unroutable")

    def actor(self, name: str, **options: Any) -> Callable[..., Any]:
        """Declare an actor on this rig's broker; options as `leveret.actor`."""
        return leveret.actor(name, broker=self.broker, **options)

    def start(self, *, threads: int = 4, queues: Sequence[str] = ("default",), **options: Any):
        """Start the worker; return when it consumes."""
        self.worker = Worker(
            self.broker, self.vhost.url("worker"), queues=queues, threads=threads, **options
        )
        self.worker.start()
        wait_until(lambda: self.worker.is_ready, timeout=20, what="the worker is ready")
        return self.worker

    def stop(self, grace: float = 10.0) -> bool:
        """Drain the worker."""
        worker, self.worker = self.worker, None
        return worker is None or worker.stop(grace)

    def close(self) -> None:
        """End everything."""
        self.stop(2.0)
        self.publisher.close(2.0)
        if self._owner.is_open:
            self._owner.close()

    # ---------------------------------------------------------------------------- publishing

    def send(self, actor: str, arguments: Any = None, *, queue: str = "default", **options: Any):
        """Publish a job to a queue and return its id."""
        return self.publisher.send(actor, arguments or {}, queue=queue, **options)

    def raw(
        self,
        body: bytes,
        *,
        key: str = "default.work.do",
        exchange: str = JOBS,
        role: str = "publisher",
        wire: pika.BasicProperties | None = None,
        **properties: Any,
    ) -> None:
        """Publish any message and wait for the confirm, by default as a `publisher`.

        The role `owner` may publish whatever the broker takes from anybody.
        ``wire`` replaces the properties by some that are already made.
        """
        url = self.vhost.amqp_url if role == "owner" else self.vhost.url(role)
        connection = pika.BlockingConnection(pika.URLParameters(url))
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish(exchange, key, body, wire or pika.BasicProperties(**properties))
        finally:
            if connection.is_open:
                connection.close()

    # ------------------------------------------------------------------------------- looking

    def letters(
        self, count: int = 1, *, queue: str | None = None, timeout: float = 20.0
    ) -> list[Letter]:
        """Take ``count`` messages from a queue, by default the dead letters of `default`."""
        name = queue or f"{DEAD}.default"
        found: list[Letter] = []

        def take() -> bool:
            while len(found) < count:
                method, properties, body = self.channel.basic_get(name, auto_ack=True)
                if method is None:
                    return False
                found.append(Letter(body, properties, method.routing_key))
            return True

        wait_until(take, timeout=timeout, what=f"{count} messages in {name}")
        return found

    def ready(self, queue: str) -> int:
        """Count the messages that wait in an AMQP queue."""
        return self.channel.queue_declare(queue, passive=True).method.message_count

    def records(self, job_id: str, *events: str, timeout: float = 20.0) -> list[dict[str, Any]]:
        """Wait until the ledger has a record of each event for a job; return its records."""

        def told() -> bool:
            while True:
                method, properties, body = self.channel.basic_get(LEDGER, auto_ack=True)
                if method is None:
                    break
                if properties.type == "leveret.records":
                    for record in json.loads(body)["records"]:
                        if "id" in record:
                            self._records[record["id"]].append(record)
            return set(events) <= {r["event"] for r in self._records[job_id]}

        wait_until(told, timeout=timeout, what=f"records {events} of {job_id}")
        return self._records[job_id]

    def noted(self, count: int, *, timeout: float = 20.0) -> list[Any]:
        """Wait until actors have noted so much."""
        wait_until(lambda: len(self.notes) >= count, timeout=timeout, what=f"{count} notes")
        return self.notes

    def settled(self, *, queue: str = "default", timeout: float = 20.0) -> None:
        """Wait until nothing of a queue is waiting, running or unacked."""

        def idle() -> bool:
            worker = self.worker
            return (
                self.ready(work_queue(queue)) == 0
                and worker is not None
                and all(map(self._heard_out, list(worker._source._sessions.values())))
                and worker._is_idle()
                and not any(s.held for s in worker._source._sessions.values())
            )

        wait_until(idle, timeout=timeout, what="the worker is idle")

    def _heard_out(self, session: Any) -> bool:
        """Tell whether the worker has received what left the queue before this was called.

        What the broker has sent to a consumer is no longer ready, and may not be there yet; the
        answer to a question on the same channel comes after it.
        """
        answered = threading.Event()

        def ask() -> None:
            if session.channel.is_open:
                session.channel.queue_declare(
                    session.source, passive=True, callback=lambda _frame: answered.set()
                )

        self.worker._io.call_soon(ask)
        return answered.wait(5)


def publish_raw(
    channel: Any, exchange: str, key: str, body: bytes, properties: pika.BasicProperties
) -> None:
    """Publish with a confirm; raises when the broker refuses."""
    channel.basic_publish(exchange, key, body, properties)


def field(name: str | bytes, kind: bytes, payload: bytes) -> bytes:
    """Encode one field of a header table: its name, the letter of its type, its bytes."""
    name = name.encode() if isinstance(name, str) else name
    return struct.pack("B", len(name)) + name + kind + payload


class WireProperties(pika.BasicProperties):
    """Properties whose header table has the given bytes, which no client library would write."""

    def __init__(self, table: bytes, **properties: Any) -> None:
        super().__init__(headers={}, **properties)
        self._table = struct.pack(">I", len(table)) + table

    def encode(self) -> list[bytes]:
        """Encode them, with the bytes in the place of an empty table."""
        pieces = super().encode()
        pieces[pieces.index(b"\0\0\0\0", 1)] = self._table
        return pieces
