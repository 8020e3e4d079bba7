"""A database is brought to the schema of the release, also while others work on it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic import command
from sqlalchemy import text

from leveret.errors import ConfigurationError
from leveret.store import engine, migrate, partition
from leveret.store.engine import conninfo
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

LEVERET = Path(sys.executable).with_name("leveret")


@pytest.fixture
def empty(fresh_database: str) -> Iterator[Engine]:
    """Return an engine of a database without tables."""
    made = engine(fresh_database, pool_size=5)
    yield made
    made.dispose()


def _insert(connection: psycopg.Connection, job_id: str, when: datetime) -> None:
    connection.execute(
        "INSERT INTO jobs (id, created_at, actor, queue, state) VALUES (%s, %s, 'a.b', 'bulk',"
        " 'queued')",
        [job_id, when],
    )


def test_the_models_and_the_migrations_describe_the_same_tables(empty: Engine) -> None:
    """`alembic check` finds nothing to do on a migrated database."""
    migrate.upgrade(empty)
    with empty.connect() as connection:
        settings = migrate.config()
        settings.attributes["connection"] = connection
        command.check(settings)


def test_every_revision_follows_the_one_before_with_rows_in_it(empty: Engine) -> None:
    """From the first revision to the head, one at a time, rows stay what they were."""
    revisions = ["0001", "0002", "0003"]
    assert revisions[-1] == migrate.head(), "a new revision needs its rows here"
    now = datetime.now(UTC)
    migrate.upgrade(empty, "0001")
    with empty.begin() as connection:
        for statement in (
            "INSERT INTO jobs (id, created_at, state, actor) VALUES ('j', :now, 'dead', 'a.b')",
            (
                "INSERT INTO attempts (job_id, created_at, run, attempt, started_at, outcome)"
                " VALUES ('j', :now, 0, 1, :now, 'dead')"
            ),
            "INSERT INTO job_ids (id, created_at) VALUES ('j', :now)",
            "INSERT INTO leveret_outbox (actor, body) VALUES ('a.b', '{}')",
            (
                "INSERT INTO dead_letters (key, routing_key, reason, fingerprint, body, properties,"
                " dead_at) VALUES ('k', 'bulk.a.b', 'failed', 'f', '', '', :now)"
            ),
        ):
            connection.execute(text(statement), {"now": now})
    for before, after in itertools.pairwise(revisions):
        assert migrate.upgrade(empty, after) == (before, after)
    with empty.connect() as connection:
        for table in ("jobs", "attempts", "job_ids", "leveret_outbox", "dead_letters"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 1
        for table in ("schedules", "schedule_slots", "leases"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_many_migrate_at_once_and_one_does_it(fresh_database: str) -> None:
    """Of several processes that migrate at once all succeed, and one has done it."""
    environment = {**os.environ, "LEVERET_DATABASE_URL": fresh_database}
    processes = [
        subprocess.Popen(
            [LEVERET, "migrate"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert [status for _, status in said] == [0] * 4, said
    lines = sorted(out for (out, _), _ in said)
    head = migrate.head()
    idle = f"the database is at revision {head}\n"
    assert lines == [*[idle] * 3, f"the database went from revision none to {head}\n"]


def test_a_database_of_a_newer_release_is_left_alone(empty: Engine, fresh_database: str) -> None:
    """The command says what is wrong in one line, and a running process may go on using it."""
    migrate.upgrade(empty)
    with empty.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    migrate.require(empty)
    with pytest.raises(ConfigurationError, match="9999"):
        migrate.upgrade(empty)
    answer = subprocess.run(
        [LEVERET, "migrate"],
        env={**os.environ, "LEVERET_DATABASE_URL": fresh_database},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "a newer release has migrated it" in answer.stderr


def test_a_process_refuses_an_older_database(empty: Engine) -> None:
    """Whoever needs the head says which revision it found, and what to run."""
    with pytest.raises(ConfigurationError, match=r"revision none.*leveret migrate"):
        migrate.require(empty)
    migrate.upgrade(empty, "0001")
    with pytest.raises(ConfigurationError, match=r"revision 0001.*leveret migrate"):
        migrate.require(empty)


def test_a_migration_gives_up_its_place_and_tries_again(
    empty: Engine, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a long transaction it waits briefly, again and again: nobody waits long behind it."""
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.1)
    migrate.upgrade(empty, "0001")
    done: list[object] = []
    with psycopg.connect(conninfo(fresh_database)) as holder:
        holder.execute("LOCK TABLE alembic_version IN SHARE MODE")
        thread = threading.Thread(target=lambda: done.append(migrate.upgrade(empty)))
        thread.start()
        with psycopg.connect(conninfo(fresh_database), autocommit=True) as other:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IS NOT NULL"
            wait_until(lambda: other.execute(waiting).fetchone()[0], timeout=30)
            wait_until(lambda: not other.execute(waiting).fetchone()[0], timeout=30)
            wait_until(lambda: other.execute(waiting).fetchone()[0], timeout=30)
        assert not done
        holder.rollback()
        thread.join(30)
    assert done == [("0001", "0003")]


def test_a_migration_that_never_gets_its_lock_says_so(
    empty: Engine, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its patience it names what is locked, and leaves the database as it was."""
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.05)
    migrate.upgrade(empty, "0001")
    with psycopg.connect(conninfo(fresh_database)) as holder:
        holder.execute("LOCK TABLE alembic_version IN SHARE MODE")
        with pytest.raises(migrate.MigrationError, match="pg_stat_activity"):
            migrate.upgrade(empty, patience_seconds=0.2)
    assert migrate.current(empty) == "0001"
    assert migrate.upgrade(empty) == ("0001", "0003")


def test_partitions_are_made_while_others_read_and_write(
    empty: Engine, fresh_database: str
) -> None:
    """Neither a long reader nor a long writer keeps partitions from being made, or waits for it."""
    migrate.upgrade(empty)
    now = datetime.now(UTC)
    later = now.replace(year=now.year + 1, month=1, day=1)
    with (
        psycopg.connect(conninfo(fresh_database)) as reader,
        psycopg.connect(conninfo(fresh_database)) as writer,
    ):
        reader.execute("SELECT count(*) FROM jobs").fetchall()
        _insert(writer, "early", now)
        with empty.begin() as connection:
            # Whoever would wait for a lock fails, instead.
            connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
            made = partition.ensure(connection, now=later)
            assert later.date() in made
            for other in (reader, writer):
                other.execute("SET LOCAL lock_timeout = '100ms'")
            _insert(writer, "while they are made", now)
            reader.execute("SELECT count(*) FROM jobs").fetchall()
        _insert(writer, "afterwards", later)
        writer.commit()
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM jobs")) == 3
