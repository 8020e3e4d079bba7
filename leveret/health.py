"""``/livez``, ``/readyz`` and ``/metrics`` of a process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from leveret.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

__all__ = ["HealthServer", "exposition", "own_metrics"]

_OPENMETRICS = "application/openmetrics-text"


class HealthServer:
    """Answers on a thread of its own; port 0 means not at all.

    ``/livez`` is 503 while there is a fault that only a restart can mend, ``/readyz`` while the
    process cannot do its work. ``metrics`` is given what the request accepts, and returns the type
    of its answer, and the answer.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        livez: Callable[[], list[str]],
        readyz: Callable[[], bool],
        metrics: Callable[[str], tuple[str, bytes]],
    ) -> None:
        self._server: ThreadingHTTPServer | None = None
        if not port:
            return

        class Handler(BaseHTTPRequestHandler):
            server_version = "leveret"
            sys_version = ""
            timeout = 5

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/livez":
                    faults = livez()
                    self._answer(not faults, {"live": not faults, "faults": faults})
                elif path == "/readyz":
                    ready = readyz()
                    self._answer(ready, {"ready": ready})
                elif path == "/metrics":
                    self._send(HTTPStatus.OK, *metrics(self.headers.get("Accept", "")))
                else:
                    self._send(HTTPStatus.NOT_FOUND, "text/plain", b"/livez, /readyz, /metrics\n")

            def _answer(self, good: bool, document: dict[str, Any]) -> None:  # noqa: FBT001
                status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
                self._send(status, "application/json", json.dumps(document).encode() + b"\n")

            def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Keep probes out of the log."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port} ({error.strerror}); set another LEVERET_HTTP_PORT"
            ) from None
        self._server.daemon_threads = True

    @property
    def address(self) -> str | None:
        """Where it listens."""
        if self._server is None:
            return None
        host, port = self._server.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def own_metrics(accept: str = "") -> tuple[str, bytes]:
    """Write the metrics of this process in the format that is asked for; return its type, too."""
    from prometheus_client import REGISTRY  # noqa: PLC0415 - 10 MB

    return exposition(REGISTRY, accept)


def exposition(registry: Collector, accept: str) -> tuple[str, bytes]:
    """Write metrics in the format that an ``Accept`` header asks for; return its type, too.

    That is OpenMetrics, which has exemplars, or Prometheus' own.
    """
    # Not prometheus_client's own choice, which stumbles over versions that are none.
    if any(part.partition(";")[0].strip() == _OPENMETRICS for part in accept.split(",")):
        from prometheus_client.openmetrics import exposition as openmetrics  # noqa: PLC0415 - 10 MB

        text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return f"{_OPENMETRICS}; version=1.0.0; charset=utf-8", text
    from prometheus_client import generate_latest  # noqa: PLC0415

    return "text/plain; version=0.0.4; charset=utf-8", generate_latest(registry)
