"""The audit of a ledger in which each thing that can be wrong is wrong once, and its repair."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from leveret import audit
from leveret.audit import Kind
from leveret.message import new_id
from leveret.names import DEFAULT_QUEUES
from leveret.schedules import store
from leveret.schedules.definition import Definition, job_id
from leveret.schedules.trigger import Every
from leveret.store import engine
from leveret.store.identity import own_time
from leveret.store.migrate import upgrade

JOB = (
    "INSERT INTO jobs (id, created_at, state, actor, queue, settled, reason, finished_at, worker)"
    " VALUES (%s, %s, %s, 'a.b', 'default', %s, %s, now(), %s)"
)
LETTER = (
    "INSERT INTO dead_letters (key, job_id, actor, queue, routing_key, reason, fingerprint, body,"
    " properties, dead_at) VALUES (%s, %s, 'a.b', 'default', 'default.a.b', 'exhausted', 'f1',"
    " '{}', '', now())"
)
GROUP = (
    "INSERT INTO dead_letter_groups (fingerprint, actor, reason, first_at, last_at, total, open)"
    " VALUES ('f1', 'a.b', 'exhausted', now(), now(), 3, 3)"
)
OUTBOX = "INSERT INTO leveret_outbox (job_id, actor, body, error) VALUES (%s, 'a.b', '{}', %s)"
CLAIM = (
    "INSERT INTO claims (actor, key, job_id, state, epoch, lease_until)"
    " VALUES ('a.b', %s, %s, 'running', 1, now() - interval '1 hour')"
)


OF_SCHEDULES = {
    Kind.SCHEDULE_GAP,
    Kind.SCHEDULE_OVERDUE,
    Kind.SCHEDULE_UNREADABLE,
    Kind.SLOT_WITHOUT_JOB,
}


@pytest.fixture
def ledger(fresh_database):
    """Return an engine on a database with Leveret's tables."""
    made = engine(fresh_database)
    upgrade(made)
    yield made
    made.dispose()


def judged(ledger, vhost):
    """Look at both sides, and compare them."""
    with ledger.connect() as connection:
        return audit.judge(
            audit.look(connection, vhost.management, vhost.name, queues=DEFAULT_QUEUES, actors={})
        )


def ids_by_kind(report):
    """Return what was found."""
    found = {}
    for finding in report.findings:
        found.setdefault(finding.kind, set()).add(finding.subject)
    return found


def test_an_empty_ledger_beside_an_empty_broker_adds_up(ledger, fresh_vhost):
    """Nothing is live, and nothing waits."""
    report = judged(ledger, fresh_vhost.declare())
    assert report.holds
    assert report.published == report.live == 0


def test_everything_that_can_be_wrong_is_named_and_repaired(ledger, fresh_vhost, fresh_database):
    """One of each kind; after the repair, a second look finds nothing of it."""
    vhost = fresh_vhost.declare()
    wrong = {kind: new_id() for kind in Kind}

    def job(kind, state, *, settled=0, reason=None, worker=None):
        row = (wrong[kind], own_time(wrong[kind]), state, settled, reason, worker)
        connection.execute(JOB, row)

    with psycopg.connect(fresh_database) as connection:
        connection.execute(GROUP)
        job(Kind.NO_DEAD_LETTER, "dead", settled=1, reason="refused")
        for kind in (Kind.NOT_DEAD, Kind.NOT_SUPERSEDED, Kind.NO_ROW):
            connection.execute(LETTER, (f"key-{kind}", wrong[kind]))
        # Live, with a dead letter of the same run: it is not lost, but dead.
        job(Kind.NOT_DEAD, "queued")
        job(Kind.NOT_SUPERSEDED, "succeeded", settled=2)
        job(Kind.CLAIM_HELD, "succeeded", settled=2)
        connection.execute(CLAIM, ("key", wrong[Kind.CLAIM_HELD]))
        connection.execute(OUTBOX, (wrong[Kind.OUTBOX_FAILED], "it cannot be encoded"))
        job(Kind.OUTBOX_STALE, "cancelled", settled=1)
        connection.execute(OUTBOX, (wrong[Kind.OUTBOX_STALE], None))
        # Without a copy of what was published, a lost job cannot be repaired.
        job(Kind.LOST, "queued")

    report = judged(ledger, vhost)
    found = ids_by_kind(report)
    elsewhere = {Kind.NOT_RUNNING, *OF_SCHEDULES}
    assert found == {kind: {wrong[kind]} for kind in Kind if kind not in elsewhere}

    seen = []
    with ledger.connect() as connection:
        done = audit.repair(
            connection,
            report.findings,
            record=lambda _connection, finding, changed: seen.append((finding, changed)),
        )
    assert dict(seen) == done
    assert {f.subject for f, changed in done.items() if not changed} == {wrong[Kind.LOST]}

    after = ids_by_kind(judged(ledger, vhost))
    assert after == {Kind.LOST: {wrong[Kind.LOST]}}
    with psycopg.connect(fresh_database) as connection:
        states = dict(connection.execute("SELECT job_id, state FROM dead_letters").fetchall())
        assert states[wrong[Kind.NOT_SUPERSEDED]] == "superseded"
        assert states[wrong[Kind.NO_DEAD_LETTER]] == "open"
        (row,) = connection.execute(
            "SELECT state, reason FROM jobs WHERE id = %s", [wrong[Kind.NOT_DEAD]]
        ).fetchall()
        assert row == ("dead", "exhausted")
        (claim,) = connection.execute("SELECT state FROM claims").fetchall()
        assert claim == ("released",)


def test_slots_that_schedules_have_lost_are_named_and_repaired(ledger, fresh_vhost, fresh_database):
    """A gap is fired, a job that nobody knows is published again; the rest is for people."""
    vhost = fresh_vhost.declare()
    minutely = Every(timedelta(minutes=1))
    with ledger.begin() as connection:
        now = store.database_time(connection).replace(second=0, microsecond=0)
        gap, lost, last = (now - timedelta(minutes=n) for n in (40, 30, 20))
        for name in ("nightly", "idle", "odd"):
            definition = Definition(name=name, actor="a.b", trigger=minutely)
            store.create(connection, definition, by="test")
    with psycopg.connect(fresh_database) as connection:
        connection.execute("UPDATE schedules SET since = %s", [gap - timedelta(minutes=1)])
        connection.execute("UPDATE schedules SET last_slot = %s WHERE name <> 'idle'", [now])
        connection.execute("UPDATE schedules SET expression = 'soon' WHERE name = 'odd'")
        row = (
            "INSERT INTO schedule_slots (schedule, slot, until, outcome, job_id, due_at, fired_at)"
            " VALUES ('nightly', %s, %s, %s, %s, %s, %s)"
        )
        later = gap + timedelta(minutes=1)
        connection.execute(row, (later, last, "skipped", None, later, later))
        connection.execute(row, (lost, None, "fired", job_id("nightly", lost), lost, lost))
        after = last + timedelta(minutes=1)
        connection.execute(row, (after, now, "skipped", None, after, after))

    report = judged(ledger, vhost)
    assert ids_by_kind(report) == {
        Kind.SCHEDULE_GAP: {job_id("nightly", gap)},
        Kind.SLOT_WITHOUT_JOB: {job_id("nightly", lost)},
        Kind.SCHEDULE_OVERDUE: {"idle"},
        Kind.SCHEDULE_UNREADABLE: {"odd"},
    }
    details = {finding.kind: finding.detail for finding in report.findings}
    assert (
        f"nightly: nothing was decided on its slot {gap:%Y-%m-%d %H:%M:%S} UTC" in details.values()
    )
    assert "no scheduler leads" in details[Kind.SCHEDULE_OVERDUE]
    assert "soon" in details[Kind.SCHEDULE_UNREADABLE]

    with ledger.connect() as connection:
        done = audit.repair(connection, report.findings, by="somebody", record=lambda *_: None)
    assert {finding.kind: changed for finding, changed in done.items()} == {
        Kind.SCHEDULE_GAP: True,
        Kind.SLOT_WITHOUT_JOB: True,
        Kind.SCHEDULE_OVERDUE: False,
        Kind.SCHEDULE_UNREADABLE: False,
    }
    assert set(ids_by_kind(judged(ledger, vhost))) == {
        Kind.SCHEDULE_OVERDUE,
        Kind.SCHEDULE_UNREADABLE,
    }
    with psycopg.connect(fresh_database) as connection:
        published = connection.execute("SELECT job_id FROM leveret_outbox ORDER BY id").fetchall()
        assert published == [(job_id("nightly", gap),), (job_id("nightly", lost),)]
