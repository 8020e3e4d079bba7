"""Lists of the ledger are right, and cost what a page costs, however many jobs there are.

``LEVERET_TEST_JOBS=1000000`` for the full size; the promises are about plans and buffers, so that
a smaller ledger shows them, too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, insert, or_, select, text

from leveret.ledger import State, query
from leveret.ledger.query import InvalidCursor, JobFilter
from leveret.message import new_id
from leveret.store import async_engine, engine, migrate
from leveret.store.identity import own_time
from leveret.store.schema import JobRow
from tests.support.databases import temporary_database
from tests.support.histories import fill, make_partitions

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import Connection

JOBS = int(os.environ.get("LEVERET_TEST_JOBS", "100000"))
DAYS = 30
NOW = datetime.now(UTC)
#: Whatever is asked for, a page of 50 reads no more than this of 8 KiB each.
MOST_BUFFERS = 9000

STATES = {
    "any": frozenset(),
    "dead": frozenset({State.DEAD}),
    "none": frozenset({State.RETRYING}),
    "some": frozenset({State.CANCELLED, State.EXPIRED, State.QUEUED}),
}
ACTORS = {"any": None, "usual": "actor.n1", "rare": "rare.actor", "unknown": "no.actor"}
QUEUES = {"any": None, "usual": "default", "rare": "odd", "never meets": "bulk"}
WINDOWS = {
    "ever": {},
    "three days": {"since": NOW - timedelta(days=9), "until": NOW - timedelta(days=6)},
    "long ago": {"until": NOW - timedelta(days=400)},
}
BY_ID = {
    "flow": {"correlation_id": "flow50"},
    "no flow": {"correlation_id": "no"},
    "dead of a flow": {"correlation_id": "flow50", "states": STATES["dead"]},
    "actor of a flow": {"correlation_id": "flow50", "actor": "actor.n0", "queue": "critical"},
    "key": {"idempotency_key": "key7000"},
    "key of another actor": {"idempotency_key": "key7000", "actor": "no.actor"},
    "id": {"job_id": "no-such-id"},
    "pasted flow": {"q": "flow50"},
    "pasted key, dead": {"q": "key7000", "states": STATES["dead"]},
    "two ids": {"q": "a", "job_id": "b", "correlation_id": "b", "idempotency_key": "b"},
}


def _filters() -> Iterator[Any]:
    for names in itertools.product(STATES, ACTORS, QUEUES, WINDOWS):
        state, actor, queue, window = names
        values = {"states": STATES[state], "actor": ACTORS[actor], "queue": QUEUES[queue]}
        yield ", ".join(names), JobFilter(**values, **WINDOWS[window])
    for name, values in BY_ID.items():
        yield name, JobFilter(**values)


@pytest.fixture(scope="module")
def ledger(checkout) -> Iterator[Engine]:
    """Return an engine of a ledger with many jobs in 30 days."""
    with temporary_database(checkout, "history") as url:
        made = engine(url)
        try:
            migrate.upgrade(made)
            with made.begin() as connection:
                make_partitions(connection, days=DAYS)
            started = time.monotonic()
            span = timedelta(days=DAYS) - timedelta(hours=1)
            fill(made, JOBS, start=NOW - span, span=span)
            print(f"{JOBS} jobs in {time.monotonic() - started:.1f} s")
            yield made
        finally:
            made.dispose()


@pytest.fixture
def connection(ledger: Engine) -> Iterator[Connection]:
    """Return a connection to that ledger."""
    with ledger.connect() as made:
        yield made


def _plan(connection: Connection, which: JobFilter, limit: int) -> dict[str, Any]:
    statement = query.page_statement(which, limit=limit)
    compiled = statement.compile(
        dialect=connection.dialect, compile_kwargs={"render_postcompile": True}
    )
    explained = connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}", compiled.params
    ).scalar_one()
    return (explained if isinstance(explained, list) else json.loads(explained))[0]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _plainly(which: JobFilter) -> list[Any]:
    """Return the conditions as one would write them down."""
    conditions = [JobRow.state.in_(which.states or list(State))]
    for column, value in (
        (JobRow.actor, which.actor),
        (JobRow.queue, which.queue),
        (JobRow.correlation_id, which.correlation_id),
        (JobRow.idempotency_key, which.idempotency_key),
        (JobRow.id, which.job_id),
    ):
        if value is not None:
            conditions.append(column == value)
    if which.since is not None:
        conditions.append(JobRow.created_at >= which.since)
    if which.until is not None:
        conditions.append(JobRow.created_at < which.until)
    if which.q is not None:
        named = (JobRow.id, JobRow.correlation_id, JobRow.idempotency_key)
        conditions.append(or_(*(column == which.q for column in named)))
    return conditions


def test_every_combination_of_filters_reads_a_page_and_no_more(connection: Connection) -> None:
    """By an index, without sorting more than a page for each combination, in bounded buffers."""
    connection.execute(text("SELECT 1 FROM jobs LIMIT 1"))
    slowest: list[tuple[float, str]] = []
    for name, which in _filters():
        found = _plan(connection, which, 51)
        top = found["Plan"]
        buffers = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
        assert buffers <= MOST_BUFFERS, (name, buffers)
        assert "JIT" not in found, name
        for node in _nodes(top):
            rows = node["Actual Rows"] * node["Actual Loops"]
            removed = node.get("Rows Removed by Filter", 0) * node["Actual Loops"]
            if node["Node Type"] == "Seq Scan":
                # What is empty, or nearly so, may be read as it is.
                assert rows + removed <= 100, (name, node["Relation Name"], rows, removed)
            if node["Node Type"] == "Sort":
                assert node["Plans"][0]["Actual Rows"] * node["Actual Loops"] <= 51 * 60, name
            if "Index" in node["Node Type"]:
                assert removed <= 2000, (name, removed)
        slowest.append((found["Planning Time"] + found["Execution Time"], name))
    slowest.sort(reverse=True)
    print("slowest, ms:", [(round(ms, 1), name) for ms, name in slowest[:5]])
    print("median, ms:", round(slowest[len(slowest) // 2][0], 1), "of", len(slowest))


def test_every_list_is_what_the_filter_says(connection: Connection) -> None:
    """The same jobs in the same order as a plain statement finds in the whole table."""
    order = (JobRow.created_at.desc(), JobRow.id.desc())
    for name, which in _filters():
        if JOBS > 200_000 and which.actor is None:
            continue
        plain = select(JobRow.id).where(*_plainly(which)).order_by(*order).limit(20)
        expected = connection.scalars(plain).all()
        assert [job.id for job in query.jobs(connection, which, limit=20).items] == expected, name


@pytest.mark.parametrize(
    "which",
    [
        JobFilter(states=frozenset({State.CANCELLED})),
        JobFilter(correlation_id="flow50"),
        JobFilter(actor="rare.actor"),
        JobFilter(since=NOW - timedelta(minutes=90)),
    ],
    ids=["state", "flow", "actor", "since"],
)
def test_pages_follow_one_another_without_gap_or_repetition(
    connection: Connection, which: JobFilter
) -> None:
    """Page by page one sees each job once, in order; the last page has no cursor."""
    plain = select(JobRow.id).where(*_plainly(which))
    expected = connection.scalars(plain.order_by(JobRow.created_at.desc(), JobRow.id.desc())).all()
    seen: list[str] = []
    cursor = None
    for _ in range(len(expected) + 1):
        page = query.jobs(connection, which, limit=7, after=cursor)
        seen += [job.id for job in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == expected
    assert cursor is None


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "W10", "WzEsMl0", "WyJhIiwgImIiXQ", "bnVsbA", "WzEsICJcdTAwMDAiXQ"]
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    """Whatever a client sends, it hears that this is none."""
    with pytest.raises(InvalidCursor):
        query.page_statement(JobFilter(), limit=1, after=cursor)


def test_counts_are_exact_where_they_are_small_and_estimated_where_not(
    connection: Connection,
) -> None:
    """The large ones are near the truth, and say that they are estimates."""
    truth = dict(
        connection.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).all()
    )
    found = query.counts(connection)
    assert set(found) == set(State)
    assert found[State.DEAD] == query.Count(value=truth["dead"], exact=True)
    assert found[State.RETRYING] == query.Count(value=0, exact=True)
    assert not found[State.SUCCEEDED].exact
    assert found[State.SUCCEEDED].value == pytest.approx(truth["succeeded"], rel=0.2)


def test_the_oldest_that_waits_is_known_for_each_queue(connection: Connection) -> None:
    """By the index, not by reading what waits."""
    plain = connection.execute(
        select(JobRow.queue, func.min(JobRow.created_at))
        .where(JobRow.state == "queued", JobRow.queue.is_not(None))
        .group_by(JobRow.queue)
    )
    known = dict(plain.all())
    assert query.oldest_waiting(connection) == known
    job_id = new_id()
    connection.execute(
        insert(JobRow).values(
            id=job_id, created_at=own_time(job_id), actor="any.where", state="queued"
        )
    )
    routes = {"any.where": "elsewhere", "actor.n3": "bulk"}
    assert query.oldest_waiting(connection, routes) == {
        **known,
        "elsewhere": own_time(job_id),
    }
    connection.rollback()


def test_one_job_is_found_by_its_id(connection: Connection) -> None:
    """Whatever its id looks like; and its attempts with it."""
    some = query.jobs(connection, JobFilter(actor="actor.n3"), limit=1).items[0]
    found = query.job(connection, some.id)
    assert found is not None
    assert (found.id, found.body, found.state) == (some.id, b"{}", some.state)
    assert query.job(connection, "unknown") is None
    assert query.job(connection, "01900000-0000-7000-8000-000000000000") is None


async def _list(url: str) -> query.Page[query.JobSummary]:
    database = async_engine(url)
    try:
        async with database.connect() as connection:
            return await connection.run_sync(query.jobs, JobFilter(actor="actor.n1"), limit=3)
    finally:
        await database.dispose()


def test_the_same_functions_serve_asyncio(ledger: Engine) -> None:
    """By `run_sync` of an asynchronous connection."""
    page = asyncio.run(_list(ledger.url.render_as_string(hide_password=False)))
    assert len(page.items) == 3
