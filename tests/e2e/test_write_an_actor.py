"""The page `docs/how-to/write-an-actor.md`, done step by step as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import bare_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "write-an-actor.md").read_text()
BLOCKS = {
    (language, name): text
    for language, name, text in re.findall(
        r"^```(\w+) (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
}


@pytest.fixture
def package(tmp_path) -> Path:
    """Make the package of the page, file by file."""
    for (language, name), text in BLOCKS.items():
        if language == "python":
            path = tmp_path / "acme-repository" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (tmp_path / "invoices").mkdir()
    return tmp_path / "acme-repository"


def environment(package: Path, **variables: str) -> dict[str, str]:
    """Return an environment without Leveret's variables but those given."""
    kept = bare_environment()
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {
        **kept,
        "PATH": path,
        "PYTHONPATH": str(package),
        "ACME_INVOICES": str(package.parent / "invoices"),
        **variables,
    }


def run(step: str, package: Path, **variables: str) -> str:
    """Run one of the page's shell blocks to its end and return what it prints."""
    done = subprocess.run(
        ["sh", "-ec", BLOCKS["sh", step]],
        cwd=package,
        env=environment(package, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{step}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def worker(package, fresh_vhost) -> Iterator[subprocess.Popen[bytes]]:
    """Apply the topology and run the worker as the page does it."""
    run("topology", package, LEVERET_AMQP_URL=fresh_vhost.url("admin"))
    fresh_vhost.granted()
    log = package.parent / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-ec", BLOCKS["sh", "worker"]],
            cwd=ROOT,
            env=environment(package, **fresh_vhost.environment("worker")),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.terminate()
            status = process.wait(60)
            sys.stdout.write(log.read_text())
    assert status == 0


def test_the_packages_own_tests_pass_without_a_broker(package):
    """The actor's function can be tried alone."""
    assert "2 passed" in run("test", package)


def test_a_published_job_has_its_effect(package, worker, fresh_vhost):
    """The invoice appears as the actor writes it, from JSON values to the text."""
    job_id = run("publish", package, LEVERET_AMQP_URL=fresh_vhost.url("publisher")).strip()
    assert len(job_id) == 36
    invoice = package.parent / "invoices" / "7.txt"
    wait_until(invoice.exists, timeout=30, what=f"invoice of job {job_id}")
    assert invoice.read_text() == "Invoice 7\nAda\n19.90 EUR\ndue 01.05.2026\n"


def test_a_busy_printer_delays_the_invoice_and_does_not_lose_it(package, worker, fresh_vhost):
    """`retry_on` brings the job back after its backoff, and then it has its effect."""
    busy = package.parent / "invoices" / "printer-is-busy"
    busy.touch()
    run("publish", package, LEVERET_AMQP_URL=fresh_vhost.url("publisher"))
    log = package.parent / "worker.log"
    wait_until(lambda: "job.retrying" in log.read_text(), timeout=30, what="the first attempt")
    busy.unlink()
    invoice = package.parent / "invoices" / "7.txt"
    wait_until(invoice.exists, timeout=60, what="the invoice after the retry")
