"""What the page about production says of backups: yesterday's database beside today's broker."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack

import psycopg
import pytest

from compose.native.postgres import find_binaries
from leveret import Publisher, outbox
from tests.e2e.test_how_to_pages import environment, run
from tests.support.databases import temporary_database
from tests.support.pages import ROOT, blocks
from tests.support.pools import WorkerPool
from tests.support.recorders import RecorderProcess, migrated
from tests.support.relays import RelayProcess
from tests.support.waiting import wait_until

PAGE = blocks("docs/how-to/go-into-production.md")


class Site:
    """A broker, and a database that is exchanged for an older one."""

    def __init__(self, vhost, folder):
        self.vhost, self.folder, self.url = vhost, folder, ""

    def settings(self, role):
        """Return the settings of a process."""
        return {
            **self.vhost.environment(role),
            "LEVERET_DATABASE_URL": self.url,
            "LEVERET_ACTORS": "tests.support.echojobs",
            "PYTHONPATH": str(ROOT),
        }

    def shell(self, script):
        """Run commands as the administrator."""
        path = f"{find_binaries()}{os.pathsep}{environment()['PATH']}"
        return run(
            ["sh", "-euc", script],
            self.folder,
            **{**self.settings("admin"), "DATABASE_URL": self.url, "PATH": path},
        )

    def audit(self, *options):
        """Return what the audit finds, as (kind, job)."""
        done = subprocess.run(
            ["leveret", "audit", "--json", *options],
            env=environment(**self.settings("admin")),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        report = json.loads(done.stdout)
        assert done.returncode == (1 if report["findings"] and not options else 0), done.stderr
        return {(found["kind"], found["job_id"]) for found in report["findings"]}

    def states(self):
        """Return the jobs by their state."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT state, array_agg(id) FROM jobs GROUP BY 1")
            return {state: set(ids) for state, ids in found}

    def counted(self):
        """Return how many messages wait, by the broker's counts, which lag some seconds."""
        queues = self.vhost.management.queues(self.vhost.name)
        return sum(queue.get("messages", 0) for queue in queues)

    def recorder(self):
        """Start a recorder."""
        return RecorderProcess(self.settings("recorder"), self.url, self.folder)

    def relay(self):
        """Start a relay."""
        return RelayProcess(self.vhost, self.url, folder=self.folder, LEVERET_DATABASE_URL=self.url)


@pytest.fixture
def site(fresh_vhost, tmp_path):
    """Return a site with the topology."""
    fresh_vhost.declare({"echo.say": "default"})
    return Site(fresh_vhost, tmp_path)


@pytest.mark.timeout(300)
def test_what_is_true_after_a_restore(site, checkout, fresh_database):
    """Nothing that the broker has is lost, and what would run again is named before it does."""
    site.url = migrated(fresh_database)
    with ExitStack() as stack, temporary_database(checkout, "restored") as empty:
        recorder = stack.enter_context(site.recorder()).wait_ready()
        with Publisher(site.vhost.url("publisher")) as publisher:
            waiting = set(publisher.publish_many([("echo.say", {"n": n}) for n in range(3)]))
            with psycopg.connect(site.url) as connection:
                row = outbox.enqueue(connection, "echo.say", {"n": 3})
            wait_until(lambda: site.states().get("queued") == waiting, timeout=30)
            site.shell(PAGE["backup"])

            stack.enter_context(site.relay())
            pool = WorkerPool(
                site.settings("worker"), site.folder, actors=["tests.support.echojobs"]
            )
            stack.enter_context(pool)
            wait_until(lambda: site.states().get("succeeded") == {*waiting, row}, timeout=60)
            for process in (pool, recorder):  # in order, so that the broker knows what is done
                assert process.terminate() == 0
            stack.pop_all().close()

            # The broker's today, the database's yesterday.
            site.url = empty
            site.shell(PAGE["restore"])
            stack.enter_context(site.recorder()).wait_ready()
            wait_until(lambda: site.counted() == 0, timeout=30, what="the broker has counted")
            assert site.audit() == {("lost", job) for job in waiting}
            assert site.states() == {"queued": waiting}
            today = publisher.send("echo.say", {"n": 5})
            pool = WorkerPool(
                site.settings("worker"), site.folder, actors=["tests.support.echojobs"]
            )
            stack.enter_context(pool)
            wait_until(lambda: site.states().get("succeeded") == {today}, timeout=60)

            # A relay publishes once more what it had published; a repair runs what had run.
            stack.enter_context(site.relay())
            wait_until(lambda: site.states().get("succeeded") == {today, row}, timeout=60)
            assert site.audit("--repair") == {("lost", job) for job in waiting}
            wait_until(lambda: site.states().get("succeeded") == {today, row, *waiting}, timeout=60)
            assert site.audit() == set()
