"""Spans of a worker and a publisher in this process, and what they do when something is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from leveret import Backoff, Snooze, current_job, tracing
from leveret.message import job_time
from leveret.message.trace import AFTER, SENT_AT
from leveret.names import work_queue
from leveret.tracing.spans import Tracer
from tests.support.collectors import Collector
from tests.support.pools import WorkerPool
from tests.support.processes import ROOT, bare_environment
from tests.support.waiting import wait_until
from tests.support.workers import AT_ONCE, cut

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
JSON = {"content_type": "application/json", "type": "work.do"}


class Recorded:
    """The spans of this process."""

    def __init__(self, **options):
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    def wait_for(self, *names):
        """Wait for spans of these names, in the order of their beginning; return all."""

        def there():
            found = [span.name for span in self.spans()]
            return all(found.count(name) >= names.count(name) for name in names)

        try:
            wait_until(there, timeout=20)
        except TimeoutError as error:
            there_are = [span.name for span in self.spans()]
            raise TimeoutError(f"not all of {names}: there are {there_are}") from error
        return self.spans()

    def spans(self):
        """Return what has ended so far."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)


@pytest.fixture
def recorded(monkeypatch):
    """Trace this process."""
    made = Recorded()
    monkeypatch.setattr(tracing, "_tracer", Tracer(made.provider))
    return made


def ids(span):
    """Return the ids of a span as headers write them: its trace, itself."""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def parent(span):
    """Return the id of a span's parent."""
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def of(spans, name):
    """Return the spans of a name."""
    return [span for span in spans if span.name == name]


def test_a_job_of_a_stranger_without_a_trace_begins_one_and_keeps_it_in_its_retry(recorded, worker):
    """With the wait in the queue, of which AMQP's timestamp tells the second."""

    @worker.actor("work.do", backoff=AT_ONCE)
    def do():
        worker.notes.append(current_job().traceparent)
        if current_job().attempt == 1:
            raise OSError("once")

    worker.start()
    worker.raw(b"{}", message_id="theirs", timestamp=int(time.time()) - 5, **JSON)
    spans = recorded.wait_for(
        *["queue leveret.default", "process work.do", "ack leveret.default"] * 2
    )
    first_wait, second_wait = of(spans, "queue leveret.default")
    first, second = of(spans, "process work.do")
    assert len({ids(span)[0] for span in spans}) == 1
    assert first_wait.parent is None
    assert {parent(span) for span in (first, second, second_wait)} == {ids(first_wait)[1]}
    assert [link.context.span_id for link in second.links] == [first.context.span_id]
    assert 3e9 < first_wait.end_time - first_wait.start_time < 60e9
    # What the actor would send along by itself is the span of the attempt.
    assert [note.split("-")[1:3] for note in worker.notes] == [list(ids(first)), list(ids(second))]


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": f"00-{'0' * 32}-{'0' * 16}-00"},
        {"traceparent": PARENT.upper(), "tracestate": "x=1"},
        {"traceparent": 5, SENT_AT: 5, AFTER: 5},
        {"traceparent": "00-zz", SENT_AT: "yesterday", AFTER: "00-1-2-3"},
        {SENT_AT: "0001-01-01T00:00:00Z", AFTER: "x" * 10_000},
        {SENT_AT: "9999-12-31T23:59:59+00:00", "x-leveret-due-at": "0001-01-01T00:00:00+00:00"},
    ],
    ids=str,
)
def test_what_is_malformed_about_a_trace_is_ignored(recorded, worker, headers):
    """The job runs, in a trace of its own whose spans end after they have begun."""

    @worker.actor("work.do")
    def do():
        worker.notes.append("ran")

    worker.start()
    worker.raw(b"{}", headers=headers, message_id="theirs", **JSON)
    worker.noted(1)
    spans = recorded.wait_for("process work.do", "ack leveret.default")
    [process] = of(spans, "process work.do")
    assert process.links == ()
    now = time.time_ns()
    for span in spans:
        assert now - 60e9 < span.start_time <= span.end_time <= now


def test_a_wait_does_not_begin_before_the_span_that_it_follows_from(recorded, worker):
    """The publisher does not say when it sent the job; its id is older than the span."""

    @worker.actor("work.do")
    def do():
        return None

    worker.start()
    with recorded.tracer.start_as_current_span("request") as request:
        theirs = tracing.current()["traceparent"]
        began = request.start_time
        worker.raw(
            b"{}",
            message_id="01980000-0000-7000-8000-000000000001",
            timestamp=int(time.time()),
            headers={"traceparent": theirs},
            **JSON,
        )
    [wait] = of(recorded.wait_for("queue leveret.default"), "queue leveret.default")
    assert wait.start_time >= began
    assert job_time("01980000-0000-7000-8000-000000000001") < began / 1e9 - 86_400


def test_a_job_for_later_shows_its_delay_and_a_snooze_another_one(recorded, worker):
    """The wheel's time is not the queue's."""

    @worker.actor("work.do")
    def do():
        if not worker.notes:
            worker.notes.append("snoozed")
            raise Snooze(0.2)

    worker.start()
    worker.send("work.do", delay=0.4)
    spans = recorded.wait_for(
        "delay leveret.delay", "delay leveret.retry", *["ack leveret.default"] * 2
    )
    sends = of(spans, "send leveret.delay")
    assert [send.kind for send in sends] == [SpanKind.PRODUCER]
    first, second = of(spans, "process work.do")
    assert [s.attributes["leveret.outcome"] for s in (first, second)] == ["snoozed", "succeeded"]
    assert [s.attributes["leveret.attempt"] for s in (first, second)] == [1, 1]
    [delay] = of(spans, "delay leveret.delay")
    assert 0.3e9 < delay.end_time - delay.start_time < 0.6e9
    assert sends[0].start_time <= delay.start_time
    assert len({ids(span)[0] for span in spans}) == 1


def test_a_publish_that_fails_says_so_in_its_span(recorded, fresh_vhost):
    """Before it is tried, by the contract; and afterwards, by the broker."""
    from leveret import Publisher  # noqa: PLC0415
    from leveret.errors import InvalidJob, PublishRejected  # noqa: PLC0415

    fresh_vhost.declare()
    with Publisher(fresh_vhost.url("publisher"), timeout=20) as publisher:
        with pytest.raises(InvalidJob):
            publisher.send("a.b", priority=300)
        fresh_vhost.management.delete("exchanges", fresh_vhost.name, "leveret.jobs")
        with pytest.raises(PublishRejected):
            publisher.send("a.b", {"secret": "hunter2"})
    first, second = of(recorded.wait_for(*["send leveret.jobs"] * 2), "send leveret.jobs")
    assert first.attributes["error.type"] == "InvalidJob"
    assert second.attributes["error.type"] == "PublishRejected"
    assert not first.status.is_ok
    assert "hunter2" not in second.to_json()


def test_a_context_that_the_caller_gives_is_carried_as_it_is(recorded, worker):
    """Our own span is beside the job's, below the caller's."""
    worker.send("work.do", traceparent=PARENT, tracestate="shop=1")
    [letter] = worker.letters(queue=work_queue("default"))
    assert (letter.headers["traceparent"], letter.headers["tracestate"]) == (PARENT, "shop=1")
    [send] = recorded.wait_for("send leveret.jobs")
    assert (ids(send)[0], parent(send)) == (TRACE, "b7ad6b7169203331")


def test_what_is_not_sampled_costs_no_spans_and_no_headers_of_ours(worker, monkeypatch):
    """The decision goes along, so that nobody further on samples it either."""
    made = Recorded(sampler=sampling.ALWAYS_OFF)
    monkeypatch.setattr(tracing, "_tracer", Tracer(made.provider))
    worker.send("work.do")
    [letter] = worker.letters(queue=work_queue("default"))
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[02]", letter.headers["traceparent"])
    assert set(letter.headers) - {"x-delivery-count"} == {"traceparent"}  # the broker's own
    assert made.spans() == []


def test_without_spans_a_retry_keeps_the_trace_and_forgets_what_was_said_of_the_last_copy(worker):
    """A worker that is not traced may stand behind one that is."""

    @worker.actor("work.do", backoff=Backoff(base=timedelta(hours=1), jitter=False))
    def do():
        raise OSError("no")

    worker.start()
    headers = {"traceparent": PARENT, SENT_AT: "2026-01-01T00:00:00Z", AFTER: PARENT}
    worker.raw(b"{}", headers=headers, message_id="theirs", **JSON)
    worker.records("theirs", "retrying")
    worker.settled()
    found = worker.letters(queue="leveret.delay.3.8")
    [letter] = found
    assert letter.headers["traceparent"] == PARENT
    assert {AFTER, SENT_AT}.isdisjoint(letter.headers)


def test_without_spans_a_job_that_a_job_publishes_belongs_to_its_trace(worker):
    """Logs of both can be found by one id."""

    @worker.actor("work.do")
    def do():
        worker.broker.publisher.send("work.next", queue="bulk")

    worker.start()
    worker.send("work.do", traceparent=PARENT)
    [letter] = worker.letters(queue=work_queue("bulk"))
    assert letter.headers["traceparent"] == PARENT


def test_a_job_that_is_settled_without_a_run_is_in_its_trace(recorded, worker):
    """It was cancelled while it waited; the one that ran loses its channel, and is told once."""
    gate = threading.Event()

    @worker.actor("work.do")
    def do():
        worker.notes.append(current_job().id)
        assert gate.wait(60)

    worker.start(threads=1, prefetch=2)
    try:
        running = worker.send("work.do")
        worker.noted(1)
        waiting = worker.send("work.do")
        wait_until(lambda: len(worker.worker._work) == 1, timeout=20, what="one job waits here")
        worker.worker._control._add({waiting: 0})
        worker.records(waiting, "cancelled")
        cut(worker.worker._source._link)
        wait_until(lambda: worker.worker._orphans, timeout=20, what="its channel is gone")
    finally:
        gate.set()
    worker.records(running, "succeeded")
    worker.settled()
    found = {
        span.attributes["messaging.message.id"]: span.attributes["leveret.outcome"]
        for span in recorded.wait_for("process work.do", "process work.do")
        if span.name == "process work.do"
    }
    assert found == {running: "succeeded", waiting: "cancelled"}


class Broken(SpanProcessor):
    """A span processor with defects."""

    def on_start(self, span, parent_context=None):
        """Fail."""
        raise RuntimeError("start")

    def on_end(self, span):
        """Fail."""
        raise RuntimeError("end")


def test_a_tracer_provider_that_fails_does_not_fail_jobs(worker, monkeypatch, caplog):
    """It is said once, and jobs are published, run, retried and settled."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken())
    monkeypatch.setattr(tracing, "_tracer", Tracer(provider))

    @worker.actor("work.do", backoff=AT_ONCE)
    def do():
        worker.notes.append(current_job().attempt)
        if current_job().attempt == 1:
            raise OSError("once")

    worker.start()
    worker.send("work.do")
    assert worker.noted(2) == [1, 2]
    worker.settled()
    told = [r for r in caplog.records if "a span is lost" in r.getMessage()]
    assert len(told) == len({r.getMessage() for r in told}) > 0


# ---------------------------------------------------------------------------------- our processes


def run(code, tmp_path, **variables):
    """Run code in a process that exports its spans; return what it said."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**bare_environment(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


FORKS = """
import os
from opentelemetry import trace
from leveret import logs
from leveret.tracing import process
logs.configure("info", "json")
assert process.configure("worker")
tracer = trace.get_tracer("test")
with tracer.start_as_current_span("before"):
    child = os.fork()
    with tracer.start_as_current_span("in the child" if child == 0 else "in the parent"):
        pass
process.shutdown(20)
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_process_and_its_fork_export_their_own_spans(tmp_path):
    """None is lost, none is sent twice, and both say which service they are."""
    with Collector() as collector:
        run(FORKS, tmp_path, OTEL_RESOURCE_ATTRIBUTES="team=mail", **collector.variables)
        spans = collector.wait_for_names("in the child", "in the parent", "before", "before")
    assert len(spans) == 4
    assert {(s.service, s.resource["team"]) for s in spans} == {("leveret-worker", "mail")}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, ""),
        ({"OTEL_SDK_DISABLED": "TRUE"}, ""),
        ({"OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
    ],
    ids=str,
)
def test_spans_are_exported_only_where_the_standard_variables_say_so(
    variables, said, capfd, monkeypatch
):
    """Anything else is off; what cannot be done is said."""
    from leveret.tracing import process  # noqa: PLC0415

    wanted = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} if variables else {}
    assert process.configure("worker", wanted | variables) is False
    assert said in capfd.readouterr().out + capfd.readouterr().err
    assert tracing.tracer() is None


def test_a_collector_that_is_away_is_said_once_and_holds_up_nothing(vhost, tmp_path):
    """Jobs run; the pool drains in time, and tells how many spans it has lost."""
    vhost.declare({"probe.run": "default"})
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_BSP_MAX_QUEUE_SIZE": "40",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
    }
    from leveret import Publisher  # noqa: PLC0415

    with (
        WorkerPool(vhost.environment("worker"), tmp_path, grace=2.0, variables=variables) as pool,
        Publisher(vhost.url("publisher"), timeout=60) as publisher,
    ):
        pool.wait_ready()
        publisher.publish_many(("probe.run", {"n": n}) for n in range(100))
        wait_until(lambda: len(pool.journal.ends()) == 100, timeout=60, what="all jobs ran")
        wait_until(
            lambda: pool.events("tracing.collector_lost"), timeout=60, what="the loss is said"
        )
        pool.signal(signal.SIGTERM)
        assert pool.process.wait(30) == 0
        lines = [json.loads(line) for line in pool.log.splitlines() if "tracing." in line]
    assert [line["event"] for line in lines] == ["tracing.collector_lost", "tracing.spans_lost"]
    # The waits, the attempts and the acks of a hundred jobs, at least.
    assert lines[1]["spans_lost"] >= 300
    assert "opentelemetry" not in pool.log


BLOCKED = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocked())
"""
PUBLISH = """
import sys
from leveret import Publisher, outbox, tracing
assert tracing.tracer() is None and tracing.trace_id() is None
with Publisher(sys.argv[1], timeout=30) as publisher:
    publisher.send("probe.run", traceparent=sys.argv[2])
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


def test_without_opentelemetry_everything_works_and_the_pool_says_why_there_are_no_traces(
    vhost, tmp_path
):
    """The extra is an extra, also where the variables for it are set."""
    vhost.declare({"probe.run": "default"})
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    blocked = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    }
    with WorkerPool(vhost.environment("worker"), tmp_path, variables=blocked) as pool:
        pool.wait_ready()
        done = subprocess.run(
            [sys.executable, "-c", PUBLISH, vhost.url("publisher"), PARENT],
            cwd=tmp_path,
            env={**bare_environment(), **blocked},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        wait_until(lambda: pool.events("job.succeeded"), timeout=60, what="the job has run")
        assert '"reason":"opentelemetry.sdk is missing; install leveret[otel]"' in pool.log
        assert f'"trace_id":"{TRACE}"' in pool.log
        assert "span_id" not in pool.log
