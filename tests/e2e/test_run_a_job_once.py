"""The page "Run a job once", as it stands there."""

from __future__ import annotations

import subprocess
import sys

import psycopg

from leveret.store import engine
from leveret.store.migrate import upgrade
from tests.e2e.test_how_to_pages import environment, run
from tests.support.pages import ROOT, blocks
from tests.support.waiting import wait_until

PAGE = blocks("docs/how-to/run-a-job-once.md")
ACTORS = {"account.credit": "default", "index.update": "default"}


def test_what_the_page_shows_happens_once(fresh_vhost, fresh_database, tmp_path):
    """One payment of three is credited, and one update of ten is made."""
    fresh_vhost.declare(ACTORS)
    owner = engine(fresh_database, pool_size=1)
    upgrade(owner)
    owner.dispose()
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE account (name text, cents int)")
        connection.execute("INSERT INTO account VALUES ('ann', 0)")
    for name, text in PAGE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    settings = {
        "LEVERET_AMQP_URL": fresh_vhost.url("worker"),
        "LEVERET_DATABASE_URL": fresh_database,
        "LEVERET_ACTORS": "shop.jobs",
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
    }
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "services.worker", "--queues", "default", "--threads", "2"],
            cwd=tmp_path,
            env=environment(**settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        for name in ("publish.py", "unique.py"):
            run([sys.executable, name], tmp_path, LEVERET_AMQP_URL=fresh_vhost.url("publisher"))

        def ended():
            assert worker.poll() is None, log.read_text()
            return sum(map(log.read_text().count, ("job.succeeded", "job.cancelled"))) >= 3 + 10

        wait_until(ended, timeout=60, what="all jobs have ended")
        assert log.read_text().count("job.cancelled") == 9, log.read_text()
    finally:
        worker.terminate()
        try:
            worker.wait(20)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT cents FROM account").fetchone() == (500,)
    assert (tmp_path / "updates").read_text() == "7\n"


def test_the_table_for_a_database_of_the_service_is_printed():
    """As SQL, on standard output."""
    printed = run(["leveret", "claims", "ddl"], ROOT)
    assert "CREATE TABLE IF NOT EXISTS claims (" in printed
