"""Programs of pages under docs/how-to and of the README, run as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from leveret import Publisher
from tests.support.observed import Observed, observing_worker
from tests.support.pages import ROOT, blocks
from tests.support.processes import bare_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLISHING = blocks("docs/how-to/publish-from-another-service.md")
DEAD_LETTERS = blocks("docs/how-to/operate-dead-letters.md")
README = blocks("README.md")


def environment(**variables: str) -> dict[str, str]:
    """Return an environment with no variable of Leveret's but these."""
    kept = bare_environment()
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, **variables}


def run(command: list[str], folder: Path, **variables: str) -> str:
    """Run a program to its end and return what it prints."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def observed(fresh_vhost) -> Iterator[Observed]:
    """Run a worker that takes notes, in a virtual host of this test."""
    fresh_vhost.declare({"email.send": "default"})
    with observing_worker(fresh_vhost) as found:
        yield found


def test_a_service_publishes_in_each_of_the_ways_shown(observed, fresh_vhost, tmp_path):
    """What the page's service publishes runs, each job as often and in the queue it asked for."""
    for name, text in PUBLISHING.items():
        (tmp_path / name).write_text(text)
    began = time.time()
    for name in PUBLISHING:
        run([sys.executable, name], tmp_path, LEVERET_AMQP_URL=fresh_vhost.url("publisher"))
    (order,) = observed.runs("From send", 1)
    assert order["job"].id == "order-4711-confirmation"
    assert (order["job"].correlation_id, order["job"].app_id) == ("order-4711", "shop")
    (reminder,) = observed.runs("From remind", 1)
    assert reminder["job"].queue == "bulk"
    assert reminder["at"] >= began + 1
    assert reminder["job"].expires_at is not None
    assert len(observed.runs("From publish_many", 2)) == 2
    assert len(observed.runs("Careful", 1)) == 1
    assert len(observed.runs("From asyncio", 10)) == 10


def test_dead_letters_are_looked_at_and_replayed(observed, fresh_vhost, tmp_path):
    """Looking takes nothing; a replay moves those of one reason, and leaves the others."""
    for name, text in DEAD_LETTERS.items():
        (tmp_path / name).write_text(text)
    observed.failing.add("Hello")
    with Publisher(fresh_vhost.url("publisher")) as publisher:
        job = {"to": "ada@example.com", "subject": "Hi", "text": "Hello"}
        exhausted = publisher.send("email.send", job, max_retries=0)
        wrong = publisher.send("email.send", {"too": "ada@example.com"})
    assert observed.outcome(exhausted)["reason"] == "exhausted"
    assert observed.outcome(wrong)["reason"] == "bad-arguments"

    def look() -> dict[str, str]:
        url = fresh_vhost.url("recorder")
        printed = run(["sh", "-eu", "look"], tmp_path, LEVERET_AMQP_URL=url)
        return {line.split()[0]: line for line in printed.splitlines()}

    for _ in range(2):
        seen = look()
        assert seen.keys() == {exhausted, wrong}
    assert "any.email.send exhausted no mail server for 'Hello'" in seen[exhausted]
    assert "any.email.send bad-arguments email.send: to: Field required" in seen[wrong]

    observed.failing.clear()
    printed = run(
        ["sh", "-eu", "replay"],
        tmp_path,
        DEAD_LETTERS_URL=fresh_vhost.url("recorder"),
        LEVERET_AMQP_URL=fresh_vhost.url("publisher"),
    )
    assert printed == "1 replayed\n"
    again = observed.runs("Hello", 2)[1]
    assert (again["job"].id, again["job"].attempt) == (exhausted, 1)
    wait_until(lambda: look().keys() == {wrong}, what="only the other dead letter is left")


def test_the_quickstart_of_the_readme_does_what_it_shows(fresh_vhost, tmp_path):
    """Its actor runs for the jobs that it publishes, and the wrong one becomes a dead letter.

    `make up` is left out here: the worker and the topology are those of this test.
    """
    (tmp_path / "hello.py").write_text(README["hello.py"])
    loaded = {"LEVERET_ACTORS": "hello", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    admin = {"LEVERET_AMQP_URL": fresh_vhost.url("admin")}
    run(["leveret", "topology", "apply"], tmp_path, **loaded, **admin)
    fresh_vhost.granted()
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "services.worker", "--processes", "1"],
            cwd=tmp_path,
            env=environment(**loaded, **fresh_vhost.environment("worker")),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        publish = README["publish"].replace(".venv/bin/", "")
        publisher = fresh_vhost.url("publisher")
        ids = run(["sh", "-euc", publish], tmp_path, LEVERET_AMQP_URL=publisher).split()
        assert len(ids) == 3
        text = (tmp_path / "worker.log").read_text
        wait_until(lambda: text().count("job.succeeded") == 2, timeout=40, what="two greetings")
        wait_until(lambda: "bad-arguments" in text(), what="the dead letter")
        (tmp_path / "publish.py").write_text(README["publish.py"])
        run([sys.executable, "publish.py"], tmp_path, LEVERET_AMQP_URL=publisher)
        wait_until(lambda: text().count("job.succeeded") == 3, timeout=40, what="the third")
    finally:
        worker.terminate()
        worker.wait(60)
    assert (tmp_path / "greetings.txt").read_text() == (
        "Hello, Ada!\nHello, Grace!\nHello, Marie!\n"
    )
