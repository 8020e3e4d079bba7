"""Old days are dropped without being in anybody's way, and no job that lives is lost from sight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text

from leveret.ledger import State, query
from leveret.ledger.batch import Batch
from leveret.ledger.event import JobEvent, Kind, Standing
from leveret.ledger.fold import fold
from leveret.ledger.writer import Writer
from leveret.message import new_id
from leveret.store import engine, migrate, partition, retention
from leveret.store.engine import conninfo
from leveret.store.identity import own_time
from tests.support.histories import fill
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine import Connection

LEVERET = Path(sys.executable).with_name("leveret")
NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=40)
ROUND = {"keep": timedelta(days=30)}


@pytest.fixture
def ledger(fresh_database: str) -> Iterator[Engine]:
    """Return an engine of a ledger with partitions around 40 days ago, and around today."""
    made = engine(fresh_database, pool_size=5)
    migrate.upgrade(made)
    with made.begin() as connection:
        partition.ensure(connection, now=OLD)
    yield made
    made.dispose()


@contextmanager
def _cursor(engine: Engine) -> Iterator[psycopg.Connection]:
    """Return a connection of its own, of which a test decides when it commits."""
    url = engine.url.render_as_string(hide_password=False)
    with psycopg.connect(conninfo(url)) as connection:
        yield connection


def _id_at(moment: datetime) -> str:
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}{new_id()[13:]}"


def _job(connection: Connection, job_id: str, state: str, moment: datetime = OLD) -> str:
    connection.execute(
        text(
            "INSERT INTO jobs (id, created_at, actor, queue, body, state, due_at) VALUES"
            " (:id, :at, 'report.send', 'bulk', '{\"a\": 1}', :state, :due)"
        ),
        {
            "id": job_id,
            "at": own_time(job_id) or moment,
            "state": state,
            "due": NOW + timedelta(days=200) if state == "scheduled" else None,
        },
    )
    return job_id


def _write(engine: Engine, job_id: str, state: State, kind: Kind, **standing: object) -> None:
    """Write an event as the recorder does."""
    settled = {State.SUCCEEDED: 2, State.RUNNING: 0}[state]
    at = NOW.timestamp()
    event = JobEvent(job_id, kind.name, Standing(0, settled, 1, at, kind, state, **standing))
    batch = Batch()
    fold(batch.jobs, event)
    Writer(engine).write(batch)


def _get(engine: Engine, job_id: str) -> query.JobDetail | None:
    with engine.connect() as connection:
        return query.job(connection, job_id)


def _count(engine: Engine, table: str, where: str = "true") -> int:
    with engine.connect() as connection:
        return connection.scalar(text(f"SELECT count(*) FROM {table} WHERE {where}"))


def _days(engine: Engine) -> set:
    with engine.connect() as connection:
        return partition.days(connection)


def test_days_that_are_over_are_dropped_and_others_stay(ledger: Engine) -> None:
    """Jobs and attempts older than what is kept are gone, the others are all there."""
    fill(ledger, 1000, start=OLD, span=timedelta(hours=1))
    fill(ledger, 500, start=NOW - timedelta(minutes=5), span=timedelta(minutes=1))
    with ledger.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'succeeded'"))
        connection.execute(
            text(
                "INSERT INTO attempts (job_id, created_at, run, attempt, started_at, outcome)"
                " SELECT id, created_at, 0, 1, created_at, 'succeeded' FROM jobs"
            )
        )
    before = _days(ledger)
    report = retention.run(ledger, **ROUND)
    assert OLD.date() in report.days
    assert report.refiled == 0
    assert not report.postponed
    assert _days(ledger) == before - set(report.days)
    assert all(day >= (NOW - timedelta(days=31)).date() for day in _days(ledger))
    assert _count(ledger, "jobs") == _count(ledger, "attempts") == 500
    assert retention.run(ledger, **ROUND).days == ()


def test_a_job_that_lives_is_filed_anew_and_later_events_find_it(ledger: Engine) -> None:
    """Scheduled for in 200 days, with an id of ours or of others: it stays, and runs, once."""
    ours, theirs = _id_at(OLD), "order-4711"
    with ledger.begin() as connection:
        for job_id in (ours, theirs):
            _job(connection, job_id, "scheduled")
        connection.execute(
            text("INSERT INTO job_ids (id, created_at) VALUES (:id, :at)"),
            {"id": theirs, "at": OLD},
        )
        ended = _job(connection, _id_at(OLD), "succeeded")
        connection.execute(
            text(
                "INSERT INTO attempts (job_id, created_at, run, attempt, started_at, outcome)"
                " SELECT id, created_at, 0, 1, created_at, 'snoozed' FROM jobs"
            )
        )
    report = retention.run(ledger, **ROUND)
    assert report.refiled == 2
    assert _get(ledger, ended) is None
    for job_id in (ours, theirs):
        found = _get(ledger, job_id)
        assert found is not None
        assert (found.state, found.actor, found.body) == (
            State.SCHEDULED,
            "report.send",
            b'{"a": 1}',
        )
        assert found.due_at == NOW + timedelta(days=200)
        _write(ledger, job_id, State.SUCCEEDED, Kind.SUCCEEDED, finished_at=NOW.timestamp())
        found = _get(ledger, job_id)
        assert found is not None
        assert (found.state, found.actor) == (State.SUCCEEDED, "report.send")
        with ledger.connect() as connection:
            assert [a.outcome for a in query.attempts(connection, found)] == ["snoozed"]
            listed = query.jobs(connection, query.JobFilter(q=job_id)).items
        assert [job.id for job in listed] == [job_id]
    assert _count(ledger, "jobs") == 2


def test_an_event_that_comes_while_its_job_is_moved_is_not_lost(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorder had looked the job up before it was filed anew, and writes to the old place."""
    with ledger.begin() as connection:
        job_id = _job(connection, _id_at(OLD), "scheduled")
    detach = retention._detach

    def late(engine: Engine, parent: str, name: str, *, pending: bool) -> bool:
        if parent == "jobs":
            with engine.begin() as connection:
                connection.execute(
                    text(
                        "INSERT INTO jobs (id, created_at, state, settled, event_at, finished_at)"
                        " VALUES (:id, :at, 'succeeded', 2, now(), now())"
                    ),
                    {"id": job_id, "at": own_time(job_id)},
                )
        return detach(engine, parent, name, pending=pending)

    monkeypatch.setattr(retention, "_detach", late)
    monkeypatch.setattr(retention, "_expired", lambda *_: [OLD.date()])
    assert retention.run(ledger, **ROUND).days == (OLD.date(),)
    found = _get(ledger, job_id)
    assert found is not None
    assert (found.state, found.actor) == (State.SUCCEEDED, "report.send")
    assert _count(ledger, "jobs") == 1


@pytest.mark.parametrize("step", ["attempts detached", "both detached", "half detached"])
def test_a_round_that_was_killed_is_finished_by_the_next(
    ledger: Engine, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was, nothing that lives is lost, and the day is gone in the end."""
    monkeypatch.setattr(retention, "_DETACH_SECONDS", 0.3)
    with ledger.begin() as connection:
        job_id = _job(connection, _id_at(OLD), "retrying")
        _job(connection, _id_at(OLD), "dead")
    day = OLD.date()
    if step == "half detached":
        with _cursor(ledger) as reader:
            reader.execute("SELECT count(*) FROM jobs").fetchall()
            assert not retention._detach(
                ledger, "jobs", partition.name_of("jobs", day), pending=False
            )
    else:
        for table in ("attempts",) if step == "attempts detached" else ("attempts", "jobs"):
            assert retention._detach(ledger, table, partition.name_of(table, day), pending=False)
    report = retention.run(ledger, **ROUND)
    assert day in report.days
    assert report.refiled == 1
    found = _get(ledger, job_id)
    assert found is not None
    assert found.state == State.RETRYING
    assert _count(ledger, "jobs") == 1
    assert not _count(ledger, "pg_class", f"relname LIKE '%_p{day:%Y%m%d}%'")


def test_nobody_waits_for_a_day_to_be_dropped(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While retention waits for a long reader, others read, write and make partitions."""
    fill(ledger, 1000, start=OLD, span=timedelta(minutes=1))
    done: list[retention.Report] = []
    thread = threading.Thread(target=lambda: done.append(retention.run(ledger, **ROUND)))
    with _cursor(ledger) as reader, _cursor(ledger) as other:
        reader.execute("SELECT count(*) FROM jobs").fetchall()
        thread.start()
        other.autocommit = True
        # Whoever would wait for retention fails, instead.
        other.execute("SET lock_timeout = '100ms'")
        waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND wait_event_type = %s"
        wait_until(
            lambda: other.execute(waits, ["ALTER TABLE%DETACH%", "Lock"]).fetchone()[0], timeout=30
        )
        other.execute("SELECT count(*) FROM jobs").fetchall()
        other.execute("SELECT count(*) FROM attempts").fetchall()
        other.execute(
            "INSERT INTO jobs (id, created_at, state) VALUES ('meanwhile', now(), 'queued')"
        )
        with ledger.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
            partition.ensure(connection, now=NOW + timedelta(days=100))
        assert not done
        reader.rollback()
        thread.join(60)
    assert OLD.date() in done[0].days
    assert _get(ledger, "meanwhile") is None  # it has an id of others, unknown to job_ids
    assert _count(ledger, "jobs", "id = 'meanwhile'") == 1


def test_a_reader_that_does_not_end_puts_a_day_off(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round goes on with the rest, and the next one finishes the day."""
    monkeypatch.setattr(retention, "_DETACH_SECONDS", 0.2)
    monkeypatch.setattr(retention, "_FINALIZE_SECONDS", 0.2)
    with ledger.begin() as connection:
        job_id = _job(connection, _id_at(OLD), "scheduled")
        connection.execute(text("INSERT INTO watches VALUES ('j', 'w', now() - interval '1 h')"))
    with _cursor(ledger) as reader:
        reader.execute("SELECT count(*) FROM attempts").fetchall()
        for _ in range(2):
            report = retention.run(ledger, **ROUND)
            assert OLD.date() in report.postponed
            assert not report.days
        assert _count(ledger, "watches") == 0
        assert _get(ledger, job_id) is not None
    assert OLD.date() in retention.run(ledger, **ROUND).days
    assert _get(ledger, job_id) is not None


def test_small_things_go_when_they_have_had_their_time(ledger: Engine) -> None:
    """Each table loses its old rows and keeps those that somebody may still need."""
    old, new = "now() - interval '40 days'", "now()"
    with ledger.begin() as connection:
        run = lambda statement: connection.execute(text(statement))  # noqa: E731
        live = _job(connection, "live", "running", NOW)
        run(f"INSERT INTO job_ids VALUES ('old', {old}), ('live', '{NOW.isoformat()}')")
        for name, at in (("old", old), ("new", new), (live, old)):
            run(f"INSERT INTO checkpoints VALUES ('{name}', '', {at})")
            run(
                "INSERT INTO cancellations (job_id, requested_at, requested_by)"
                f" VALUES ('{name}', {at}, 'me')"
            )
        for name, at in (("old", old), ("new", new)):
            run(
                "INSERT INTO idempotent_requests (api_key, key, digest, status, answer,"
                f" created_at) VALUES ('k', '{name}', '', 202, '', {at})"
            )
            run(
                "INSERT INTO claims (actor, key, job_id, state, epoch, expires_at)"
                f" VALUES ('a', '{name}', 'j', 'done', 1, {at} + interval '1 day')"
            )
            run(
                "INSERT INTO workers (id, queues, threads, running, first_seen_at, seen_at)"
                f" VALUES ('{name}', '{{}}', 1, '{{}}', {at}, {at})"
            )
            run(
                "INSERT INTO ledger_rejects (received_at, queue, error, body)"
                f" VALUES ({at}, 'q', 'e', '')"
            )
            run(
                "INSERT INTO schedule_slots (schedule, slot, epoch, due_at, fired_at)"
                f" VALUES ('{name}', {at}, 1, {at}, {at})"
            )
            run(
                "INSERT INTO job_rollups VALUES"
                f" ({at}, '{name}', 'q', 'dead', 1, 0, 0, 0, '{{}}', '{{}}')"
            )
        for key, state, at, runs in (
            ("a", "open", "NULL", 0),
            ("b", "replayed", old, 0),
            ("c", "discarded", old, 1),
            ("d", "discarded", new, 0),
        ):
            run(
                "INSERT INTO dead_letters (key, routing_key, reason, fingerprint, body, properties,"
                f" dead_at, state, resolved_at, run) VALUES ('{key}', 'r', 'x', 'f', '', '',"
                f" {old}, '{state}', {at}, {runs})"
            )
        run(
            "INSERT INTO dead_letter_groups (fingerprint, reason, first_at, last_at, total, open,"
            f" replayed, discarded, died_again) VALUES ('f', 'x', {old}, {old}, 4, 1, 1, 2, 1)"
        )
    looked = retention.run(ledger, **ROUND, dry_run=True)
    report = retention.run(ledger, **ROUND)
    assert looked.deleted == report.deleted
    assert looked.days == report.days
    assert {table: count for table, count in report.deleted.items() if count} == {
        "dead_letters": 2,
        "job_ids": 1,
        "idempotent_requests": 1,
        "checkpoints": 1,
        "cancellations": 1,
        "claims": 1,
        "workers": 1,
        "ledger_rejects": 1,
        "schedule_slots": 1,
        "job_rollups": 1,
    }
    with ledger.connect() as connection:
        group = connection.execute(
            text("SELECT total, open, replayed, discarded, died_again FROM dead_letter_groups")
        ).one()
    assert tuple(group) == (2, 1, 0, 1, 0)


def test_the_audit_log_is_kept_for_a_year_or_for_as_long_as_jobs(ledger: Engine) -> None:
    """Whichever is longer: who did what is asked later than how a job went."""
    with ledger.begin() as connection:
        for days in (40, 360, 370, 420):
            connection.execute(
                text(
                    "INSERT INTO audit_log (at, who, action, outcome)"
                    " VALUES (:at, :who, 'job.cancel', 'done')"
                ),
                {"at": NOW - timedelta(days=days), "who": f"{days} days ago"},
            )

    def left() -> list[str]:
        with ledger.connect() as connection:
            return list(connection.scalars(text("SELECT who FROM audit_log ORDER BY at DESC")))

    assert retention.run(ledger, keep=timedelta(days=400), now=NOW).deleted["audit_log"] == 1
    assert left() == ["40 days ago", "360 days ago", "370 days ago"]
    assert retention.run(ledger, **ROUND).deleted["audit_log"] == 1
    assert left() == ["40 days ago", "360 days ago"]


def _done_ago(engine: Engine, hours: float) -> None:
    """Do as if the last round had been so long ago."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE leases SET acquired_at = acquired_at - :ago, expires_at = expires_at - :ago"
                " WHERE name = 'retention'"
            ),
            {"ago": timedelta(hours=hours)},
        )


def test_others_leave_it_to_the_schedule(ledger: Engine) -> None:
    """Who asks does nothing while a round was begun within thirty hours; then one of them does."""
    assert not retention.run_daily(ledger).busy
    assert retention.run_if_overdue(ledger) is None
    _done_ago(ledger, 29)
    assert retention.run_if_overdue(ledger) is None
    _done_ago(ledger, 2)
    reports = [retention.run_if_overdue(ledger) for _ in range(3)]
    assert reports[0] is not None
    assert reports[1:] == [None, None]


def test_a_new_ledger_waits_for_its_schedule(ledger: Engine) -> None:
    """Where there was no round yet, the time counts from when it was first asked."""
    assert retention.run_if_overdue(ledger) is None
    _done_ago(ledger, 29)
    assert retention.run_if_overdue(ledger) is None
    _done_ago(ledger, 2)
    assert retention.run_if_overdue(ledger) is not None


def test_the_schedule_does_its_round_whoever_did_one(ledger: Engine) -> None:
    """A relay that stood in yesterday does not keep it from the round of today."""
    _done_ago(ledger, 0)
    assert [retention.run_daily(ledger).busy for _ in range(2)] == [False, False]


def test_a_round_that_fails_is_somebody_elses_in_time(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not count as done: the patience is still that of the last good one."""
    retention.run_daily(ledger)
    _done_ago(ledger, 29.5)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(retention, "run", fail)
        with pytest.raises(RuntimeError):
            retention.run_daily(ledger)
    assert retention.run_if_overdue(ledger) is None
    _done_ago(ledger, 1.1)
    assert retention.run_if_overdue(ledger) is not None


def test_sweeping_deletes_what_says_when_it_may_go(ledger: Engine) -> None:
    """Claims, unique keys, answers and watches go when their time is over, and not before."""
    with ledger.begin() as connection:
        for name, until in (("old", "- interval '3 days'"), ("new", "+ interval '1 day'")):
            for statement in (
                (
                    "INSERT INTO claims (actor, key, job_id, state, epoch, expires_at)"
                    f" VALUES ('a', '{name}', 'j', 'done', 1, now() {until})"
                ),
                (
                    "INSERT INTO unique_jobs (actor, key, version, until)"
                    f" VALUES ('a', '{name}', 1, now() {until})"
                ),
                (
                    "INSERT INTO idempotent_requests"
                    " (api_key, key, digest, status, answer, created_at)"
                    f" VALUES ('k', '{name}', '', 202, '', now() {until})"
                ),
                (
                    "INSERT INTO watches (job_id, watcher, until)"
                    f" VALUES ('j', '{name}', now() {until})"
                ),
            ):
                connection.execute(text(statement))
    swept = retention.sweep(ledger)
    assert swept == dict.fromkeys(retention.SWEPT, 1)
    assert retention.sweep(ledger) == dict.fromkeys(retention.SWEPT, 0)
    assert [_count(ledger, table) for table in retention.SWEPT] == [1, 1, 1, 1]


def test_two_rounds_at_once_are_one(ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second does nothing, and says so."""
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> list:
        inside.set()
        assert go_on.wait(60)
        return []

    monkeypatch.setattr(retention, "_expired", wait)
    done: list[retention.Report] = []
    thread = threading.Thread(target=lambda: done.append(retention.run(ledger, **ROUND)))
    thread.start()
    assert inside.wait(60)
    assert retention.run(ledger, **ROUND).busy
    go_on.set()
    thread.join(60)
    assert not done[0].busy


def test_the_command_shows_what_it_would_do_and_does_it(
    ledger: Engine, fresh_database: str
) -> None:
    """`leveret retention --dry-run` changes nothing; without it the day is gone."""
    with ledger.begin() as connection:
        _job(connection, _id_at(OLD), "succeeded")
    environment = {
        **os.environ,
        "LEVERET_DATABASE_URL": fresh_database,
        "LEVERET_RETENTION_DAYS": "35",
        "LEVERET_LOG_LEVEL": "error",
    }

    def call(*options: str) -> str:
        answer = subprocess.run(
            [LEVERET, "retention", *options],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    assert OLD.date().isoformat() in call("--dry-run")
    assert _count(ledger, "jobs") == 1
    assert OLD.date().isoformat() in json.loads(call("--json"))["days"]
    assert _count(ledger, "jobs") == 0
    assert "nothing" in call()
