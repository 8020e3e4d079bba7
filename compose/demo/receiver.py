"""Four receivers of webhooks in one HTTP server, each with its own temper.

==============  =============================================================================
``/steady``     200
``/deploying``  503 with ``Retry-After: 1`` twice, then 200
``/busy``       429 with ``Retry-After: 2`` once, then 200
``/closed``     410: it has moved away, until somebody has it `mended`; then 200
==============  =============================================================================
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["TEMPERS", "Delivery", "Receiver"]

#: What each receiver answers, attempt by attempt; the last answer is repeated.
TEMPERS: dict[str, list[tuple[int, int | None, str]]] = {
    "steady": [(200, None, "thanks")],
    "deploying": [(503, 1, "deploying"), (503, 1, "still deploying"), (200, None, "thanks")],
    "busy": [(429, 2, "too busy"), (200, None, "thanks")],
    "closed": [(410, None, "moved away")],
}
#: A status, the ``Retry-After`` in seconds, and what is said with it.
Answer = tuple[int, int | None, str]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One request as it came in, and how it was answered."""

    job: str
    receiver: str
    signed: bool
    status: int


class Receiver:
    """The HTTP server; what it takes is written to ``file``, one JSON object a line."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._attempts: Counter[str] = Counter()
        self._tempers = dict(TEMPERS)
        key = secrets.token_bytes(24)
        self._key = key
        #: What ``LEVERET_WEBHOOK_SECRET`` has to be.
        self.secret = "whsec_" + base64.b64encode(key).decode()
        #: Every request, in order.
        self.deliveries: list[Delivery] = []
        self._server = _server(self)

    def start(self) -> None:
        """Begin to answer."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def url(self, receiver: str) -> str:
        """Return where webhooks for this receiver go."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{receiver}"

    def mend(self, receiver: str) -> None:
        """Have a receiver take what comes from now on."""
        with self._lock:
            self._tempers[receiver] = TEMPERS["steady"]

    def answer(self, receiver: str, headers: Any, body: bytes) -> Answer:
        """Take a request in; return the answer."""
        job = str(headers.get("webhook-id", ""))
        with self._lock:
            answers: list[Answer] = self._tempers.get(receiver, [(404, None, "nobody here")])
            status, wait, said = answers[min(self._attempts[job], len(answers) - 1)]
            self._attempts[job] += 1
            signed = self._is_signed(headers, body)
            if not signed:
                status, wait, said = 401, None, "not signed"
            found = Delivery(job=job, receiver=receiver, signed=signed, status=status)
            self.deliveries.append(found)
            line = {"job": job, "receiver": receiver, "status": status, "body": body.decode()}
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return status, wait, said

    def _is_signed(self, headers: Any, body: bytes) -> bool:
        signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
        right = base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
        return hmac.compare_digest(headers.get("webhook-signature", ""), f"v1,{right}")


def _server(receiver: Receiver) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Take a webhook."""
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, wait, said = receiver.answer(self.path.strip("/"), self.headers, body)
            self.send_response(status)
            if wait is not None:
                self.send_header("Retry-After", str(wait))
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Keep requests off the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server
