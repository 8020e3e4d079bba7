"""A worker as a user runs it: started, fed by every route, asked to end; and told what is wrong."""

from __future__ import annotations

import http
import subprocess
import sys
import time

import pika
import pytest

from leveret import Publisher, names
from tests.support.faultjobs import ACTORS
from tests.support.pools import WorkerPool
from tests.support.processes import ROOT, bare_environment
from tests.support.waiting import wait_until

WORKER = ("-m", "services.worker")


def state(vhost, queue):
    """Return how many messages wait in a queue, and how many consumers it has."""
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url("admin")))
    try:
        found = connection.channel().queue_declare(queue, passive=True).method
        return found.message_count, found.consumer_count
    finally:
        connection.close()


def test_a_worker_starts_takes_jobs_by_every_route_and_drains(
    fresh_vhost, tmp_path, record_property
):
    """`<queue>.<actor>` and `any.<actor>` run, a stray one is kept, SIGTERM waits for a job."""
    vhost = fresh_vhost.declare(ACTORS)
    begin = time.monotonic()
    pool = WorkerPool(vhost.environment("worker"), tmp_path, queues="default,bulk", threads=2)
    try:
        with Publisher(vhost.url("publisher")) as publisher:
            pool.wait_ready()
            record_property("seconds from the start to ready", f"{time.monotonic() - begin:.1f}")
            assert pool.get("/livez")[0] == http.HTTPStatus.OK
            routed = {
                publisher.send("probe.run", {"n": 1}),  # any.probe.run
                publisher.send("probe.run", {"n": 2}, queue="bulk"),  # bulk.probe.run
                publisher.send("probe.run", {"n": 3}, delay=0.2),  # through the wheel
            }
            publisher.send("nobody.knows", {"n": 4})
            ended = lambda: {entry.job_id for entry in pool.journal.entries("end")}  # noqa: E731
            wait_until(lambda: ended() == routed, timeout=30, what="all that has a route has run")
            wait_until(lambda: state(vhost, names.UNROUTABLE) == (1, 0), timeout=30)
            held = publisher.send("probe.hold", {"n": 5})
            wait_until(pool.journal.running, timeout=30, what="a job runs")
            pool.drain()
            wait_until(lambda: pool.get("/readyz")[0] != http.HTTPStatus.OK, timeout=30)
            assert pool.process.poll() is None
            pool.journal.open_gate("gate")
            assert pool.process.wait(30) == 0
            assert pool.processes() == []
            assert ended() == {*routed, held}
            assert state(vhost, names.work_queue("default")) == (0, 0)
    finally:
        pool.kill_everything()


@pytest.mark.parametrize(
    ("program", "variables", "said"),
    [
        pytest.param(WORKER, {}, "LEVERET_AMQP_URL is not set", id="worker: no broker"),
        pytest.param(
            WORKER, {"LEVERET_AMQP_URL": "localhost:5672"}, "LEVERET_AMQP_URL", id="worker: no URL"
        ),
        pytest.param(
            (*WORKER, "--queues", "bulky"),
            {"LEVERET_AMQP_URL": "amqp://a:b@127.0.0.1/%2F"},
            "--queues names 'bulky', which is not one of LEVERET_QUEUES",
            id="worker: no such queue",
        ),
        pytest.param(
            WORKER,
            {"LEVERET_AMQP_URL": "amqp://a:b@127.0.0.1/%2F", "LEVERET_ACTORS": "acme.jobs"},
            "LEVERET_ACTORS names the module 'acme.jobs', which cannot be imported",
            id="worker: no such actors",
        ),
        pytest.param(
            WORKER, {"LEVERET_PREFETCH": "many"}, "LEVERET_PREFETCH", id="worker: no number"
        ),
        pytest.param(("-m", "services.recorder"), {}, "LEVERET_", id="recorder"),
        pytest.param(("-m", "services.relay"), {}, "LEVERET_", id="relay"),
        pytest.param(
            ("-m", "services.api"), {"LEVERET_HTTP_PORT": "1"}, "LEVERET_DATABASE_URL", id="api"
        ),
        pytest.param(("-m", "scheduler"), {}, "LEVERET_DATABASE_URL", id="scheduler"),
    ],
)
def test_a_process_that_is_misconfigured_says_so_in_one_line(program, variables, said):
    """Exit status 2, and one line that names the setting."""
    done = subprocess.run(
        [sys.executable, *program],
        cwd=ROOT,
        env={**bare_environment(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    *logged, line = done.stderr.splitlines()
    assert line.startswith("leveret "), done.stderr
    assert said in line
    assert all(entry.startswith('{"') for entry in logged), done.stderr
