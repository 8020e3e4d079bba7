"""The quickstart, as it stands there: a new user's first ten minutes, in some seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tests.e2e.test_how_to_pages import environment, run
from tests.support.pages import ROOT, blocks
from tests.support.recorders import RecorderProcess, migrated
from tests.support.relays import RelayProcess
from tests.support.schedulers import SchedulerProcess
from tests.support.waiting import wait_until

QUICKSTART = blocks("docs/quickstart.md")


@pytest.fixture
def shell(fresh_vhost, fresh_database, tmp_path):
    """Return a function that runs commands where `hello.py` is; all processes run.

    `make up` is left out here: broker, database and processes are those of this test.
    """
    migrated(fresh_database)
    (tmp_path / "hello.py").write_text(QUICKSTART["hello.py"])
    (tmp_path / "shop.py").write_text(QUICKSTART["shop.py"])
    common = {"LEVERET_DATABASE_URL": fresh_database, "LEVERET_ACTORS": "hello"}
    loaded = {**common, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    run(
        ["leveret", "topology", "apply"],
        tmp_path,
        **loaded,
        LEVERET_AMQP_URL=fresh_vhost.url("admin"),
    )
    fresh_vhost.granted()
    client = {**common, **fresh_vhost.environment("publisher")}
    with ExitStack() as stack, (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "services.worker", "--processes", "1"],
            cwd=tmp_path,
            env=environment(**loaded, **fresh_vhost.environment("worker")),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        stack.callback(worker.wait, 60)
        stack.callback(worker.terminate)
        recorder = RecorderProcess(fresh_vhost.environment("recorder"), fresh_database, tmp_path)
        relay = RelayProcess(
            fresh_vhost, fresh_database, folder=tmp_path, LEVERET_DATABASE_URL=fresh_database
        )
        scheduler = SchedulerProcess(
            fresh_database, folder=tmp_path, LEVERET_ACTORS="hello", PYTHONPATH=str(tmp_path)
        )
        for process in (recorder, relay, scheduler):
            stack.enter_context(process).wait_ready()
        yield lambda name: run(["sh", "-euc", QUICKSTART[name]], tmp_path, **client)


def states(said):
    """Return the states in a table of jobs."""
    return re.findall(r"\b(scheduled|queued|running|retrying|succeeded|dead)\b", said)


@pytest.mark.timeout(300)
def test_the_quickstart_does_what_it_shows(shell, tmp_path):
    """Two greetings, two dead letters, a replay, a schedule, a result, and the books balance."""
    greetings = tmp_path / "greetings.txt"
    assert len(shell("publish").split()) == 2
    wait_until(lambda: states(shell("look")) == ["succeeded"] * 2, timeout=60, every=0.5)
    assert greetings.read_text() == "Hello, Ada!\nGood evening, Grace!\n"

    marie, bob, *_ = shell("fail").split()

    def groups():
        return [line.split()[2] for line in shell("groups").splitlines() if "greeting" in line]

    wait_until(lambda: sorted(groups()) == ["bad-arguments", "exhausted"], timeout=60, every=0.5)
    replayed = shell("replay")
    assert "1 of 1 published" in replayed
    assert "1 succeeded, 0 died again" in replayed
    assert "1 dead letter discarded" in replayed
    assert greetings.read_text().endswith("Hello, Marie!\n")
    assert marie != bob

    fired = re.findall(r"fired +schedule .*succeeded", shell("schedule"))
    assert len(fired) >= 2
    assert "Hello, Everybody!" in greetings.read_text()
    assert shell("shop") == "Hello, Alan!\n"
    audit = shell("audit")
    assert "dead letters: 1 discarded, 1 replayed" in audit
    assert "every job is accounted for" in audit
