"""The commands of docs/how-to/run-the-scheduler.md, as they stand there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.pages import ROOT
from tests.support.processes import bare_environment
from tests.support.schedulers import create, every, query
from tests.support.waiting import wait_until

PAGE = (ROOT / "docs/how-to/run-the-scheduler.md").read_text()


def test_the_pages_commands_run_a_scheduler(fresh_database, tmp_path):
    """The tables are made, a schedule fires, and its end says what the page says."""
    commands = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = bare_environment()
    environment = {
        **kept,
        "PATH": path,
        "LEVERET_DATABASE_URL": fresh_database,
        "LEVERET_ACTORS": "tests.support.tickjobs",
        "LEVERET_LOG_FORMAT": "json",
    }
    prepare, start = commands
    subprocess.run(prepare.split(), cwd=ROOT, env=environment, check=True, timeout=60)
    create(fresh_database, [every("tick", 1)])
    said = tmp_path / "log"
    with said.open("wb") as output:
        process = subprocess.Popen(start.split(), cwd=ROOT, env=environment, stderr=output)
    try:
        wait_until(
            lambda: query(fresh_database, "SELECT count(*) > 1 FROM leveret_outbox")[0][0],
            timeout=60,
            what="it publishes",
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)
    events = re.findall(r'"event":"(scheduler\.\w+)"', said.read_text())
    assert "scheduler.leading" in events
    assert "scheduler.leading" in PAGE
    assert events[-2:] == ["scheduler.resigned", "scheduler.stopped"]
