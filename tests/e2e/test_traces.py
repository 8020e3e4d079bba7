"""Traces through real processes, as a collector gets them by OTLP over HTTP."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource

from leveret import Publisher, tracing
from leveret.tracing.export import Pipeline
from leveret.tracing.spans import Tracer
from tests.support.collectors import Collector
from tests.support.pools import WorkerPool
from tests.support.tracedjobs import ACTORS


@pytest.fixture(scope="module")
def collector():
    """Return a collector of this module's."""
    with Collector() as made:
        yield made


@pytest.fixture
def shop(collector, monkeypatch):
    """Return the tracer of a service that uses OpenTelemetry's SDK: this process."""
    exporter = OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces")
    pipeline = Pipeline(exporter, Resource({"service.name": "shop"}), room=1000)
    monkeypatch.setattr(tracing, "_tracer", Tracer(pipeline.provider))
    yield pipeline.provider.get_tracer("shop")
    pipeline.shutdown()


@pytest.fixture(scope="module")
def node(shared_broker):
    """Return a virtual host with the topology of the traced actors."""
    made = shared_broker.create_vhost("traces").declare(ACTORS)
    yield made
    made.management.delete_vhost(made.name)
    made.management.close()


@pytest.fixture(scope="module")
def pool(node, collector, tmp_path_factory):
    """Return a worker pool that exports its spans."""
    folder = tmp_path_factory.mktemp("pool")
    with WorkerPool(
        node.environment("worker"),
        folder,
        actors=["tests.support.tracedjobs"],
        variables=collector.variables,
    ) as made:
        yield made.wait_ready()
        made.kill_everything()
        print(made.log[-4000:])


@pytest.fixture
def publisher(node):
    """Return a publisher of the service."""
    with Publisher(node.url("publisher"), timeout=60) as made:
        yield made


def by_name(spans):
    """Return spans by their names, each a list in the order of their beginning."""
    found = {}
    for span in spans:
        found.setdefault(span.name, []).append(span)
    return found


def test_one_trace_shows_publish_queue_two_attempts_and_the_call_of_the_second(
    shop, pool, publisher, collector, httpserver
):
    """From the service over the broker, a retry and the wheel to the server that is called."""
    httpserver.expect_request("/there").respond_with_data("hello")
    with shop.start_as_current_span("checkout") as checkout:
        job = publisher.send(
            "trace.call", {"url": httpserver.url_for("/there"), "secret": "hunter2"}
        )
    trace_id = f"{checkout.get_span_context().trace_id:032x}"
    spans = collector.wait_for_names(
        "checkout",
        "send leveret.jobs",
        *["queue leveret.default", "process trace.call", "ack leveret.default"] * 2,
        *("send leveret.retry", "delay leveret.retry", "GET"),
        trace_id=trace_id,
    )
    found = by_name(spans)
    assert {name: len(several) for name, several in found.items()} == {
        "checkout": 1,
        "send leveret.jobs": 1,
        "queue leveret.default": 2,
        "process trace.call": 2,
        "send leveret.retry": 1,
        "delay leveret.retry": 1,
        "ack leveret.default": 2,
        "GET": 1,
    }
    (checkout,), (send,) = found["checkout"], found["send leveret.jobs"]
    first, second = found["process trace.call"]
    (retry,), (delay,), (call,) = (
        found["send leveret.retry"],
        found["delay leveret.retry"],
        found["GET"],
    )
    assert (send.kind, send.parent, send.service) == ("producer", checkout.span_id, "shop")
    for span in (*found["queue leveret.default"], delay, first, second):
        assert (span.parent, span.service) == (send.span_id, "leveret-worker")
    assert (first.kind, first.failed, first.attributes["leveret.outcome"]) == (
        "consumer",
        True,
        "retrying",
    )
    [(event, told)] = first.events
    assert (event, told["exception.type"]) == ("exception", "builtins.ConnectionError")
    assert (second.failed, second.events, second.attributes["leveret.outcome"]) == (
        False,
        (),
        "succeeded",
    )
    assert (first.attributes["leveret.attempt"], second.attributes["leveret.attempt"]) == (1, 2)
    assert (first.links, second.links) == ((), (first.span_id,))
    assert (retry.kind, retry.parent) == ("producer", first.span_id)
    assert (call.kind, call.parent) == ("client", second.span_id)
    # Each begins where the one before it has ended, and never before its parent.
    (first_wait, second_wait) = found["queue leveret.default"]
    moments = [checkout.start, send.start, first_wait.start, first_wait.end]
    moments += [first.start, first.end, retry.start, delay.start, delay.end, second_wait.start]
    moments += [second_wait.end, second.start, call.start, call.end, second.end]
    assert moments == sorted(moments)
    assert delay.end - delay.start > 0.2
    # The server was asked with the context of the very span.
    [(request, _)] = httpserver.log
    assert request.headers["traceparent"].startswith(f"00-{trace_id}-{call.span_id}-")
    assert {span.attributes.get("messaging.message.id", job) for span in spans} == {job}
    for span in spans:
        assert "hunter2" not in span.raw
        assert "/there" not in span.raw
