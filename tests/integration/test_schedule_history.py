"""The slots of a schedule, as they are listed; and what a page costs beside 100,000 of them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from leveret.ledger import State
from leveret.ledger.query import InvalidCursor
from leveret.schedules import history
from leveret.schedules.definition import job_id
from leveret.schedules.history import Cause, Outcome, SlotFilter
from leveret.store import engine, migrate, partition
from tests.support.databases import temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine import Connection

SECOND = timedelta(seconds=1)
NOW = datetime.now(UTC).replace(microsecond=0)
SLOTS = 100_000
#: Where the slots of the long history begin.
BEGIN = NOW - SLOTS * SECOND
#: A page of 50 reads no more than this of 8 KiB each, wherever it is and whatever is filtered.
MOST_BUFFERS = 250

_FIRED = text(
    "INSERT INTO schedule_slots (schedule, slot, job_id, due_at, fired_at)"
    " SELECT 'long', at, 'job' || n, at, at + interval '20 ms' FROM (SELECT n,"
    " CAST(:begin AS timestamptz) + n * interval '1 second' AS at"
    " FROM generate_series(1, :n) AS n) AS moments"
)
_SLOT = text(
    "INSERT INTO schedule_slots (schedule, slot, until, count, outcome, reason, cause, asked_by,"
    " job_id, due_at, fired_at) VALUES (:schedule, :slot, :until, :count, :outcome, :reason,"
    " :cause, :by, :job_id, :due_at, :fired_at)"
)
_JOB = text(
    "INSERT INTO jobs (id, created_at, state, actor, queue, reason)"
    " VALUES (:id, :at, :state, 'a.b', 'default', :reason)"
)
_ELSEWHERE = text("INSERT INTO job_ids (id, created_at) VALUES (:id, :at)")


@pytest.fixture(scope="module")
def ledger(checkout) -> Iterator[Engine]:
    """Return an engine of a database with a long history."""
    with temporary_database(checkout, "slots") as url:
        made = engine(url)
        try:
            migrate.upgrade(made)
            with made.begin() as connection:
                partition.ensure(connection)
                connection.execute(_FIRED, {"begin": BEGIN, "n": SLOTS})
                write(connection, BEGIN + 100.5 * SECOND, schedule="long", outcome="skipped")
                connection.execute(text("ANALYZE schedule_slots"))
            yield made
        finally:
            made.dispose()


def write(connection: Connection, slot: datetime, *, schedule: str, **fields: object) -> None:
    """Write a slot's row."""
    given = {
        "until": None,
        "count": 1,
        "outcome": "fired",
        "reason": None,
        "cause": "schedule",
        "by": None,
        "job_id": None,
        "due_at": slot,
        "fired_at": slot,
    }
    connection.execute(_SLOT, given | {"schedule": schedule, "slot": slot} | fields)


def test_a_slot_is_shown_with_its_job_and_how_late_it_was(ledger):
    """The job's state comes from the ledger, by its id and its time; elsewhere filed, too."""
    slots = [NOW - n * SECOND for n in range(4)]
    ids = [job_id("told", slot) for slot in slots]
    with ledger.begin() as connection:
        write(connection, slots[0], schedule="told", job_id=ids[0], fired_at=slots[0] + SECOND / 4)
        connection.execute(
            _JOB, {"id": ids[0], "at": slots[0], "state": "succeeded", "reason": None}
        )
        write(connection, slots[1], schedule="told", job_id=ids[1], cause="run", by="key:1")
        connection.execute(_ELSEWHERE, {"id": ids[1], "at": NOW})
        connection.execute(_JOB, {"id": ids[1], "at": NOW, "state": "dead", "reason": "exhausted"})
        write(connection, slots[2], schedule="told", job_id=ids[2])
        write(connection, slots[3], schedule="told", outcome="queued", reason="overlap")
        first, second, third, fourth = history.slots(connection, "told").items
    assert (first.slot, first.job_id, first.job_state) == (slots[0], ids[0], State.SUCCEEDED)
    assert first.lateness == SECOND / 4
    assert (second.job_state, second.job_reason) == (State.DEAD, "exhausted")
    assert (second.cause, second.asked_by) == (Cause.RUN, "key:1")
    assert third.job_id == ids[2]
    assert third.job_state is None
    assert (fourth.outcome, fourth.reason, fourth.lateness) == (Outcome.QUEUED, "overlap", None)


def test_a_run_of_skipped_slots_is_one_line(ledger):
    """It is listed by its first slot, and found by a period that it reaches into."""
    first, last = NOW - 1000 * SECOND, NOW - 500 * SECOND
    with ledger.begin() as connection:
        run = {"until": last, "count": 501, "outcome": "skipped", "reason": "missed"}
        write(connection, first - SECOND, schedule="gone")
        write(connection, first, schedule="gone", **run)
        write(connection, last - SECOND / 2, schedule="gone", cause="backfill")

        def listed(**which: datetime) -> list[datetime]:
            found = history.slots(connection, "gone", SlotFilter(**which))
            return [line.slot for line in found.items]

        everything = [last - SECOND / 2, first, first - SECOND]
        assert listed() == everything
        assert listed(since=last) == [first]
        assert listed(since=last + SECOND) == []
        assert listed(since=first + SECOND) == everything[:2]
        assert listed(until=first + SECOND) == everything[1:]
        assert listed(until=first) == everything[2:]
        (line,) = history.slots(connection, "gone", SlotFilter(since=last)).items
    assert (line.until, line.count, line.reason) == (last, 501, "missed")


def test_pages_follow_each_other_whatever_comes_meanwhile(ledger):
    """By the slot, so that a newer one moves none."""
    with ledger.begin() as connection:
        for n in range(7):
            write(connection, NOW - n * SECOND, schedule="paged")
        page = history.slots(connection, "paged", limit=3)
        found = [line.slot for line in page.items]
        write(connection, NOW + SECOND, schedule="paged")
        while page.next is not None:
            page = history.slots(connection, "paged", limit=3, after=page.next)
            found += [line.slot for line in page.items]
    assert found == [NOW - n * SECOND for n in range(7)]


@pytest.mark.parametrize("cursor", ["", "nonsense", "e30", "MTIzNDU2Nzg5MDEyMzQ1Njc4OTA"])
def test_a_cursor_that_no_page_has_ended_with_is_refused(ledger, cursor):
    """It is not taken for the beginning."""
    with ledger.connect() as connection, pytest.raises(InvalidCursor):
        history.slots(connection, "long", after=cursor)


WHICH = {
    "all": SlotFilter(),
    "skipped": SlotFilter(outcomes=frozenset({Outcome.SKIPPED})),
    "not fired": SlotFilter(outcomes=frozenset({Outcome.SKIPPED, Outcome.QUEUED})),
    "fired": SlotFilter(outcomes=frozenset({Outcome.FIRED})),
    "an hour": SlotFilter(since=BEGIN + 3600 * SECOND, until=BEGIN + 7200 * SECOND),
    "long ago": SlotFilter(until=BEGIN - 3600 * SECOND),
    "since long": SlotFilter(since=BEGIN + 60 * SECOND),
    "to come": SlotFilter(since=NOW + 3600 * SECOND),
}


@pytest.mark.parametrize("which", WHICH.values(), ids=WHICH)
def test_a_page_costs_what_a_page_has(ledger, which):
    """Beside 100,000 slots, the index leads to the rows of the page and to few others."""
    middle = history._cursor(BEGIN + SLOTS / 2 * SECOND)
    with ledger.connect() as connection:
        for after in (None, middle):
            statement = history.page_statement("long", which, limit=51, after=after)
            compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
            (plan,) = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}", compiled.params
            ).scalar_one()
            read = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
            assert read <= MOST_BUFFERS, json.dumps(plan, indent=1)
            assert "Seq Scan" not in json.dumps(plan)


def test_the_one_slot_that_was_skipped_is_found(ledger):
    """Among all those that were fired."""
    with ledger.connect() as connection:
        began = time.perf_counter()
        found = history.slots(connection, "long", WHICH["skipped"])
        print(f"one skipped among {SLOTS:,}: {time.perf_counter() - began:.4f} s")
    assert [line.slot for line in found.items] == [BEGIN + 100.5 * SECOND]
