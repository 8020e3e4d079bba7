"""The page `docs/how-to/move-from-dramatiq.md`, done step by step as it stands there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT, blocks
from tests.support.processes import bare_environment
from tests.support.waiting import wait_until

PAGE = blocks("docs/how-to/move-from-dramatiq.md")


@pytest.fixture
def shop(tmp_path) -> Path:
    """Make the shop's repository from the page."""
    for name, text in PAGE.items():
        if name.endswith(".py"):
            path = tmp_path / "repository" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (tmp_path / "packed").mkdir()
    return tmp_path


def environment(shop: Path, **variables: str) -> dict[str, str]:
    """Return an environment with no variable of Leveret's but these."""
    kept = bare_environment()
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
        "PYTHONPATH": str(shop / "repository"),
        "SHOP_PACKED": str(shop / "packed"),
        **variables,
    }


def run(command: list[str], shop: Path, **variables: str) -> None:
    """Run something in the shop's repository to its end."""
    done = subprocess.run(
        command,
        cwd=shop / "repository",
        env=environment(shop, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"


def test_stock_actors_run_for_both_kinds_of_publishers(shop, fresh_vhost):
    """Jobs now and later, by our broker and in stock Dramatiq's envelope, have their effect."""
    run(["sh", "-ec", PAGE["topology"]], shop, LEVERET_AMQP_URL=fresh_vhost.url("admin"))
    fresh_vhost.granted()
    publisher = {"LEVERET_AMQP_URL": fresh_vhost.url("publisher")}
    run([sys.executable, "publish_with_leveret.py"], shop, **publisher)
    run([sys.executable, "publish_with_dramatiq.py"], shop, **publisher)
    with (shop / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            ["sh", "-ec", PAGE["worker"]],
            cwd=ROOT,
            env=environment(shop, **fresh_vhost.environment("worker")),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    packed = shop / "packed"
    try:
        wait_until(lambda: len(list(packed.iterdir())) == 4, timeout=45, what="four orders packed")
    finally:
        worker.terminate()
        status = worker.wait(60)
        sys.stdout.write((shop / "worker.log").read_text())
    assert status == 0
    assert {path.name: path.read_text() for path in packed.iterdir()} == {
        "1.txt": "normal",
        "2.txt": "urgent",
        "3.txt": "normal",
        "4.txt": "urgent",
    }
