"""The page docs/how-to/publish-in-a-transaction.md, run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg

from compose.native.postgres import find_binaries
from leveret.outbox.row import OPTIONS
from leveret.wheel import HORIZON
from tests.support.observed import observing_worker
from tests.support.pages import ROOT, blocks
from tests.support.processes import bare_environment
from tests.support.relays import RelayProcess
from tests.support.waiting import wait_until

PAGE = "docs/how-to/publish-in-a-transaction.md"
BLOCKS = blocks(PAGE)


def run(command, folder, url):
    """Run a program to its end, as a service that knows only its database."""
    kept = bare_environment()
    path = [str(Path(sys.executable).parent), str(find_binaries()), kept.get("PATH", "")]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, "PATH": os.pathsep.join(path), "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_jobs_leave_with_the_transactions_that_the_page_shows(
    private_postgres, fresh_vhost, tmp_path
):
    """Its table, roles, programs and SQL, and its way out for a row that does not leave."""
    fresh_vhost.declare({"email.send": "default"})
    server = private_postgres()
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text)
    for _ in range(2):
        run(["sh", "-eu", "table"], tmp_path, server.url())
    with psycopg.connect(server.url()) as owner:
        owner.execute("CREATE TABLE orders (number int PRIMARY KEY)")
        for role in ("shop", "relay"):
            owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        owner.execute("GRANT INSERT ON orders TO shop")
        owner.execute(BLOCKS["roles.sql"])
    shop = server.url(user="shop", password="secret")
    url = server.url(user="relay", password="secret")
    relay = RelayProcess(fresh_vhost, url, folder=tmp_path)
    try:
        with observing_worker(fresh_vhost) as observed:
            assert run([sys.executable, "shop.py"], tmp_path, shop) == "IntegrityError\n"
            run([sys.executable, "shop_async.py"], tmp_path, shop)
            run([sys.executable, "shop_psycopg.py"], tmp_path, shop)
            with psycopg.connect(shop, autocommit=True) as service:
                service.execute(BLOCKS["order.sql"])
            (confirmation,) = observed.runs("From a session", 1)
            assert confirmation["job"].id == "order-4711-confirmation"
            assert (confirmation["to"], confirmation["job"].app_id) == ("ada@example.com", "shop")
            assert len(observed.runs("From asyncio", 10)) == 10
            assert len(observed.runs("From psycopg", 1)) == 1
            assert len(observed.runs("From SQL", 1)) == 1
            (reminder,) = observed.runs("Later, from SQL", 1)
            assert (reminder["job"].id, reminder["job"].queue) == ("order-4713-reminder", "bulk")
            assert (reminder["job"].priority, reminder["job"].correlation_id) == (5, "order-4713")

            with psycopg.connect(shop, autocommit=True) as service:
                service.execute(
                    "INSERT INTO leveret_outbox (actor, queue, body) VALUES (%s, %s, %s)",
                    ("email.send", "blk", b'{"to":"a@b.c","subject":"","text":"Mended"}'),
                )
            wait_until(lambda: relay.events("relay.set_aside") == 1, timeout=30)
            with psycopg.connect(server.url()) as owner:
                owner.execute(BLOCKS["mend.sql"])
            assert observed.runs("Mended", 1)[0]["job"].queue == "bulk"
        with psycopg.connect(server.url()) as owner:
            numbers = owner.execute("SELECT number FROM orders ORDER BY 1").fetchall()
            left = owner.execute("SELECT count(*) FROM leveret_outbox").fetchone()
        assert [number for (number,) in numbers] == [4711, 4712, 4713]
        assert left == (0,)
    finally:
        relay.kill()


def test_the_page_knows_the_options_and_the_horizon():
    """Its list of options holds no ghost, and what it leaves out is in the wire contract."""
    (row,) = re.findall(r"^\| `options` \| (.*) \|$", (ROOT / PAGE).read_text(), re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", row.partition("and the other")[0]))
    assert named <= set(OPTIONS)
    contract = (ROOT / "docs/reference/wire-contract.md").read_text()
    for name in set(OPTIONS) - named:
        assert f"`x-leveret-{name.replace('_', '-')}`" in contract
    assert HORIZON.days == 310
