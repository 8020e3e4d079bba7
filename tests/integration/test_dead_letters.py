"""Dead letters in PostgreSQL: looked through, replayed into the outbox, discarded."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text

from leveret.deadletters import (
    LetterState,
    ReplayState,
    Selection,
    cancel_replay,
    create_replay,
    discard,
    get_replay,
    query,
)
from leveret.deadletters import replay as replay_module
from leveret.deadletters.runner import step
from leveret.errors import InvalidJob, ReplayRefused
from leveret.ledger.query import InvalidCursor
from leveret.message import new_id
from leveret.store import async_engine
from leveret.store.schema import AuditEntry, DeadLetter
from tests.support import letters
from tests.support.letters import WHO, put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

EVERYTHING = Selection()
QUEUES = ("critical", "default", "bulk", "scheduled")


@pytest.fixture(scope="module")
def store(database) -> Iterator[Engine]:
    """Return the engine of a migrated database."""
    with letters.ledger(database) as engine:
        yield engine


@pytest.fixture
def engine(store) -> Engine:
    """Return the engine, its tables empty."""
    letters.clear(store)
    return store


def replay(engine, selection=EVERYTHING, **options):
    """Create a replay in a transaction of its own."""
    with engine.begin() as connection:
        return create_replay(connection, selection, requested_by=WHO, **options)


def run(engine, replay_id, **options):
    """Step until a replay is no longer running; return it."""
    for _ in range(100_000):
        step(engine, queues=QUEUES, **options)
        with engine.connect() as connection:
            found = get_replay(connection, replay_id)
        if found.state is not ReplayState.RUNNING:
            return found
    raise TimeoutError(f"replay {replay_id} does not come to its end: {found}")


def states(engine):
    """Return the state of each dead letter, and why it was refused."""
    with engine.connect() as connection:
        columns = (DeadLetter.id, DeadLetter.state, DeadLetter.refusal)
        rows = connection.execute(select(*columns).order_by(DeadLetter.id))
        return {row.id: (row.state, row.refusal) for row in rows}


def audited(engine):
    """Return what the audit log says."""
    with engine.connect() as connection:
        rows = connection.execute(select(AuditEntry.__table__).order_by(AuditEntry.id))
        return [(row.who, row.action, row.target, row.outcome, row.detail) for row in rows]


# ------------------------------------------------------------------------------------------ replays


def test_a_replay_publishes_each_dead_letter_once_and_queues_its_job(engine):
    """The outbox has the original's bytes, the job is queued in its next run, all is counted."""
    with engine.begin() as connection:
        ids = [put(connection, {"n": n}) for n in range(3)]
        other = put(connection, actor="data.load", fingerprint="f2")
    made = replay(engine, Selection(actor="mail.send"))
    assert (made.total, made.published, made.left, made.state) == (3, 0, 3, "running")
    done = run(engine, made.id)
    assert (done.total, done.published, done.refused, done.state) == (3, 3, 0, "done")
    with engine.connect() as connection:
        rows = letters.outbox(connection)
        assert [row.body for row in rows] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
        for letter_id, row in zip(ids, rows, strict=True):
            letter = letters.letter(connection, letter_id)
            assert (letter.state, letter.resolved_by, letter.new_job_id) == ("replayed", WHO, None)
            assert (row.job_id, row.actor, row.routing_key) == (
                letter.job_id,
                "mail.send",
                "any.mail.send",
            )
            properties = letters.read_properties(row)
            assert properties.message_id == letter.job_id
            assert properties.headers == {"x-leveret-attempt": 1, "x-leveret-run": 1}
            job = letters.job(connection, letter.job_id)
            assert (job.state, job.run, job.attempt, job.settled) == ("queued", 1, 1, 0)
            assert (job.reason, job.error, job.finished_at) == (None, None, None)
        assert letters.letter(connection, other).state == "open"
        counts = letters.group(connection)
        assert (counts.total, counts.open, counts.replayed) == (3, 0, 3)
    assert step(engine) > 0
    ((who, action, target, outcome, detail),) = audited(engine)
    assert (who, action, target, outcome) == (WHO, "replay.create", str(made.id), "done")
    assert (detail["total"], detail["selection"]) == (3, {"actor": "mail.send"})


def test_what_cannot_be_published_again_is_refused_with_a_reason_and_stays_open(engine):
    """And what its job has overtaken is not run twice."""
    twin = new_id()
    with engine.begin() as connection:
        good = put(connection, fingerprint="good")
        unreadable = put(connection, properties=letters.UNREADABLE)
        nowhere = put(connection, actor=None, queue=None, routing_key="somewhere.else")
        running = put(connection, job_state="running")
        succeeded = put(connection, job_state="succeeded")
        first = put(connection, job_id=twin)
        second = put(connection, job_id=twin)
        older = put(connection, job_id=(again := new_id()))
        newer = put(connection, job_id=again, run=1)
        forgotten = put(connection, job_state=None)
        large = put(connection, body=b" " * 1001)
    done = run(engine, replay(engine).id, max_body_bytes=1000)
    assert (done.total, done.published, done.refused) == (11, 4, 7)
    found = states(engine)
    for letter_id in (good, first, newer, forgotten):
        assert found[letter_id] == ("replayed", None)
    for letter_id, why in (
        (unreadable, "its header cannot be read"),
        (nowhere, "nothing says where it belongs"),
        (running, "its job is running"),
        (second, "queued again already"),
        (large, "its body has 1,001 bytes, and 1,000 are the limit"),
        (older, "has been replayed since and is dead (run 1)"),
    ):
        assert found[letter_id][0] == "open"
        assert why in found[letter_id][1]
    assert found[succeeded] == ("superseded", "its job has succeeded all the same")
    with engine.connect() as connection:
        assert len({row.job_id for row in letters.outbox(connection)}) == 4
        counts = letters.group(connection)
        assert (counts.open, counts.replayed, counts.superseded) == (6, 3, 1)


def test_a_message_without_an_id_is_replayed_as_a_job_with_one(engine):
    """The dead letter says which."""
    with engine.begin() as connection:
        letter_id = put(connection, body=b"\xff\0not json", job_id=None, reason="not-utf8")
    run(engine, replay(engine).id)
    with engine.connect() as connection:
        (row,) = letters.outbox(connection)
        assert row.body == b"\xff\0not json"
        assert row.job_id == letters.letter(connection, letter_id).new_job_id
        assert letters.read_properties(row).message_id == row.job_id


def test_a_replay_has_what_it_has_claimed_until_it_is_cancelled(engine):
    """No other replay and no discard gets it; what was not published is open again."""
    with engine.begin() as connection:
        ids = [put(connection) for _ in range(5)]
    made = replay(engine, Selection(ids=tuple(ids[:4])))
    for taken in (Selection(ids=(ids[0],)), Selection(ids=(12345,))):
        with pytest.raises(ReplayRefused, match="no open dead letter matches"):
            replay(engine, taken)
    with engine.begin() as connection:
        assert discard(connection, Selection(), by=WHO) == 1
    step(engine, batch=1)
    with engine.begin() as connection:
        stopped = cancel_replay(connection, made.id, by=WHO)
    assert (stopped.state, stopped.published, stopped.left) == ("cancelled", 1, 0)
    assert stopped.finished_at is not None
    assert [state for state, _ in states(engine).values()] == [
        "replayed",
        "open",
        "open",
        "open",
        "discarded",
    ]
    step(engine)
    with engine.begin() as connection:
        assert len(letters.outbox(connection)) == 1
        counts = letters.group(connection)
        assert (counts.open, counts.replayed, counts.discarded) == (3, 1, 1)
        with pytest.raises(ReplayRefused, match="is cancelled already"):
            cancel_replay(connection, made.id, by=WHO)
        with pytest.raises(ReplayRefused, match="no replay 0"):
            cancel_replay(connection, 0, by=WHO)
        with pytest.raises(ReplayRefused, match="no open dead letter matches"):
            discard(connection, Selection(actor="nobody"), by=WHO)
    assert [entry[1] for entry in audited(engine)] == [
        "replay.create",
        "dead-letters.discard",
        "replay.cancel",
    ]
    assert run(engine, replay(engine, Selection(ids=tuple(ids))).id).published == 3


def test_a_large_selection_is_claimed_in_batches(engine, monkeypatch):
    """None is missed, none is taken twice."""
    monkeypatch.setattr(replay_module, "_BATCH", 7)
    with engine.begin() as connection:
        for _ in range(30):
            put(connection)
    made = replay(engine)
    assert made.total == 30
    assert run(engine, made.id, batch=4).published == 30
    with engine.connect() as connection:
        assert len({row.job_id for row in letters.outbox(connection)}) == 30


def test_two_runners_together_keep_the_rate(engine):
    """The row of the replay keeps it, by the database's clock."""
    total, rate = 150, 100.0
    with engine.begin() as connection:
        for _ in range(total):
            put(connection)
    made = replay(engine, rate=rate)
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            over.wait(min(step(engine), 0.05))

    runners = [threading.Thread(target=work) for _ in range(2)]
    for runner in runners:
        runner.start()
    try:
        letters.wait_done(engine, made.id)
    finally:
        over.set()
        for runner in runners:
            runner.join(20)
    with engine.connect() as connection:
        row = connection.execute(
            text(
                "SELECT extract(epoch FROM r.next_at - r.created_at) AS paid,"
                " (SELECT extract(epoch FROM max(resolved_at) - min(resolved_at))"
                "  FROM dead_letters) AS took FROM replays AS r"
            )
        ).one()
        assert len(letters.outbox(connection)) == total
    assert row.paid >= total / rate
    # a quarter of a second's jobs go at once, and as many are made up for
    assert float(row.took) >= total / rate - 3 * 0.25


def test_a_slow_rate_says_when_to_come_back(engine):
    """So that a runner does not look for nothing."""
    with engine.begin() as connection:
        for _ in range(2):
            put(connection)
    replay(engine, rate=0.01)
    assert step(engine, idle=500.0) == 0.0
    assert 50 < step(engine, idle=500.0) <= 100
    with engine.connect() as connection:
        assert len(letters.outbox(connection)) == 1


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_a_rate_is_a_number_of_jobs_per_second(engine, rate):
    """Anything else is refused before anything is claimed."""
    with engine.begin() as connection:
        put(connection)
    with pytest.raises(ReplayRefused, match="a rate is from"):
        replay(engine, rate=rate)


def test_a_full_outbox_is_not_filled_further(engine, monkeypatch):
    """Other jobs have to get through as well."""
    monkeypatch.setattr("leveret.deadletters.runner._MAX_PENDING", 2)
    with engine.begin() as connection:
        for _ in range(6):
            put(connection)
    made = replay(engine)
    assert step(engine, batch=2) == 0
    assert step(engine, batch=2) > 0
    with engine.begin() as connection:
        assert get_replay(connection, made.id).published == 2
        connection.execute(text("DELETE FROM leveret_outbox"))
    step(engine, batch=2)
    with engine.connect() as connection:
        assert get_replay(connection, made.id).published == 4


# ---------------------------------------------------------------------------------- edited replays


def test_an_edited_replay_makes_new_jobs_and_leaves_the_old_ones_dead(engine):
    """Each dead letter names its new job, which names the old one."""
    with engine.begin() as connection:
        letter_id = put(connection, {"to": "ada", "n": 1}, reason="bad-arguments")
    made = replay(engine, edits={"n": 2}, edits_allowed=True)
    assert run(engine, made.id).published == 1
    with engine.connect() as connection:
        letter = letters.letter(connection, letter_id)
        (row,) = letters.outbox(connection)
        assert (row.job_id, row.body) == (letter.new_job_id, b'{"to":"ada","n":2}')
        headers = letters.read_properties(row).headers
        assert headers == {"x-leveret-attempt": 1, "x-leveret-replay-of": letter.job_id}
        job = letters.job(connection, letter.job_id)
        assert (job.state, job.run) == ("dead", 0)
    (entry,) = audited(engine)
    assert entry[4]["edited"] == ["n"]


def test_an_edited_replay_is_refused_unless_it_is_allowed_and_right(engine):
    """Nothing is claimed then."""
    with engine.begin() as connection:
        put(connection, {"to": "ada"})
        put(connection, {"to": "grace"})

    def check(actor, arguments):
        if arguments["to"] == "grace":
            raise InvalidJob("bad-arguments", f"{actor}: n: Field required")

    with pytest.raises(ReplayRefused, match="LEVERET_EDITED_REPLAY=true") as caught:
        replay(engine, edits={"n": 2})
    assert caught.value.reason == "edits-are-off"
    with pytest.raises(ReplayRefused, match=r"dead letter \d+: mail.send: n: Field required"):
        replay(engine, edits={"n": 2}, edits_allowed=True, check=check)
    assert {state for state, _ in states(engine).values()} == {"open"}


def test_an_edited_replay_takes_no_more_than_it_can_check(engine, monkeypatch):
    """A thousand, and here two."""
    monkeypatch.setattr(replay_module, "MAX_EDITED", 2)
    with engine.begin() as connection:
        for _ in range(3):
            put(connection)
    with pytest.raises(ReplayRefused, match="at most 2 dead letters"):
        replay(engine, edits={"n": 2}, edits_allowed=True)


# ------------------------------------------------------------------------------------------ reading


def test_results_say_what_became_of_the_replayed_jobs(engine):
    """Succeeded, dead once more, waiting, or gone; a later run means that this one died."""
    with engine.begin() as connection:
        ids = [put(connection) for _ in range(6)]
    made = replay(engine)
    run(engine, made.id)
    with engine.begin() as connection:
        jobs = [letters.letter(connection, letter_id).job_id for letter_id in ids]
        for job_id, state, times in (
            (jobs[0], "succeeded", 1),
            (jobs[1], "dead", 1),
            (jobs[2], "succeeded", 2),
            (jobs[3], "running", 1),
        ):
            connection.execute(
                text("UPDATE jobs SET state = :state, run = :run WHERE id = :id"),
                {"state": state, "run": times, "id": job_id},
            )
        connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": jobs[4]})
        assert query.results(connection, made.id) == query.Results(
            succeeded=1, died_again=2, live=2, other=1
        )


def test_a_new_job_that_the_ledger_does_not_know_yet_is_live(engine):
    """Whoever waits for its end waits on; after a day nobody expects it any more."""
    with engine.begin() as connection:
        letter_id = put(connection, {"to": "ada", "n": 1}, reason="bad-arguments")
    made = replay(engine, edits={"n": 2}, edits_allowed=True)
    run(engine, made.id)
    with engine.begin() as connection:
        found = query.results(connection, made.id)
        assert found == query.Results(succeeded=0, died_again=0, live=1, other=0)
        connection.execute(
            text("UPDATE dead_letters SET resolved_at = now() - interval '25 h' WHERE id = :id"),
            {"id": letter_id},
        )
        found = query.results(connection, made.id)
        assert found == query.Results(succeeded=0, died_again=0, live=0, other=1)


def test_the_history_of_a_job_has_its_runs_its_letters_and_their_replays(engine):
    """From any of its dead letters."""
    job_id = new_id()
    with engine.begin() as connection:
        first = put(connection, job_id=job_id)
    made = replay(engine)
    run(engine, made.id)
    with engine.begin() as connection:
        second = put(connection, job_id=job_id, run=1)
        for number in (0, 1):
            connection.execute(
                text(
                    "INSERT INTO attempts (job_id, created_at, run, attempt, started_at, outcome)"
                    " SELECT id, created_at, :run, 6, now(), 'dead' FROM jobs WHERE id = :id"
                ),
                {"run": number, "id": job_id},
            )
    with engine.connect() as connection:
        found = query.history(connection, query.letter(connection, second))
        assert [(x.id, x.run, x.state) for x in found.letters] == [
            (first, 0, "replayed"),
            (second, 1, "open"),
        ]
        assert [x.died_again for x in found.letters] == [False, True]
        assert [x.id for x in found.replays] == [made.id]
        assert [a.run for a in found.attempts] == [0, 1]
        assert found.job.run == 1
        assert letters.group(connection).died_again == 1
        assert query.letter(connection, 0) is None


def test_filters_are_all_that_must_hold(engine):
    """By id, group, job, actor, queue, reason, words of the error, time and state."""
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    with engine.begin() as connection:
        one = put(connection, fingerprint="a", error="100% of Disk_full\\", dead_at=noon)
        two = put(connection, actor="b.c", queue="bulk", reason="refused", job_id="odd")
        put(connection, fingerprint="c", state="discarded")
        cases = [
            (Selection(ids=(one, 999)), {one}),
            (Selection(ids=()), set()),
            (Selection(fingerprint="a"), {one}),
            (Selection(job_id="odd"), {two}),
            (Selection(actor="b.c", queue="bulk", reason="refused"), {two}),
            (Selection(actor="b.c", queue="default"), set()),
            (Selection(error="% OF disk_FULL\\"), {one}),
            (Selection(error="100_"), set()),
            (Selection(error="\0"), set()),
            (Selection(actor="\ud800"), set()),
            (Selection(ids=(one, 2**70)), {one}),
            (Selection(until=noon), set()),
            (Selection(since=noon, until=noon + timedelta(seconds=1)), {one}),
            (Selection(state=LetterState.OPEN), {one, two}),
        ]
        for selection, wanted in cases:
            page = query.letters(connection, selection)
            assert {line.id for line in page.items} == wanted, selection
            assert query.count(connection, selection) == len(wanted)
            written = json.loads(json.dumps(selection.to_dict()))
            assert Selection.from_dict(written) == selection
            assert selection.is_everything is (selection == Selection(state=LetterState.OPEN))


def test_pages_follow_each_other_without_gaps(engine):
    """Also when many died in the same moment, or groups are as large as each other."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    with engine.begin() as connection:
        for n in range(10):
            moment = at + timedelta(seconds=n // 3)
            put(connection, fingerprint=f"f{n // 2}", dead_at=moment)
        for _ in range(3):
            put(connection, fingerprint="many", dead_at=at)

        def pages(read, **options):
            found, after = [], None
            while True:
                page = read(connection, limit=3, after=after, **options)
                found += page.items
                after = page.next
                if after is None:
                    return found

        lines = pages(query.letters, which=Selection())
        assert [(x.dead_at, x.id) for x in lines] == sorted(
            ((x.dead_at, x.id) for x in lines), reverse=True
        )
        assert len({x.id for x in lines}) == 13
        latest = pages(query.groups)
        assert [g.fingerprint for g in latest] == ["f4", "f3", "f2", "f1", "many", "f0"]
        by_open = pages(query.groups, order="open", only_open=True)
        assert [g.fingerprint for g in by_open] == ["many", "f4", "f3", "f2", "f1", "f0"]
        assert query.groups(connection, actor="nobody").items == ()
        assert query.groups(connection, reason="exhausted", limit=1).next is not None
        for cursor in (
            "",
            "x",
            "bnVsbA",
            "é",
            "W10",
            "WyJhIiwxXQ",
            "WzEsMTE1MjkyMTUwNDYwNjg0Njk3Nl0",
        ):
            with pytest.raises(InvalidCursor):
                query.letters(connection, Selection(), after=cursor)
        replays = [
            create_replay(connection, Selection(fingerprint=f"f{n}"), requested_by=WHO)
            for n in range(4)
        ]
        assert [r.id for r in pages(query.replays)] == [r.id for r in reversed(replays)]


def test_a_fingerprint_is_found_by_how_it_begins(engine):
    """Unless several begin so; what is one itself is that one."""
    with engine.begin() as connection:
        for name in ("abc1", "abc2", "abc12", "x%"):
            put(connection, fingerprint=name)
        assert query.fingerprints(connection, "abc2") == ["abc2"]
        assert query.fingerprints(connection, "abc1") == ["abc1"]
        assert len(query.fingerprints(connection, "abc")) == 2
        assert query.fingerprints(connection, "%") == []
        assert query.group(connection, "abc1").open == 1
        assert query.group(connection, "nothing") is None


async def _from_asyncio(url):
    engine = async_engine(url, pool_size=1)
    try:
        async with engine.begin() as connection:
            made = await connection.run_sync(create_replay, Selection(), requested_by="key:1")
            page = await connection.run_sync(query.letters, Selection(), limit=1)
        return made, page
    finally:
        await engine.dispose()


def test_everything_works_on_a_connection_of_asyncio(engine, database):
    """Through `run_sync`, as the API does it."""
    with engine.begin() as connection:
        put(connection)
    made, page = asyncio.run(_from_asyncio(database))
    assert (made.total, page.items[0].replay_id) == (1, made.id)
