"""A collector of traces: takes OTLP over HTTP, and answers what it was sent."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_SECOND = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Span:
    """A span as it was exported."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    #: Empty for the root of a trace.
    parent: str
    #: Seconds since 1970.
    start: float
    end: float
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, Mapping[str, Any]], ...]
    #: Ids of spans.
    links: tuple[str, ...]
    failed: bool
    status: str
    resource: Mapping[str, Any]
    #: Everything that was sent of it.
    raw: str = field(repr=False)

    @property
    def service(self) -> str:
        """The process that it comes from."""
        return str(self.resource["service.name"])


class Collector:
    """Listens on a port of its own from when it is entered; spans are decoded from protobuf."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._lock = threading.Lock()
        self.requests = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def variables(self) -> dict[str, str]:
        """What a process exports its spans with, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def take(self, path: str, body: bytes) -> None:
        """Take a request; anything but traces is refused by an assertion."""
        assert path == "/v1/traces", path
        found = list(_read(ExportTraceServiceRequest.FromString(body)))
        with self._lock:
            self.requests += 1
            self._spans += found

    def spans(self, trace_id: str | None = None) -> list[Span]:
        """Return the spans so far, of one trace or of all, by their beginning."""
        with self._lock:
            found = [s for s in self._spans if trace_id in (None, s.trace_id)]
        return sorted(found, key=lambda span: span.start)

    def wait_for(
        self, wanted: Callable[[list[Span]], bool], trace_id: str | None = None
    ) -> list[Span]:
        """Wait until the spans are as wanted; return them."""
        try:
            wait_until(lambda: wanted(self.spans(trace_id)), timeout=60, every=0.05)
        except TimeoutError as error:
            raise TimeoutError(f"there are {_names(self.spans(trace_id))}") from error
        return self.spans(trace_id)

    def wait_for_names(self, *names: str, trace_id: str | None = None) -> list[Span]:
        """Wait until there are spans of these names, as often as they are given."""

        def there(spans: list[Span]) -> bool:
            left = list(_names(spans))
            return all(name in left and left.remove(name) is None for name in names)

        return self.wait_for(there, trace_id)


def _names(spans: Iterable[Span]) -> list[str]:
    return [span.name for span in spans]


def _read(request: ExportTraceServiceRequest) -> Iterable[Span]:
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope in resource_spans.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    kind=Message.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano / _SECOND,
                    end=span.end_time_unix_nano / _SECOND,
                    attributes=_attributes(span.attributes),
                    events=tuple((e.name, _attributes(e.attributes)) for e in span.events),
                    links=tuple(link.span_id.hex() for link in span.links),
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                    status=span.status.message,
                    resource=resource,
                    raw=str(span),
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
