"""`make demo` in a small form, on the stack of this checkout.

One test, because there can be only one demonstration of a checkout at a time.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest
from PIL import Image

from compose.native import processes
from tests.support.processes import bare_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from compose.native.paths import Checkout

ROOT = Path(__file__).parents[2]
#: 20 days, a report of the year, a report, a mail, 4 webhooks, 12 pictures, 4 gone wrong.
PUBLISHED, DEAD = 43, 5


def start(days: int) -> subprocess.Popen[str]:
    """Start the demonstration without a terminal."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "compose.demo", "--days", str(days), "--timeout", "150"],
        cwd=ROOT,
        env=bare_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read what it prints until a line has the text."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return
    raise AssertionError(f"it never said {text!r}: {''.join(said)}")


@pytest.mark.timeout(320)
def test_every_job_is_accounted_for_also_after_a_run_that_was_killed(checkout: Checkout):
    """What a killed run leaves behind, workers and jobs, does not confuse the next."""
    killed = start(days=365)
    try:
        wait_for(killed, "not-json")
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    left = processes.marked(checkout.demo_mark)
    assert left, "the workers of the killed run were to go on"

    run = start(days=20)
    try:
        wait_for(run, "starting recorder")
        second = start(days=1)
        said, _ = second.communicate(timeout=60)
        assert second.returncode == 2
        assert "another demonstration of this checkout is running" in said
        output, _ = run.communicate(timeout=200)
    finally:
        run.kill()
    assert run.returncode == 0, output

    assert re.search(
        rf"^ *all +{PUBLISHED} +{PUBLISHED - DEAD} +\d+ +{DEAD} *$", output, re.MULTILINE
    )
    assert f"{PUBLISHED} published = {PUBLISHED - DEAD} succeeded + {DEAD} dead" in output
    for reason in ("worker-killed", "not-json", "unknown-actor", "unroutable", "refused"):
        assert reason in output
    assert "1 of 1 dead letters of one group were replayed to success" in output
    beats = re.search(r"schedule heartbeat: (\d+) slots, one each second, (\d+) jobs", output)
    assert beats is not None
    assert beats[1] == beats[2]
    succeeded = PUBLISHED - DEAD + 1 + int(beats[1])
    total = PUBLISHED + int(beats[1])
    assert f"{total} published = {DEAD - 1} dead + {succeeded} succeeded" in output
    assert re.search(r"process \d+ led the schedulers and was killed; process \d+ took", output)
    assert "✗" not in output
    assert "Everything adds up" in output

    wait_until(lambda: not processes.marked(checkout.demo_mark), what="its workers have ended")
    found = re.search(r"reports +(\S+)/storage/reports", output)
    assert found is not None
    folder = ROOT / found[1]
    days = f"{folder}/storage/days/*.parquet"
    with duckdb.connect(":memory:") as connection:
        (flights,) = connection.execute(f"SELECT sum(count) FROM '{days}'").fetchall()[0]
        table = ROOT / "build" / "demo" / "flights.parquet"
        condition = "month = 1 AND day <= 20"
        wanted = connection.execute(f"SELECT count(*) FROM '{table}' WHERE {condition}")
        assert flights == wanted.fetchall()[0][0] > 15_000
    (mail,) = (folder / "mails").iterdir()
    (sheet,) = message_from_bytes(mail.read_bytes(), policy=default).iter_attachments()
    assert sheet.get_filename() == "2013-01-carriers.xlsx"
    for picture in (folder / "storage" / "pictures").glob("*-800x500.webp"):
        with Image.open(picture) as opened:
            assert opened.size == (800, 500)
            # The title stands at the top left, whatever way the picture lay in its file.
            title = opened.convert("L").crop((30, 20, 400, 55))
            foot = opened.convert("L").crop((400, 465, 790, 495))
            assert title.getextrema()[0] < 100 < foot.getextrema()[0]
    letter = folder / "dead-letters"
    assert next(iter(letter.glob("*-malformed.body"))).read_bytes().endswith(b'"sizes": [')
