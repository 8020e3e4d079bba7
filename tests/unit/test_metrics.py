"""The table of metrics, what the core counts without it, and the sums of a pool."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as read_text

from leveret import errors, meter, metrics, names
from leveret.exemplars import exemplar_of
from leveret.health import exposition, own_metrics
from leveret.ledger.batch import Batch, StoredLetters
from leveret.ledger.event import DeadLetterEvent
from services.recorder.lettercounts import LetterCounts
from services.worker.metrics import PoolMetrics

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
TABLE = {name: getattr(metrics, name) for name in metrics.__all__}


@pytest.mark.parametrize("metric", TABLE.values(), ids=TABLE)
def test_each_metric_says_what_it_is(metric):
    """A sentence of help, a base unit as the last word, and the processes that know it."""
    [described] = metric.describe()
    assert described.name.startswith("leveret_")
    assert described.documentation.endswith(".")
    assert set(metrics.shown_by(metric)) <= set(metrics.ALL)
    assert described.unit == metrics.unit_of(described.name)
    if described.type == "histogram":
        assert described.unit == "seconds"


@pytest.mark.parametrize(
    "gauge", [m for m in TABLE.values() if isinstance(m, Gauge)], ids=lambda m: m._name
)
def test_the_gauges_of_a_dead_process_go(gauge):
    """A pool shows one number for each, and only that of processes that are alive."""
    assert gauge._multiprocess_mode in ("livesum", "livemax")


# ----------------------------------------------------------------------------------------- the core


class Owner:
    """Publishes nothing."""

    unconfirmed = 0


def _since(before: meter.Totals) -> meter.Totals:
    now = meter.totals()
    now.published.subtract(before.published)
    now.failed.subtract(before.failed)
    now.published, now.failed = +now.published, +now.failed
    now.took = [n - old for n, old in zip(now.took, before.took, strict=True)]
    now.seconds -= before.seconds
    return now


def test_a_publisher_makes_up_no_labels():
    """What it publishes to a queue that nobody has configured counts for `other`."""
    before, owner = meter.totals(), Owner()
    counts = meter.Meter(owner)
    for queue in (*names.DEFAULT_QUEUES, names.ANY_QUEUE):
        counts.confirmed(queue, 0.01, None)
    for number in range(1000):
        counts.confirmed(f"made-up-{number}", 0.01, None)
    found = _since(before)
    assert found.published == {
        **dict.fromkeys((*names.DEFAULT_QUEUES, names.ANY_QUEUE), 1),
        "other": 1000,
    }


def test_each_kind_of_failure_has_its_word():
    """And what no kind is foreseen for is one that AMQP cannot write."""
    before, owner = meter.totals(), Owner()
    counts = meter.Meter(owner)
    for kind in (
        errors.PublishTimeout,
        errors.PublishRejected,
        errors.PublisherBlocked,
        errors.PublisherClosed,
        errors.PublishError,
    ):
        counts.failed(kind("it failed"))
    words = ("timeout", "rejected", "blocked", "closed", "invalid")
    assert _since(before).failed == dict.fromkeys(words, 1)


def test_the_counts_of_a_publisher_that_is_gone_stay():
    """Counters never go down, and what is under way is that of publishers that are there."""
    before, owner = meter.totals(), Owner()
    owner.unconfirmed = 7
    counts = meter.Meter(owner)
    counts.confirmed("default", 0.02, None)
    counts.confirmed("default", 700, None)
    assert _since(before).unconfirmed == before.unconfirmed + 7
    del owner, counts
    gc.collect()
    found = _since(before)
    assert found.published == {"default": 2}
    assert sum(found.took) == 2
    assert found.took[-1] == 1
    assert found.seconds == pytest.approx(700.02)
    assert found.unconfirmed == before.unconfirmed


def test_what_the_core_counts_is_shown_once():
    """Reading the metrics fetches it, with the trace of the latest job of each bucket."""
    owner = Owner()
    counts = meter.Meter(owner)
    own_metrics()
    counts.confirmed("bulk", 0.3, TRACEPARENT)
    shown = [_samples(own_metrics(OPENMETRICS)[1]) for _ in range(2)]
    for samples in shown:
        bucket = samples["leveret_publish_confirm_seconds_bucket", ("le", "0.5")]
        assert bucket.exemplar.labels == {"trace_id": TRACE}
        assert bucket.exemplar.value == 0.3
    key = ("leveret_jobs_published_total", ("queue", "bulk"))
    assert shown[0][key].value == shown[1][key].value >= 1


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "made up",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{'a' * 500}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-00",
    ],
)
def test_what_names_no_trace_that_is_kept_is_no_exemplar(traceparent):
    """It would lead nowhere, and one that is too long would raise where jobs are settled."""
    assert exemplar_of(traceparent) is None


_SERVICE = """
import sys
from leveret import Publisher
from leveret.errors import PublisherClosed
publisher = Publisher("amqp://nobody@127.0.0.1:1/none")
publisher.close()
try:
    publisher.publish("email.send")
except PublisherClosed:
    pass
from leveret import meter
print(meter.totals().failed["closed"], "prometheus_client" in sys.modules)
"""


def test_a_publishing_service_counts_without_a_package_for_metrics():
    """It is not even imported where it is installed and nobody uses it."""
    done = subprocess.run(
        [sys.executable, "-c", _SERVICE], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["1", "False"]


def test_a_service_that_uses_prometheus_client_shows_what_it_publishes():
    """Without a word of its own: once it has prometheus_client, publishing brings the metrics."""
    script = (
        "import prometheus_client\n"
        "from leveret.publisher import publisher\n"
        "publisher._show_metrics()\n"
        "print(prometheus_client.generate_latest().decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "leveret_publish_confirm_seconds_count 0.0" in done.stdout


# ------------------------------------------------------------------------------------------ formats


def _samples(text: bytes):
    """Read OpenMetrics: samples by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain", "text/plain; version=0.0.4"),
        ("application/openmetrics", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=made.up", "application/openmetrics-text; version"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_metrics_are_written_in_the_format_that_is_asked_for(accept, kind):
    """OpenMetrics for who can read it, and else what everybody can."""
    found, text = own_metrics(accept)
    assert found.startswith(kind)
    if "openmetrics" in kind:
        families = list(text_string_to_metric_families(text.decode()))
    else:
        families = list(read_text(text.decode()))
    assert {"leveret_jobs_in_progress", "leveret_database_up"} <= {f.name for f in families}


# ---------------------------------------------------------------------------------------- the pool

_CHILD = f"""
import json, os, sys
from leveret import exemplars, metrics
number = int(sys.argv[1])
metrics.JOBS.labels("a.b", "default", "succeeded").inc(number)
metrics.JOBS.labels("a.b", "default", "dead").inc(1, {{"trace_id": "{TRACE}"}})
metrics.JOB_DURATION.labels("a.b", "default").observe(0.2, {{"trace_id": "{TRACE}"}})
metrics.JOBS_IN_PROGRESS.set(number)
print(json.dumps(exemplars.take(10)), flush=True)
if "fork" in sys.argv and not os.fork():
    metrics.JOBS.labels("a.b", "default", "succeeded").inc(100)
    os._exit(0)
if "fork" in sys.argv:
    os.wait()
sys.stdin.read(1)
os.kill(os.getpid(), 9)
"""


class Child:
    """A process that counts, and is killed."""

    def __init__(self, pool: PoolMetrics, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, *words],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": pool.folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.exemplars = json.loads(self._process.stdout.readline())

    def die(self) -> None:
        """Have it killed; return when it is gone."""
        self._process.communicate(b"!", timeout=60)
        assert self._process.returncode == -9


@pytest.fixture
def pool():
    """Return the metrics of a pool without a process."""
    made = PoolMetrics()
    yield made
    made.remove()


def _read(pool: PoolMetrics):
    return _samples(pool.write(OPENMETRICS)[1])


_SUCCEEDED = (
    "leveret_jobs_total",
    ("actor", "a.b"),
    ("outcome", "succeeded"),
    ("queue", "default"),
)
_DURATIONS = ("leveret_job_duration_seconds_count", ("actor", "a.b"), ("queue", "default"))
_BUCKET = (
    "leveret_job_duration_seconds_bucket",
    ("actor", "a.b"),
    ("le", "0.25"),
    ("queue", "default"),
)


def test_counts_of_dead_processes_stay_and_their_files_and_gauges_go(pool):
    """Of three that were killed, no count is lost, none is doubled, and no file is left."""
    shown = []
    for number in (1, 2, 4):
        child = Child(pool, str(number))
        found = _read(pool)
        assert found["leveret_jobs_in_progress",].value == number
        child.die()
        pool.put_away()
        shown.append((_read(pool)[_SUCCEEDED].value, _read(pool)[_DURATIONS].value))
        assert ("leveret_jobs_in_progress",) not in _read(pool)
    assert shown == [(1, 1), (3, 2), (7, 3)]
    assert sorted(path.name for path in Path(pool.folder).iterdir()) == [
        "counter_gone.db",
        "histogram_gone.db",
    ]


def test_what_is_counted_in_a_fork_of_a_process_counts_once(pool):
    """An actor may fork; what the child of a child counts is there, and outlives it as well."""
    child = Child(pool, "1", "fork")
    child.die()
    assert _read(pool)[_SUCCEEDED].value == 101
    assert len(list(Path(pool.folder).iterdir())) == 2


_FORKS = """
import os, signal, threading
from leveret import metrics
counter = metrics.JOBS.labels("a.b", "default", "succeeded")
stop = threading.Event()
def count():
    while not stop.is_set():
        counter.inc()
threads = [threading.Thread(target=count) for _ in range(3)]
for thread in threads:
    thread.start()
stuck = 0
for _ in range(60):
    if not (pid := os.fork()):
        signal.alarm(20)
        counter.inc()
        os._exit(0)
    stuck += os.waitpid(pid, 0)[1] != 0
    if stuck:
        break
stop.set()
for thread in threads:
    thread.join()
print(stuck)
"""


def test_a_process_may_fork_while_its_threads_count(pool):
    """Without care, the child waits for ever for a lock that a thread of the parent held."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKS],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": pool.folder},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout.strip() == "0"


def test_exemplars_of_processes_are_joined_to_the_sums(pool):
    """The latest of each bucket and counter, in OpenMetrics alone."""
    child = Child(pool, "1")
    pool.keep(child.exemplars)
    found = _read(pool)
    assert found[_BUCKET].exemplar.labels == {"trace_id": TRACE}
    assert found[_BUCKET].exemplar.value == 0.2
    died = ("leveret_jobs_total", ("actor", "a.b"), ("outcome", "dead"), ("queue", "default"))
    assert found[died].exemplar.labels == {"trace_id": TRACE}
    assert found[_SUCCEEDED].exemplar is None
    assert TRACE not in pool.write("text/plain")[1].decode()
    [older, *_] = (e for e in child.exemplars if e[0].endswith("_bucket"))
    pool.keep([[*older[:2], {"trace_id": "f" * 32}, 0.22, older[4] - 60]])
    assert _read(pool)[_BUCKET].exemplar.labels == {"trace_id": TRACE}
    child.die()
    assert _read(pool)[_BUCKET].exemplar.labels == {"trace_id": TRACE}


def test_a_pool_shows_what_it_is_and_what_its_launcher_counts(pool):
    """Restarts are the launcher's own count; units are those of the table."""
    pool.restarts = 3
    child = Child(pool, "1")
    kind, text = pool.write(OPENMETRICS)
    found = _samples(text)
    assert found["leveret_worker_restarts_total",].value == 3
    assert (
        found[("leveret_build_info", ("process", "worker"), ("version", metrics.release()))].value
        == 1
    )
    assert b"# UNIT leveret_job_duration_seconds seconds" in text
    assert kind.startswith("application/openmetrics-text")
    child.die()


def test_a_file_that_a_process_is_just_making_stops_nobody(pool):
    """It is empty for a moment."""
    (Path(pool.folder) / f"counter_{os.getpid()}.db").touch()
    assert _read(pool)["leveret_worker_restarts_total",].value == 0


def test_a_torn_file_of_a_dead_process_is_given_up(pool):
    """A full disk, say; the launcher goes on, with what others have counted."""
    child = Child(pool, "5")
    child.die()
    [torn] = Path(pool.folder).glob("histogram_*.db")
    torn.write_bytes(torn.read_bytes()[:40] + b"\xff" * 100)
    pool.put_away()
    found = _read(pool)
    assert found[_SUCCEEDED].value == 5
    assert _DURATIONS not in found
    assert [path.name for path in Path(pool.folder).iterdir()] == ["counter_gone.db"]


# ------------------------------------------------------------------------------------- dead letters


def _letter(**fields):
    known = dict.fromkeys(DeadLetterEvent._fields)
    return DeadLetterEvent(**{**known, "reason": "exhausted", **fields})


def _stored(registry_name: str = "leveret_dead_letters") -> dict[tuple[str, ...], float]:
    [family] = metrics.DEAD_LETTERS.collect()
    assert family.name == registry_name
    return {
        (s.labels["actor"], s.labels["queue"], s.labels["reason"]): s.value
        for s in family.samples
        if s.name.endswith("_total")
    }


def test_who_publishes_makes_up_no_labels_of_dead_letters():
    """An actor counts under its name once it has run; anything else is `unknown` or `other`."""
    before = _stored()
    batch = Batch()
    batch.letters = [
        _letter(actor="mail.send", traceback="Traceback"),
        _letter(actor="mail.typo", reason="bad-arguments"),
        *(_letter(actor=f"made.up{n}", reason="unknown-actor") for n in range(1000)),
    ]
    batch.stored_letters = [
        StoredLetters("mail.send", "default", "exhausted", 3),
        StoredLetters("mail.typo", "bulk", "bad-arguments", 2),
        StoredLetters("made.up", "made-up", "made-up", 1),
        StoredLetters("made.up2", "default", "unknown-actor", 1000),
        StoredLetters(None, None, "unroutable", 4),
    ]
    LetterCounts(names.DEFAULT_QUEUES).count(batch)
    found = {key: value - before.get(key, 0) for key, value in _stored().items()}
    assert {key: value for key, value in found.items() if value} == {
        ("mail.send", "default", "exhausted"): 3,
        ("mail.typo", "bulk", "bad-arguments"): 2,
        ("unknown", "other", "other"): 1,
        ("unknown", "default", "unknown-actor"): 1000,
        ("unknown", "unknown", "unroutable"): 4,
    }


def test_a_registry_of_anybody_can_be_written():
    """NaN, infinity and odd help texts survive the way to Prometheus."""
    registry = CollectorRegistry()
    Gauge("odd", 'Help with "quotes",\nlines and \\.', registry=registry).set(math.nan)
    assert math.isnan(_samples(exposition(registry, OPENMETRICS)[1])["odd",].value)
