"""The actors in the box, published as jobs and run by a real worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from PIL import Image
from werkzeug import Response

import actors
from leveret import Publisher
from tests.support.processes import bare_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
QUEUES = {
    each.actor_name: each.queue_name for each in (getattr(actors, name) for name in actors.__all__)
}


class Mailbox(Message):
    """Keeps the mails that arrive."""

    def __init__(self):
        super().__init__()
        self.mails = []

    def handle_message(self, message):
        """Keep one."""
        self.mails.append(message)


class Port(Controller):
    """A controller that says which port it was given."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class Outcomes:
    """Reads what the worker reports about the jobs."""

    def __init__(self, url):
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self.records: list[dict[str, Any]] = []

    def of(self, job_id):
        """Return the records about a job that have come so far."""
        while True:
            method, _, body = self._channel.basic_get("leveret.ledger", auto_ack=True)
            if method is None:
                break
            if method.exchange == "leveret.outcomes":
                self.records += json.loads(body)["records"]
        return [record for record in self.records if record.get("id") == job_id]

    def end_of(self, job_id):
        """Wait for the end of a job, and return the last record about it."""

        def last():
            ends = [
                record
                for record in self.of(job_id)
                if record["event"] in {"succeeded", "dead", "expired", "cancelled"}
            ]
            return ends[-1] if ends else None

        return wait_until(last, timeout=60, what=f"end of {job_id}", every=0.1)

    def close(self):
        """Disconnect."""
        self._connection.close()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """Run an SMTP server."""
    box = Mailbox()
    controller = Port(box, hostname="127.0.0.1", port=0)
    controller.start()
    box.port = controller.port
    yield box
    controller.stop()


@pytest.fixture
def publisher(fresh_vhost, mailbox, tmp_path) -> Iterator[Publisher]:
    """Run a worker with the actors in the box; give a publisher for it."""
    fresh_vhost.declare(QUEUES)
    trips = {"day": [1, 1, 2], "carrier": ["UA", "UA", "AA"], "delay": [1.0, 3.0, None]}
    pq.write_table(pa.table(trips), tmp_path / "trips.parquet")
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "carriers.sql").write_text(
        "SELECT carrier, count(*) AS n FROM trips WHERE day <= :day GROUP BY carrier ORDER BY 1"
    )
    variables = {
        **fresh_vhost.environment("worker"),
        "LEVERET_ACTORS": "actors",
        "LEVERET_STORAGE_URL": str(tmp_path / "storage"),
        "LEVERET_SOURCE_TRIPS_URL": str(tmp_path / "trips.parquet"),
        "LEVERET_QUERIES": str(tmp_path / "queries"),
        "LEVERET_SMTP_URL": f"smtp://127.0.0.1:{mailbox.port}?tls=off",
        "LEVERET_SMTP_FROM": "leveret@example.com",
        "LEVERET_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "LEVERET_WEBHOOK_ALLOW_PRIVATE": "1",
    }
    kept = bare_environment()
    command = [sys.executable, "-m", "services.worker", "--queues", "default,bulk,scheduled"]
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [*command, "--threads", "4", "--processes", "1"],
            cwd=ROOT,
            env={**kept, **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            with Publisher(fresh_vhost.url("publisher")) as made:
                yield made
        finally:
            worker.terminate()
            status = worker.wait(60)
            sys.stdout.write((tmp_path / "worker.log").read_text())
    assert status == 0


@pytest.fixture
def outcomes(fresh_vhost, publisher) -> Iterator[Outcomes]:
    """Return the reader of outcomes."""
    reader = Outcomes(fresh_vhost.url("admin"))
    yield reader
    reader.close()


def test_a_report_is_made_mailed_announced_and_cleaned_up(
    publisher, outcomes, mailbox, httpserver, tmp_path
):
    """The results of one actor are the arguments of the next, from data to deletion."""
    summary = outcomes.end_of(
        publisher.send(
            "data.aggregate",
            {"source": "trips", "group_by": ["carrier"], "measures": ["count", "mean:delay"]},
        )
    )
    assert (summary["event"], summary["result"]["rows"]) == ("succeeded", 3)

    job = {"query": "carriers", "source": "trips", "parameters": {"day": 2}}
    report = outcomes.end_of(publisher.send("report.generate", job))["result"]
    assert report["rows"] == 2
    path = Path(report["url"].removeprefix("file://"))
    assert path.read_text() == '"carrier","n"\n"AA",1\n"UA",2\n'

    sent = publisher.send(
        "email.send",
        {
            "to": "a@example.com",
            "template": "report-ready",
            "context": {"title": "Carriers", "rows": report["rows"]},
            "attachments": [report["url"]],
        },
    )
    assert outcomes.end_of(sent)["result"]["message_id"] == f"<{sent}@example.com>"
    (mail,) = mailbox.mails
    assert (mail["Message-ID"], mail["Subject"]) == (
        f"<{sent}@example.com>",
        "Report ready: Carriers",
    )

    httpserver.expect_request("/hook").respond_with_data("ok")
    hook = publisher.send(
        "webhook.deliver", {"url": httpserver.url_for("/hook"), "payload": report}
    )
    assert outcomes.end_of(hook)["result"] == {"status": 200}
    assert httpserver.log[0][0].headers["Webhook-Id"] == hook

    os.utime(path, (0, 0))
    gone = publisher.send("storage.cleanup", {"prefix": "reports", "older_than": "P1D"})
    assert outcomes.end_of(gone)["result"]["deleted"] == 1
    assert not path.exists()


def test_a_picture_is_resized_and_a_broken_one_is_dead(publisher, outcomes, tmp_path):
    """What can never work is dead after its first attempt, with the reason."""
    uploads = tmp_path / "storage" / "uploads"
    uploads.mkdir(parents=True)
    buffer = BytesIO()
    Image.new("RGB", (300, 100), "teal").save(buffer, "PNG")
    (uploads / "cat.png").write_bytes(buffer.getvalue())
    (uploads / "broken.png").write_bytes(buffer.getvalue()[:60])
    good = publisher.send("image.resize", {"image": "uploads/cat.png", "sizes": ["30x30", "60x60"]})
    broken = publisher.send("image.resize", {"image": "uploads/broken.png", "sizes": ["30x30"]})
    assert [each["width"] for each in outcomes.end_of(good)["result"]["images"]] == [30, 60]
    end = outcomes.end_of(broken)
    assert (end["event"], end["attempt"]) == ("dead", 1)
    assert "ActorArgumentError" in end["error"]["type"]


def test_a_receiver_decides_about_retries(publisher, outcomes, httpserver):
    """429 with Retry-After comes back after that time and not before; 410 is final."""
    times = []

    def busy_once(_request):
        times.append(time.monotonic())
        return (
            Response("busy", status=429, headers={"Retry-After": "2"})
            if len(times) == 1
            else (Response("ok"))
        )

    httpserver.expect_request("/busy").respond_with_handler(busy_once)
    httpserver.expect_request("/gone").respond_with_data("gone", status=410)
    busy = publisher.send("webhook.deliver", {"url": httpserver.url_for("/busy"), "payload": {}})
    gone = publisher.send("webhook.deliver", {"url": httpserver.url_for("/gone"), "payload": {}})
    end = outcomes.end_of(gone)
    assert (end["event"], end["attempt"]) == ("dead", 1)
    assert "410" in end["error"]["message"]
    end = outcomes.end_of(busy)
    assert (end["event"], end["attempt"]) == ("succeeded", 2)
    assert 2 <= times[1] - times[0] < 10
    ids = {
        request.headers["Webhook-Id"] for request, _ in httpserver.log if request.path == "/busy"
    }
    assert ids == {busy}


def test_a_bad_argument_is_dead_before_the_actor_runs(publisher, outcomes, mailbox):
    """The limits of the annotations hold for jobs of any publisher."""
    bad = publisher.send("email.send", {"to": "nobody", "subject": "Hi", "text": "x"})
    end = outcomes.end_of(bad)
    assert end["event"] == "dead"
    assert mailbox.mails == []
