"""Traces of our own processes: OpenTelemetry's SDK, set up by its standard variables.

A process exports its spans by OTLP over HTTP when ``OTEL_EXPORTER_OTLP_ENDPOINT``, or
``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``, is set; all other ``OTEL_…`` variables (sampling, limits,
headers, certificates, resource attributes) mean what the SDK says they mean. A provider that is
there already, because the process was started by ``opentelemetry-instrument``, say, is left as it
is.

Exporting happens on a thread of its own. A collector that is away is said once, and said to be back
once; meanwhile a bounded queue fills, and what does not fit into it is dropped and counted.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from leveret.tracing.export import Pipeline

__all__ = ["configure", "exporting", "instrument_http", "shutdown"]

log = structlog.get_logger("leveret.tracing")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")

#: How long the end of a process waits for its last spans.
_FLUSH_SECONDS = 3.0

_pipeline: Pipeline | None = None


def configure(process: str, environ: Mapping[str, str] | None = None) -> bool:
    """Export the spans of this process, if its environment says where to; tell whether it does.

    ``process`` is its part in the whole, such as ``worker``. Nothing that is wrong with traces
    keeps a process from its work: it is logged.
    """
    global _pipeline  # noqa: PLW0603 - OpenTelemetry has one provider for a process
    environ = os.environ if environ is None else environ
    if _pipeline is not None or not _is_wanted(environ):
        return _pipeline is not None
    if missing := [name for name in _NEEDED if not _is_installed(name)]:
        log.warning("tracing.off", reason=f"{missing[0]} is missing; install leveret[otel]")
        return False
    from leveret.tracing.export import Pipeline  # noqa: PLC0415 - an extra, and 15 MB

    try:
        _pipeline = Pipeline.of_process(f"leveret-{process}", instance())
    except Exception as error:  # noqa: BLE001 - variables that the SDK does not understand
        log.warning("tracing.off", reason=f"{type(error).__name__}: {error}")
        return False
    return True


@contextmanager
def exporting(process: str) -> Iterator[None]:
    """Export the spans of this process, as `configure` does, until the block ends."""
    configure(process)
    try:
        yield
    finally:
        shutdown()


def shutdown(seconds: float = _FLUSH_SECONDS) -> None:
    """Export what is left, within some seconds; what is not exported by then is lost."""
    if _pipeline is None:
        return
    thread = threading.Thread(target=_pipeline.shutdown, name="leveret-tracing", daemon=True)
    thread.start()
    thread.join(seconds)
    _pipeline.report()


def instrument_http() -> None:
    """Make spans of what actors ask of others with httpx, and send the trace along.

    Of an address only its host is told: the rest may be an argument, or a secret.
    """
    if not _is_installed("opentelemetry.instrumentation.httpx"):
        log.warning("tracing.no_http", reason="opentelemetry-instrumentation-httpx is missing")
        return
    from leveret.tracing.http import instrument  # noqa: PLC0415 - as above

    instrument()


def instance() -> str:
    """Make a name that no other process has."""
    return f"{socket.gethostname().partition('.')[0]}-{os.getpid()}-{secrets.token_hex(3)}"


def _is_wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    if not any(environ.get(name, "").strip() for name in _ENDPOINTS):
        return False
    protocol = next((found for name in _PROTOCOLS if (found := environ.get(name, "").strip())), "")
    if protocol not in ("", _PROTOCOL):
        log.warning(
            "tracing.off",
            reason=f"the protocol {protocol!r} is not spoken here; set {_PROTOCOLS[0]} to "
            f"{_PROTOCOL}, and the endpoint to that of OTLP over HTTP",
        )
        return False
    return True


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
