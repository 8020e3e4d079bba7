"""Control messages: what every worker process is told, through the fanout ``leveret.control``.

A message of the type ``leveret.control`` whose body is a JSON object::

    {"v": 1, "cancel": ["<job id>", …], "runs": {"<job id>": 1}}

``cancel`` names jobs that are not to be started any more; ``runs`` says up to which run that holds,
for jobs that have been replayed (0 for the others). A worker ignores what it does not know, so that
a newer process may say more. Nobody answers: who cancels learns from the ledger what came of it.
"""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from collections.abc import Mapping
from typing import Self

import pika

from leveret import names
from leveret.amqp import IOThread, Outbound, Post
from leveret.amqp.connection import thread_name
from leveret.errors import PublisherClosed, PublishError

__all__ = ["CONTROL_TYPE", "ControlSender", "decode_cancel", "encode_cancel"]

#: The ``type`` property of a control message.
CONTROL_TYPE = "leveret.control"


def encode_cancel(runs: Mapping[str, int]) -> bytes:
    """Write the body that cancels jobs: their ids, each with the last run that it holds for."""
    document: dict[str, object] = {"v": 1, "cancel": list(runs)}
    replayed = {job_id: run for job_id, run in runs.items() if run}
    if replayed:
        document["runs"] = replayed
    return json.dumps(document, separators=(",", ":")).encode()


def decode_cancel(kind: object, body: bytes) -> dict[str, int]:
    """Read which jobs a message of type ``kind`` cancels, and up to which run; none for others."""
    try:
        document = json.loads(body) if kind == CONTROL_TYPE else None
    except ValueError:
        return {}
    if not isinstance(document, dict) or not isinstance(document.get("cancel"), list):
        return {}
    runs = document.get("runs")
    runs = runs if isinstance(runs, dict) else {}
    found = {}
    for job_id in document["cancel"]:
        if isinstance(job_id, str):
            run = runs.get(job_id, 0)
            found[job_id] = run if type(run) is int else 0
    return found


class ControlSender:
    """Tells all workers of a broker, over one connection, opened when it is first needed.

    For the user ``leveret-api`` (or an administrator). Thread-safe. `close` it at the end, or use
    it as a context manager.
    """

    def __init__(self, url: str, *, name: str = "leveret control") -> None:
        self._url = url
        self._name = name
        self._lock = threading.Lock()
        self._io: IOThread | None = None
        self._outbound: Outbound | None = None
        self._closed = False

    def cancel(
        self, runs: Mapping[str, int], *, timeout: float = 10.0
    ) -> concurrent.futures.Future[None]:
        """Have jobs not be started, each up to a run; the future is done when the broker has it.

        It fails with a `PublishError`; after ``timeout`` seconds at the latest.
        """
        post = _Control(encode_cancel(runs), time.monotonic() + timeout)
        with self._lock:
            if self._closed:
                raise PublisherClosed("the sender of control messages is closed")
            if self._io is None or self._outbound is None:
                self._io = IOThread(thread_name("control"))
                self._outbound = Outbound(self._io, self._url, name=self._name)
                self._io.call_soon(self._outbound.open)
            io, outbound = self._io, self._outbound
        io.call_soon(lambda: outbound.send(post))
        return post.future

    def close(self) -> None:
        """Disconnect; what is under way fails."""
        with self._lock:
            self._closed = True
            io, outbound, self._io = self._io, self._outbound, None
        if io is None or outbound is None:
            return
        outbound.disconnect(PublisherClosed("closed before the broker had confirmed"))
        io.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Control(Post):
    __slots__ = ("deadline", "future")

    def __init__(self, body: bytes, deadline: float) -> None:
        properties = pika.BasicProperties(content_type="application/json", type=CONTROL_TYPE)
        super().__init__(names.CONTROL, "", properties, body)
        self.deadline = deadline
        self.future: concurrent.futures.Future[None] = concurrent.futures.Future()

    def confirmed(self) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(None)

    def failed(self, error: PublishError) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
