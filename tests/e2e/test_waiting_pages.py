"""The pages about results, progress and cancelling, run as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.pages import ROOT, blocks
from tests.support.pools import WorkerPool
from tests.support.processes import bare_environment
from tests.support.recorders import Ledger, RecorderProcess
from tests.support.relays import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITING = blocks("docs/how-to/wait-for-a-result.md")
PROGRESS = blocks("docs/how-to/report-progress.md")
CANCELLING = blocks("docs/how-to/cancel-a-job.md")
ACTORS = dict.fromkeys(("report.add", "report.count", "report.refuse", "rows.load"), "default")
#: What the page says of a large result.
LARGE = """
import os, leveret
with leveret.Publisher(os.environ["LEVERET_AMQP_URL"]) as publisher:
    print(len(publisher.publish("report.count", {"to": 50_000}).result(timeout=60)))
"""


@pytest.fixture
def folder(shared_broker, ledger_database, tmp_path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Run workers, a recorder and a relay; return the pages' folder and its environment."""
    for name, text in (WAITING | PROGRESS | CANCELLING).items():
        (tmp_path / name).write_text(text)
    vhost = shared_broker.create_vhost("pages").declare(ACTORS)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    recorder = RecorderProcess(vhost.environment("recorder"), ledger_database, tmp_path)
    relay = RelayProcess(vhost, ledger_database, folder=tmp_path)
    pool = WorkerPool(
        vhost.environment("worker"),
        tmp_path,
        actors=("report", "rows"),
        variables={
            "PYTHONPATH": path,
            "LEVERET_DATABASE_URL": ledger_database,
            "LEVERET_RESULT_STORE": f"file://{tmp_path}/kept",
        },
    )
    kept = bare_environment()
    try:
        recorder.wait_ready()
        pool.wait_ready()
        yield (
            tmp_path,
            {
                **kept,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
                "LEVERET_AMQP_URL": vhost.url("admin"),
                "LEVERET_DATABASE_URL": ledger_database,
                "LEVERET_RESULT_STORE": f"file://{tmp_path}/kept",
            },
        )
    finally:
        pool.kill_everything()
        recorder.kill()
        relay.kill()
        vhost.management.delete_vhost(vhost.name)
        vhost.management.close()


def run(command: list[str], place: tuple[Path, dict[str, str]]) -> str:
    """Run a program to its end and return what it prints."""
    folder, environment = place
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_pages_do_what_they_show(folder, ledger_database):
    """Results are returned, progress is followed, and a job is cancelled and run again."""
    page = (ROOT / "docs/how-to/wait-for-a-result.md").read_text()
    shown = page.partition("```text\n")[2].partition("```")[0]
    assert run([sys.executable, "wait.py"], folder) == shown

    assert run([sys.executable, "-c", LARGE], folder) == "50000\n"
    assert [kept.name for kept in (folder[0] / "kept").glob("*/*")] == ["0-1.json"]

    followed = run([sys.executable, "follow.py"], folder).splitlines()
    assert followed[-1] == "succeeded 1.0 row 500 of 500"
    assert any("running 0." in line for line in followed)

    printed = run(["sh", "-eu", "-c", '. ./cancel; . ./retry; echo "$JOB"'], folder)
    *said, job_id = printed.splitlines()
    assert said[-2:] == [
        f"{job_id}  cancelled: it was not due yet",
        f"{job_id}  queued: it is queued again, as run 1",
    ]
    ledger = Ledger(ledger_database)
    try:
        assert ledger.wait(job_id, "scheduled")["run"] == 1
    finally:
        ledger.close()
