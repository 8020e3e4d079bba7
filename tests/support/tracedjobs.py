"""Actors for the tests of traces."""

from __future__ import annotations

from datetime import timedelta

import httpx
from opentelemetry import trace

import leveret
from tests.support.faultjobs import journal

#: Which queue each belongs to, for the topology.
ACTORS = {
    "trace.call": "default",
    "trace.await": "default",
    "trace.hold": "default",
    "trace.chain": "default",
    "trace.hello": "default",
}
SOON = leveret.Backoff(base=timedelta(seconds=0.3), jitter=False)


@leveret.actor("trace.call", backoff=SOON)
def call(url: str, secret: str) -> int:
    """Fail at the first attempt; then ask a server."""
    job = leveret.current_job()
    assert job is not None
    if job.attempt == 1:
        raise ConnectionError("the first attempt fails")
    return httpx.get(url, params={"secret": secret}).status_code


@leveret.actor("trace.await")
async def wait(url: str) -> str:
    """Ask a server from a coroutine, under a span of the actor's own."""
    with trace.get_tracer("acme").start_as_current_span("acme.prepare"):
        async with httpx.AsyncClient() as client:
            await client.get(url)
    job = leveret.current_job()
    assert job is not None
    return job.traceparent or ""


@leveret.actor("trace.hold")
def hold() -> None:
    """Run until the gate is open."""
    journal().write("start")
    journal().wait_at_gate("gate")
    journal().write("end")


@leveret.actor("trace.chain")
def chain() -> None:
    """Have another job run."""
    hello.send()


@leveret.actor("trace.hello")
def hello() -> str:
    """Do next to nothing."""
    return "hello"
