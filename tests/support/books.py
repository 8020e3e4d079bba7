"""What the ledger queue and the dead-letter queues say became of jobs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pika
import pika.exceptions

from leveret import names
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.support.brokers import Vhost

FINAL = {"succeeded", "dead", "expired", "cancelled"}


class Books:
    """Reads the ledger and the dead letters of a virtual host, each message once.

    It survives what the tests do to the broker: without a connection it knows what it has read.
    """

    def __init__(self, vhost: Vhost, queue: str = "default") -> None:
        self._vhost = vhost
        self._dead_queue = names.dead_queue(queue)
        self._connection: pika.BlockingConnection | None = None
        # One channel for all reads: acks that are just before a channel's end may not count.
        self._channel: Any = None
        self._seen: set[str] = set()
        #: The outcome records of each job, in the order of their arrival.
        self.records: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        #: Jobs that the tap at the entries has seen.
        self.published: Counter[str] = Counter()
        #: The headers of each dead letter, by job.
        self.dead_letters: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def outcomes(self, job_ids: Collection[str]) -> Counter[str]:
        """Count the records of these jobs by their event, without those of mere starts."""
        return Counter(
            record["event"]
            for job_id in job_ids
            for record in self.records[job_id]
            if record["event"] != "started"
        )

    def fates(self, job_ids: Collection[str]) -> Counter[str]:
        """Count like `outcomes`, but what is told twice of an attempt once, as a ledger does."""
        return Counter(
            event
            for _, event, _ in {
                (job_id, record["event"], record.get("attempt"))
                for job_id in job_ids
                for record in self.records[job_id]
                if record["event"] != "started"
            }
        )

    def unsettled(self, job_ids: Collection[str]) -> set[str]:
        """Read on; return the jobs that have no final outcome yet."""
        self.read()
        return {
            job_id
            for job_id in job_ids
            if not any(record["event"] in FINAL for record in self.records[job_id])
        }

    def wait_settled(self, job_ids: Collection[str], timeout: float = 60.0) -> None:
        """Return when each of these jobs has a final outcome."""

        def settled() -> bool:
            nonlocal left
            left = self.unsettled(job_ids)
            return not left

        left: set[str] = set()
        try:
            wait_until(settled, timeout=timeout, every=0.1)
        except TimeoutError:
            raise TimeoutError(
                f"{len(left)} of {len(job_ids)} jobs have no outcome after {timeout} s, "
                f"such as {sorted(left)[:3]}"
            ) from None

    def left_in(self, queue: str) -> int:
        """Count the messages of an AMQP queue that nobody holds."""
        connection = pika.BlockingConnection(pika.URLParameters(self._vhost.amqp_url))
        try:
            answer = connection.channel().queue_declare(queue, passive=True)
            return int(answer.method.message_count)
        finally:
            connection.close()

    def read(self) -> None:
        """Take in what is there."""
        try:
            if self._channel is None or self._channel.is_closed:
                parameters = pika.URLParameters(self._vhost.amqp_url)
                parameters.heartbeat = 0
                self._connection = pika.BlockingConnection(parameters)
                self._channel = self._connection.channel()
            self._read_ledger(self._channel)
            self._read_dead_letters(self._channel)
        except (pika.exceptions.AMQPError, OSError):
            self.close()
            self._channel = None  # the broker is away

    def _read_ledger(self, channel: Any) -> None:
        tag = 0
        while True:
            method, properties, body = channel.basic_get(names.LEDGER)
            if method is None:
                break
            tag = method.delivery_tag
            if properties.type != "leveret.records":
                self.published[properties.message_id] += 1
            elif properties.message_id not in self._seen:
                self._seen.add(properties.message_id)
                for record in json.loads(body)["records"]:
                    if record["event"] != "heartbeat":
                        self.records[record["id"]].append(record)
        if tag:
            channel.basic_ack(tag, multiple=True)

    def _read_dead_letters(self, channel: Any) -> None:
        tag = 0
        while True:
            method, properties, _ = channel.basic_get(self._dead_queue)
            if method is None:
                break
            tag = method.delivery_tag
            self.dead_letters[properties.message_id].append(properties.headers)
        if tag:
            channel.basic_ack(tag, multiple=True)
