"""Traces through real processes, as a collector gets them by OTLP over HTTP."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import psycopg
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource

from leveret import Publisher, outbox, tracing
from leveret.ledger.retry import retry
from leveret.store import api_keys, engine
from leveret.tracing.export import Pipeline
from leveret.tracing.spans import Tracer
from tests.support.apis import ApiProcess
from tests.support.collectors import Collector
from tests.support.databases import temporary_database
from tests.support.pools import WorkerPool
from tests.support.recorders import RecorderProcess, migrated
from tests.support.relays import RelayProcess
from tests.support.schedulers import SchedulerProcess, create, every
from tests.support.tracedjobs import ACTORS
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def collector():
    """Return a collector of this module's."""
    with Collector() as made:
        yield made


@pytest.fixture
def shop(collector, monkeypatch):
    """Return the tracer of a service that uses OpenTelemetry's SDK: this process."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
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
def database(checkout):
    """Return the URL of a database with Leveret's tables."""
    with temporary_database(checkout, "traces") as url:
        yield migrated(url)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of the pool's journal."""
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def processes(node, database, collector, folder):
    """Start a pool, a relay, a recorder, an API and a scheduler; all export their spans."""
    traced = collector.variables
    made = {
        "pool": WorkerPool(
            node.environment("worker"),
            folder,
            actors=["tests.support.tracedjobs"],
            threads=2,
            variables=traced,
        ),
        "relay": RelayProcess(node, folder=folder, LEVERET_DATABASE_URL=database, **traced),
        "recorder": RecorderProcess(
            node.environment("recorder"), database, folder, variables=traced
        ),
        "api": ApiProcess(database, folder, actors=["tests.support.tracedjobs"], variables=traced),
        "scheduler": SchedulerProcess(
            database, folder=folder, LEVERET_ACTORS="tests.support.tracedjobs", **traced
        ),
    }
    try:
        for process in made.values():
            process.wait_ready()
        yield made
    finally:
        made["pool"].kill_everything()
        for process in made.values():
            process.kill()
            print(process.log[-4000:])


@pytest.fixture
def pool(processes):
    """Return the worker pool."""
    return processes["pool"]


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
    # What the log says of the job are the ids of the trace and of its attempts.
    wait_until(lambda: f'"span_id":"{second.span_id}"' in pool.log, timeout=20, what="its log")
    logged = [json.loads(line) for line in pool.log.splitlines() if job in line]
    assert {line["trace_id"] for line in logged} == {trace_id}
    assert {line["span_id"] for line in logged} == {first.span_id, second.span_id}
    if keep := os.environ.get("LEVERET_KEEP_TRACE"):
        Path(keep).write_text(_kept(spans))


def _kept(spans):
    """Write a trace down for the picture in the documentation."""
    names = ("name", "span_id", "parent", "start", "end", "service", "failed")
    lines = [json.dumps({name: getattr(each, name) for name in names}) for each in spans]
    return "[\n" + ",\n".join(lines) + "\n]\n"


@contextmanager
def span(shop, name):
    """Do something under a span of the service; yields the id of its trace."""
    with shop.start_as_current_span(name) as current:
        yield f"{current.get_span_context().trace_id:032x}"


def test_a_job_of_the_outbox_belongs_to_the_trace_of_the_transaction_that_wrote_it(
    shop, processes, database, collector, httpserver
):
    """Over the relay to a coroutine, under whose own span the call is made."""
    httpserver.expect_request("/there").respond_with_data("hello")
    with span(shop, "order") as trace_id, psycopg.connect(database) as connection:
        outbox.enqueue(connection, "trace.await", {"url": httpserver.url_for("/there")})
    spans = collector.wait_for_names(
        *("order", "send leveret.jobs", "queue leveret.default", "process trace.await"),
        *("acme.prepare", "GET", "ack leveret.default"),
        trace_id=trace_id,
    )
    found = {each.name.partition(" ")[0]: each for each in spans}
    assert [each.service for each in spans if each.name.startswith(("outbox", "send"))] == [
        "leveret-relay",
        "leveret-relay",
    ]
    assert found["outbox"].parent == found["order"].span_id
    assert found["send"].parent == found["order"].span_id
    assert found["queue"].parent == found["process"].parent == found["send"].span_id
    assert found["acme.prepare"].parent == found["process"].span_id
    assert found["GET"].parent == found["acme.prepare"].span_id
    [(request, _)] = httpserver.log
    assert request.headers["traceparent"].split("-")[1:3] == [trace_id, found["GET"].span_id]


def test_a_request_to_the_api_goes_on_in_its_caller_s_trace(processes, database, collector):
    """And so does the job that the first job publishes."""
    owner = engine(database, pool_size=1)
    with owner.begin() as connection:
        key = api_keys.create(connection, name="t", scopes=["publish"], created_by="t")[1]
    owner.dispose()
    trace_id, caller = "5" * 32, "6" * 16
    answer = httpx.post(
        f"{processes['api'].url}/v1/jobs",
        json={"actor": "trace.chain", "arguments": {}},
        headers={
            "Authorization": f"Bearer {key}",
            "traceparent": f"00-{trace_id}-{caller}-01",
            "tracestate": "shop=1",
            "baggage": "user=alice",
        },
        timeout=60,
    )
    assert answer.status_code == 202, answer.text
    spans = collector.wait_for_names(
        *("POST /v1/jobs", "send leveret.jobs", "process trace.chain"),
        *("send leveret.jobs", "process trace.hello", "ack leveret.default"),
        trace_id=trace_id,
    )
    found = by_name(spans)
    [request], [chain] = found["POST /v1/jobs"], found["process trace.chain"]
    assert (request.parent, request.kind, request.service) == (caller, "server", "leveret-api")
    assert request.attributes["http.response.status_code"] == 202
    first, second = found["send leveret.jobs"]
    assert (first.parent, first.service) == (request.span_id, "leveret-relay")
    assert (second.parent, second.service) == (chain.span_id, "leveret-worker")
    assert {'trace_state: "shop=1"' in each.raw for each in spans} == {True}
    assert not any("alice" in each.raw for each in spans)
    assert f'"trace_id":"{trace_id}"' in processes["api"].log


def test_a_job_that_killed_its_worker_goes_on_in_its_trace(shop, pool, publisher, collector):
    """The first run's span died with its process; the redelivery's is there and says so."""
    with span(shop, "checkout") as trace_id:
        job = publisher.send("trace.hold")
    wait_until(lambda: job in pool.journal.running(), timeout=60, what="the job runs")
    [child] = pool.children()
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: pool.journal.starts()[job] == 2, timeout=60, what="it runs again")
    pool.journal.open_gate("gate")
    spans = collector.wait_for_names(
        *("process trace.hold", "ack leveret.default"), trace_id=trace_id
    )
    found = by_name(spans)
    [send], [process] = found["send leveret.jobs"], found["process trace.hold"]
    assert process.parent == send.span_id
    assert process.attributes["leveret.redelivered"] is True
    assert process.attributes["leveret.attempt"] == 1
    assert process.attributes["leveret.outcome"] == "succeeded"
    assert f"-{child}-" not in process.resource["service.instance.id"]


def test_a_dead_letter_shows_in_the_trace_and_a_replay_begins_a_linked_one(
    shop, processes, publisher, database, collector
):
    """The job dies of its arguments, which nothing tells; replayed, it dies in another trace."""
    with span(shop, "checkout") as trace_id:
        job = publisher.send("trace.hold", {"secret": "hunter2"})
    dead = by_name(
        collector.wait_for_names(
            *("process trace.hold", "send leveret.dead", "record leveret.dead.default"),
            trace_id=trace_id,
        )
    )
    [process], [record] = dead["process trace.hold"], dead["record leveret.dead.default"]
    assert (process.failed, process.attributes["leveret.reason"]) == (True, "bad-arguments")
    assert (record.service, record.attributes["leveret.reason"]) == (
        "leveret-recorder",
        "bad-arguments",
    )
    [send] = dead["send leveret.jobs"]
    assert record.parent == send.span_id
    owner = engine(database, pool_size=1)
    with owner.begin() as connection:
        retry(connection, job, by="test")
    owner.dispose()
    [again] = collector.wait_for(
        lambda spans: (
            any(each.attributes.get("leveret.run") == 1 for each in spans)
            and [each for each in spans if each.links == (send.span_id,)]
        )
    ) and [each for each in collector.spans() if each.links == (send.span_id,)]
    assert (again.service, again.parent) == ("leveret-relay", "")
    assert again.trace_id != trace_id
    [process] = [
        each for each in collector.spans(again.trace_id) if each.name == "process trace.hold"
    ]
    assert (process.parent, process.attributes["leveret.run"]) == (again.span_id, 1)
    assert not any("hunter2" in each.raw for each in collector.spans())


def test_a_slot_of_a_schedule_begins_the_trace_of_its_job(processes, database, collector):
    """With the schedule, the slot and when it was due."""
    create(database, [replace(every("hourly", 3600), actor="trace.hello")])
    owner = engine(database, pool_size=1)
    with owner.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE schedules SET since = now() - interval '1 hour', next_due_at = now()"
        )
        connection.exec_driver_sql("SELECT pg_notify('leveret_schedules', 'hourly')")
    owner.dispose()
    collector.wait_for_names("fire hourly")
    [fire] = [each for each in collector.spans() if each.name == "fire hourly"]
    spans = collector.wait_for_names(
        "send leveret.jobs", "process trace.hello", trace_id=fire.trace_id
    )
    assert (fire.parent, fire.service) == ("", "leveret-scheduler")
    assert fire.attributes["leveret.schedule"] == "hourly"
    assert fire.attributes["leveret.slot"] == fire.attributes["leveret.due_at"]
    names = [each.name.partition(" ")[0] for each in spans]
    assert names[:5] == ["fire", "outbox", "send", "queue", "process"]
