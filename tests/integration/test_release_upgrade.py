"""A release takes over what the one before has left: its tables, its broker, its work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pika
import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory

from leveret import audit
from leveret.errors import TopologyError
from leveret.management import grant
from leveret.names import DEFAULT_QUEUES
from leveret.store import api_keys, engine, migrate
from leveret.topology import apply, build
from tests.releases import corpus, database, frozen
from tests.releases.database import columns, made_by_migrations, restore, rows
from tests.releases.upgrade import dangers, harm, lost, older
from tests.support import recorders
from tests.support.databases import temporary_database
from tests.support.pools import WorkerPool
from tests.support.processes import bare_environment
from tests.support.recorders import Ledger, RecorderProcess
from tests.support.relays import RelayProcess
from tests.support.schedulers import SchedulerProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVERET = Path(sys.executable).with_name("leveret")
RELEASES = [pytest.param(release, id=release.version) for release in frozen.releases()]
#: Everything that stands in a database and is no table.
_OBJECTS = """
    SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename !~ '_p[0-9]{8}$'
    UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        AND conrelid::regclass::text !~ '_p[0-9]{8}$'
    UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT relname || ' ' || coalesce(reloptions::text, '') || relpersistence::text
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        AND relname !~ '_p[0-9]{8}$'"""


def leveret(*words, **environment):
    """Run a command; return what it prints."""
    done = subprocess.run(
        [LEVERET, *words],
        env={**bare_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def objects(url):
    """Return the definitions of indexes, constraints, triggers and functions."""
    with psycopg.connect(url) as connection:
        return sorted(text for (text,) in connection.execute(_OBJECTS))


def assert_like_a_fresh_one(checkout, url):
    """Assert that a database is as the migrations of this tree make an empty one."""
    owner = engine(url, pool_size=1)
    try:
        with owner.connect() as connection:
            settings = migrate.config()
            settings.attributes["connection"] = connection
            command.check(settings)
    finally:
        owner.dispose()
    with temporary_database(checkout, "compare") as fresh:
        recorders.migrated(fresh)
        assert columns(url) == columns(fresh)
        assert objects(url) == objects(fresh)


def migrated(url, text):
    """Restore and migrate a database; return its columns and rows from before."""
    restore(url, text)
    had, before = columns(url), rows(url)
    leveret("migrate", LEVERET_DATABASE_URL=url)
    return had, before


@pytest.mark.parametrize("release", RELEASES)
def test_the_database_of_a_release_is_brought_to_this_one(release, fresh_database, checkout):
    """Its rows stay, the tables are those of a new database, and its processes may go on."""
    had, before = migrated(fresh_database, release.database)
    assert {table for table, found in before.items() if not found} == set()
    assert lost(before, rows(fresh_database)) == set()
    assert harm(had, columns(fresh_database)) == set()
    assert_like_a_fresh_one(checkout, fresh_database)
    owner = engine(fresh_database, pool_size=1)
    try:
        with owner.begin() as connection:
            key = api_keys.verify(connection, database.API_KEY)
        assert key is not None
        assert key.name == "frozen"
    finally:
        owner.dispose()


def test_a_release_that_never_was_is_brought_to_this_one(fresh_database, checkout):
    """From the very first revision, with rows, through every migration: the way can be gone."""
    newest = frozen.releases()[-1]
    with temporary_database(checkout, "first") as url:
        owner = engine(url, pool_size=1)
        try:
            with corpus.stopped_clock():
                schema = made_by_migrations(owner, "0001")
        finally:
            owner.dispose()
        text = older(newest.database, schema, columns(url))
    had, before = migrated(fresh_database, text)
    assert before["alembic_version"] == [{"version_num": "0001"}]
    assert before["jobs"]
    assert before["dead_letters"]
    assert "schedules" not in before
    assert lost(before, rows(fresh_database)) == set()
    assert harm(had, columns(fresh_database)) == set()
    assert_like_a_fresh_one(checkout, fresh_database)


def test_a_migration_that_takes_something_away_is_noticed(fresh_database):
    """The gate can fail: on a row, a value, a column, a type, and a column that must be given."""
    restore(fresh_database, frozen.releases()[-1].database)
    had, before = columns(fresh_database), rows(fresh_database)
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        for statement in (
            "DELETE FROM leases",
            "UPDATE jobs SET priority = 9 WHERE state = 'succeeded'",
            "ALTER TABLE claims DROP COLUMN worker",
            "ALTER TABLE checkpoints ALTER COLUMN job_id TYPE varchar",
            "ALTER TABLE leveret_outbox ALTER COLUMN created_at DROP DEFAULT",
            "ALTER TABLE unique_jobs ADD COLUMN fresh text NOT NULL DEFAULT 'x'",
            "ALTER TABLE unique_jobs ALTER COLUMN fresh DROP DEFAULT",
            "ALTER TABLE workers ALTER COLUMN gone_at SET DEFAULT now()",
            "DROP TABLE watches",
        ):
            connection.execute(statement.encode())
    assert lost(before, rows(fresh_database)) == {"leases", "jobs", "claims", "watches"}
    assert harm(had, columns(fresh_database)) == {
        "claims.worker is gone",
        "checkpoints.job_id was text, and is character varying",
        "leveret_outbox.created_at must be given now",
        "unique_jobs.fresh is new, and must be given",
        "watches is gone",
    }


def test_migrations_do_not_disturb_who_runs_meanwhile(fresh_database):
    """Each since the last release only adds, or says which release has stopped to use what goes."""
    (first, *_) = frozen.releases()
    scripts = ScriptDirectory.from_config(migrate.config())
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    owner = engine(fresh_database, pool_size=1)
    found = {}
    try:
        for revision in revisions:
            found[revision] = dangers(made_by_migrations(owner, revision, partitions=False))
    finally:
        owner.dispose()
    # Nobody ran anything while the tables of the first release were made.
    (early,) = found.pop("0002")
    assert early.startswith("CREATE INDEX jobs_finished_idx ON jobs")
    for revision in revisions[: revisions.index(first.revision) + 1]:
        found.pop(revision, None)
    for revision, said in found.items():
        unused_since = getattr(scripts.get_revision(revision).module, "unused_since", None)
        if unused_since is None:
            assert not said, f"{revision}: {said}"
        else:
            assert frozen.Release(unused_since) in frozen.releases(), revision
            assert frozen.is_out(unused_since), f"{revision}: {unused_since} is not out yet"


def test_this_version_has_the_database_that_is_frozen():
    """Until it is out, the frozen tables and rows follow the tree: `make freeze`."""
    release = frozen.Release(frozen.this_version())
    if not release.is_out:
        assert database.make() == release.database, "run `make freeze`, and look at what changes"


# -------------------------------------------------------------------------------------- the broker


def declare(url, topology):
    """Declare what stood in the broker of a release."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        for exchange in topology["exchanges"]:
            channel.exchange_declare(
                exchange["name"], exchange["type"], durable=True, arguments=exchange["arguments"]
            )
        for queue in topology["queues"]:
            channel.queue_declare(queue["name"], durable=True, arguments=queue["arguments"])
        for binding in topology["bindings"]:
            bind = channel.exchange_bind if binding["to_exchange"] else channel.queue_bind
            bind(binding["to"], binding["source"], binding["key"])
    finally:
        connection.close()


def with_the_actors_of_the_scene(topology):
    """Add the routing of `tests.releases.actors` to that of the actors in the box."""
    more = [
        {
            "source": source,
            "key": f"{prefix}any.{actor}",
            "to": "leveret.default",
            "to_exchange": False,
        }
        for source, prefix in (("leveret.route", ""), ("leveret.due", "*.*.*.*.*.*.*."))
        for actor in ("note.keep", "note.fail")
    ]
    return {**topology, "bindings": [*topology["bindings"], *more]}


def test_changed_arguments_are_noticed(fresh_vhost):
    """The gate can fail: what stands there with other arguments refuses the new ones."""
    topology = {
        "exchanges": [],
        "queues": [{"name": "leveret.default", "arguments": {"x-queue-type": "quorum"}}],
        "bindings": [],
    }
    declare(fresh_vhost.amqp_url, topology)
    with pytest.raises(TopologyError, match="inequivalent arg"):
        apply(fresh_vhost.amqp_url, build(DEFAULT_QUEUES, {}))


# ---------------------------------------------------------------------------------------- the work

#: What a release leaves in the broker that was stopped, beside the jobs in its outbox.
NOT_WAITING = (
    "replayed",  # in the outbox
    "expiring",  # died, and its letter waits
    "copy: dead",  # stored, and to be replayed
    "records: succeeded", "records: dead", "records: started", "records: progress",
    "records: heartbeat", "records: cancelled", "records: a replay",
    "letter: given up by the broker", "letter: unroutable", "control: cancel",
)  # fmt: skip

#: What becomes of the jobs; all others succeed.
ENDS = {
    "expiring": ("expired", "expired"),
    "cancelled": ("cancelled", None),
    "failing": ("dead", "exhausted"),
    "unwanted": ("dead", "unroutable"),
    "strange": ("dead", "unknown-actor"),
    "bad-1": ("dead", "not-json"),
    "bad-2": ("dead", "bad-arguments"),
    "bad-3": ("dead", "bad-header"),
}
FOREIGN = (
    "order-4711",
    "3b4f0d2e-0000-4000-8000-000000000001",
    "stamp-1",
    "bad-1",
    "bad-2",
    "bad-3",
)


def publish(url, messages):
    """Put messages where they were when their release was stopped."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        for posted in messages:
            channel.basic_publish(
                posted.exchange, posted.routing_key, posted.body, posted.properties
            )
    finally:
        connection.close()


@pytest.fixture(params=RELEASES)
def scene(request, fresh_vhost, fresh_database) -> Iterator[tuple[frozen.Release, str]]:
    """Return a release that was stopped in the middle of its work, and then upgraded."""
    release = request.param
    declare(fresh_vhost.amqp_url, with_the_actors_of_the_scene(release.topology))
    restore(fresh_database, release.database)
    grant(fresh_vhost.management, fresh_vhost.name)
    publish(
        fresh_vhost.amqp_url,
        [posted for posted, _ in release.messages if posted.name not in NOT_WAITING],
    )
    leveret("migrate", LEVERET_DATABASE_URL=fresh_database)
    said = leveret(
        "topology",
        "apply",
        LEVERET_AMQP_URL=fresh_vhost.url("admin"),
        LEVERET_ACTORS="tests.releases.actors",
        PYTHONPATH=os.fspath(frozen.ROOT),
    )
    assert said.rstrip().endswith("bindings stand")
    grant(fresh_vhost.management, fresh_vhost.name)
    return release


def test_this_release_finishes_what_another_began(scene, fresh_vhost, fresh_database, tmp_path):
    """What waited ends as it would have, an old schedule fires, an old letter is replayed."""
    url, ids = fresh_database, {name: job.id for name, job in corpus.jobs().items()}
    wanted = {
        **{job_id: ENDS.get(name, ("succeeded", None)) for name, job_id in ids.items()},
        **{name: ENDS.get(name, ("succeeded", None)) for name in FOREIGN},
    }
    actors = {"LEVERET_ACTORS": "tests.releases.actors"}
    worker = fresh_vhost.environment("worker") | {"LEVERET_DATABASE_URL": url}
    ledger = Ledger(url)
    try:
        with (
            RecorderProcess(fresh_vhost.environment("recorder"), url, tmp_path),
            RelayProcess(fresh_vhost, url, folder=tmp_path, LEVERET_DATABASE_URL=url),
            SchedulerProcess(url, folder=tmp_path, **actors),
            WorkerPool(worker, tmp_path, actors=("tests.releases.actors",)) as pool,
        ):
            try:
                (letter,) = (
                    found["id"]
                    for found in json.loads(
                        leveret("dead", "list", "--json", LEVERET_DATABASE_URL=url)
                    )["items"]
                    if found["job_id"] == ids["dead"]
                )
                leveret("dead", "replay", str(letter), "--yes", LEVERET_DATABASE_URL=url)
                _wait_for_ends(ledger, wanted)
                slot = (
                    "SELECT job_id FROM schedule_slots WHERE slot > '2026-02-01' AND job_id <> ''"
                )
                wait_until(lambda: ledger.rows(slot), timeout=60, what="the old schedule fires")
                for row in ledger.rows(slot):
                    ledger.wait(row["job_id"], "succeeded")
                _look_at(ledger, ids)
                wait_until(
                    lambda: _adds_up(fresh_vhost, url), timeout=60, every=0.5, what="it adds up"
                )
            finally:
                pool.kill_everything()
    finally:
        ledger.close()


def _wait_for_ends(ledger, wanted):
    """Return when every job has ended as it should."""

    def others():
        found = {
            row["id"]: (row["state"], row["reason"])
            for row in ledger.rows("SELECT id, state, reason FROM jobs")
        }
        return {
            job_id: (end, found.get(job_id))
            for job_id, end in wanted.items()
            if found.get(job_id) != end
        }

    with suppress(TimeoutError):
        wait_until(lambda: not others(), timeout=60, every=0.2)
    assert others() == {}


def _look_at(ledger, ids):
    """Look at what is told of some jobs."""
    done = ledger.job(ids["done"])
    assert json.loads(bytes(done["result"])) == {"kept": "ünï©ode ✓"}
    replayed = ledger.job(ids["dead"])
    assert (replayed["run"], json.loads(bytes(replayed["result"]))) == (1, "at last")
    assert [row["outcome"] for row in ledger.attempts(ids["retrying"])] == ["retrying", "succeeded"]
    claim = ledger.rows("SELECT state, epoch FROM claims WHERE key = 'payment-1'")
    assert claim == [{"state": "done", "epoch": 2}]
    assert ledger.value("SELECT count(*) FROM leveret_outbox") == 0


def _adds_up(vhost, url):
    """Tell whether an audit finds every job."""
    owner = engine(url, pool_size=1)
    try:
        with owner.connect() as connection:
            report = audit.judge(
                audit.look(
                    connection,
                    vhost.management,
                    vhost.name,
                    queues=DEFAULT_QUEUES,
                    actors={"note.keep": "default", "note.fail": "default"},
                )
            )
    finally:
        owner.dispose()
    if not report.holds:
        print(report.findings)
    return report.holds
