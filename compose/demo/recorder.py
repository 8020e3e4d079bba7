"""Reading the ledger and the dead-letter queues with the least privilege that allows it.

It consumes as the user `leveret-recorder`, which may read exactly these queues and nothing else.
A message is acked when what it says has been handed over; a dead letter when it is in a file.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pika
import pika.exceptions

from compose.demo.book import Letter, Note, read_ledger
from compose.demo.plan import UNROUTABLE as UNROUTABLE_REASON
from leveret.names import (
    DEFAULT_QUEUES,
    LEDGER,
    UNROUTABLE,
    dead_queue,
    quarantine_queue,
    work_queue,
)

__all__ = ["Recorder"]

_PREFETCH = 200
_COUNT_SECONDS = 0.25


class Recorder:
    """Consumes on a thread of its own; `notes` is what it has found, in order."""

    def __init__(self, url: str, letters: Path) -> None:
        letters.mkdir(parents=True)
        self._url = url
        self._letters = letters
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self.notes: SimpleQueue[Note] = SimpleQueue()
        #: Jobs that wait in each work queue, and in the quarantine lane, as the broker counts them.
        self.waiting: dict[str, int] = dict.fromkeys((*DEFAULT_QUEUES, "quarantine"), 0)
        #: Why it has ended, when it should not have.
        self.failure: Exception | None = None

    def start(self) -> None:
        """Begin to consume."""
        self._thread.start()

    def stop(self) -> None:
        """Stop consuming; what is not acked stays in its queue."""
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        try:
            self._consume()
        except (pika.exceptions.AMQPError, OSError, ValueError) as error:
            self.failure = error

    def _consume(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._url.split(",")[0]))
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=_PREFETCH)
            channel.basic_consume(LEDGER, self._on_ledger)
            for queue in (*map(dead_queue, DEFAULT_QUEUES), UNROUTABLE):
                channel.basic_consume(
                    queue,
                    lambda ch, method, properties, body, queue=queue: self._on_letter(
                        ch, method, properties, body, queue
                    ),
                )
            counting = connection.channel()
            next_count = 0.0
            while not self._stopping.is_set():
                if time.monotonic() >= next_count:
                    self._count(counting)
                    next_count = time.monotonic() + _COUNT_SECONDS
                connection.process_data_events(time_limit=0.05)
        finally:
            if connection.is_open:
                connection.close()

    def _count(self, channel: Any) -> None:
        def ready(name: str) -> int:
            return int(channel.queue_declare(name, passive=True).method.message_count)

        for queue in DEFAULT_QUEUES:
            self.waiting[queue] = ready(work_queue(queue))
        self.waiting["quarantine"] = sum(ready(quarantine_queue(queue)) for queue in DEFAULT_QUEUES)

    def _on_ledger(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        for note in read_ledger(properties.type, properties.message_id, body):
            self.notes.put(note)
        channel.basic_ack(method.delivery_tag)

    def _on_letter(
        self, channel: Any, method: Any, properties: Any, body: bytes, queue: str
    ) -> None:
        headers = properties.headers or {}
        letter = Letter(
            job=properties.message_id or "",
            queue=queue,
            reason=str(
                headers.get(
                    "x-leveret-reason", UNROUTABLE_REASON if queue == UNROUTABLE else "unknown"
                )
            ),
            error=str(headers.get("x-leveret-error", f"no queue wants {method.routing_key!r}")),
        )
        self._keep(letter, method.routing_key, headers, body)
        self.notes.put(letter)
        channel.basic_ack(method.delivery_tag)

    def _keep(self, letter: Letter, key: str, headers: dict[str, Any], body: bytes) -> None:
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in letter.job) or "no-id"
        (self._letters / f"{name}.body").write_bytes(body)
        document = {
            "id": letter.job,
            "queue": letter.queue,
            "routing_key": key,
            "reason": letter.reason,
            "error": letter.error,
            "headers": headers,
        }
        text = json.dumps(document, indent=2, default=str)
        (self._letters / f"{name}.json").write_text(text + "\n", encoding="utf-8")
