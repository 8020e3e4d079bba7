"""What roll-ups say is what counting every job one by one says."""

from __future__ import annotations

import json
import random
import threading
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from leveret.housekeeping import rollup
from leveret.housekeeping.rollup import BOUNDS, BUCKET, Point, quantile
from leveret.ledger.batch import Batch
from leveret.ledger.event import AttemptEvent, Content, JobEvent, Kind, Standing
from leveret.ledger.fold import fold
from leveret.ledger.late import bucket_of
from leveret.ledger.writer import Writer
from leveret.message import new_id
from leveret.store import partition

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Engine

NOW = datetime.now(UTC)
TODAY = bucket_of(NOW)
ENDS = {"succeeded": Kind.SUCCEEDED, "dead": Kind.DEAD, "expired": Kind.EXPIRED}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A job as the test means it: what it is counted by, in seconds since 1970."""

    actor: str | None
    queue: str | None
    state: str
    wanted: float | None
    started: float | None
    finished: float
    attempt: int = 1
    run: int = 0
    due: float | None = None


def _write(engine: Engine, jobs: Iterable[Ended], ids: Sequence[str] | None = None) -> None:
    """Write what became of jobs, as the recorder does."""
    batch = Batch()
    for number, job in enumerate(jobs):
        job_id = new_id() if ids is None else ids[number]
        headers = None
        if job.due is not None and job.attempt == 1:
            headers = {"x-leveret-due-at": datetime.fromtimestamp(job.due, UTC).isoformat()}
        kind = ENDS[job.state]
        standing = Standing(
            job.run,
            2 if kind is Kind.SUCCEEDED else 1,
            job.attempt,
            job.finished,
            kind,
            job.state,
            started_at=job.started,
            finished_at=job.finished,
        )
        content = Content(
            job.actor,
            job.queue,
            "any.x",
            "application/json",
            b"{}",
            None if headers is None else json.dumps(headers),
            b"",
            *[None] * 6,
            job.wanted,
        )
        attempts = []
        if job.attempt > 1 and job.due is not None:
            attempts.append(
                AttemptEvent(
                    job.run, job.attempt - 1, job.due - 9, Kind.RETRYING, job.due - 8, job.due,
                    "retrying",
                )
            )  # fmt: skip
        for attempt in attempts or [None]:
            fold(batch.jobs, JobEvent(job_id, job.state, standing, content, attempt=attempt))
    Writer(engine).write(batch)


def _some(dice: random.Random, count: int, since: datetime) -> list[Ended]:
    """Make up jobs of all kinds that ended between a time and now."""
    span = (NOW - since).total_seconds()
    made = []
    for _ in range(count):
        finished = round(since.timestamp() + dice.random() * span, 6)
        ran = dice.choice([*BOUNDS, 0.0, 700.0, dice.expovariate(0.2)])
        waited = dice.choice([0.0, dice.expovariate(1), 2000.0])
        started = finished - ran if dice.random() < 0.9 else None
        wanted = (finished if started is None else started) - waited
        job = Ended(
            actor=dice.choice(["email.send", "report.make", None]),
            queue=dice.choice(["default", "bulk", None]),
            state=dice.choice(list(ENDS)),
            wanted=wanted,
            started=started,
            finished=finished,
        )
        match dice.randrange(5):
            case 0:
                job = replace(job, attempt=dice.randint(2, 5), due=wanted, wanted=wanted - 100)
            case 1:
                job = replace(job, due=wanted, wanted=wanted - 3600)
            case 2:
                job = replace(job, run=1, wanted=wanted)
        made.append(job)
    return made


def _bin(seconds: float) -> int:
    """Return the place of the first bound that is not less."""
    return bisect_left(BOUNDS, seconds)


def _brute(jobs: Iterable[Ended]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Count jobs one by one."""
    counted: dict[tuple[Any, ...], dict[str, Any]] = defaultdict(
        lambda: {
            "jobs": 0,
            "retries": 0,
            "run_seconds": 0.0,
            "queue_seconds": 0.0,
            "run_histogram": [0] * (len(BOUNDS) + 1),
            "queue_histogram": [0] * (len(BOUNDS) + 1),
        }
    )
    for job in jobs:
        bucket = bucket_of(datetime.fromtimestamp(job.finished, UTC))
        entry = counted[bucket, job.actor or "", job.queue or "", job.state]
        entry["jobs"] += 1
        entry["retries"] += job.attempt - 1
        if job.started is None:
            continue
        ran = max(0.0, round(job.finished - job.started, 6))
        entry["run_seconds"] += ran
        entry["run_histogram"][_bin(ran)] += 1
        wanted = job.wanted if job.due is None else job.due
        if wanted is None or (job.run > 0 and job.attempt == 1):
            continue
        waited = max(0.0, round(job.started - wanted, 6))
        entry["queue_seconds"] += waited
        entry["queue_histogram"][_bin(waited)] += 1
    return dict(counted)


def _stored(engine: Engine) -> dict[tuple[Any, ...], dict[str, Any]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM job_rollups")).mappings().all()
    key = ("bucket", "actor", "queue", "state")
    return {
        (row["bucket"].astimezone(UTC), *(row[name] for name in key[1:])): {
            name: value for name, value in row.items() if name not in key
        }
        for row in rows
    }


def _same(found: dict[tuple[Any, ...], dict[str, Any]], jobs: Iterable[Ended]) -> None:
    """Compare; sums of seconds to the microsecond that the database keeps of each time."""
    wanted = _brute(jobs)
    assert found.keys() == wanted.keys()
    for key, entry in wanted.items():
        for name in ("run_seconds", "queue_seconds"):
            assert found[key].pop(name) == pytest.approx(entry.pop(name), abs=1e-4), key
        assert found[key] == entry, key


def test_the_first_round_counts_the_whole_ledger(ledger: Engine) -> None:
    """Every job is in its bucket, by actor, queue and state, in the bins of its times."""
    jobs = _some(random.Random(4), 600, NOW - timedelta(hours=20))
    _write(ledger, jobs)
    tally = rollup.refresh(ledger)
    assert tally.jobs == len(jobs)
    _same(_stored(ledger), jobs)


def test_a_round_twice_is_a_round_once(ledger: Engine) -> None:
    """Counting the same again, also at the same time, adds nothing."""
    jobs = _some(random.Random(5), 200, NOW - timedelta(minutes=50))
    _write(ledger, jobs)
    threads = [threading.Thread(target=rollup.refresh, args=(ledger,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    rollup.refresh(ledger)
    _same(_stored(ledger), jobs)


def test_what_ends_between_two_rounds_is_added(ledger: Engine) -> None:
    """A bucket that was counted while it was not complete is counted again."""
    dice = random.Random(6)
    jobs = _some(dice, 50, NOW - timedelta(minutes=8))
    _write(ledger, jobs)
    rollup.refresh(ledger)
    more = _some(dice, 50, NOW - timedelta(minutes=4))
    _write(ledger, more)
    rollup.refresh(ledger)
    _same(_stored(ledger), jobs + more)


def test_ends_that_come_hours_late_are_counted(ledger: Engine) -> None:
    """A recorder that was away tells of jobs that ended long before the buckets of a round."""
    dice = random.Random(7)
    jobs = _some(dice, 50, NOW - timedelta(minutes=3))
    _write(ledger, jobs)
    rollup.refresh(ledger)
    late = _some(dice, 100, NOW - timedelta(hours=9))
    _write(ledger, late)
    tally = rollup.refresh(ledger)
    assert tally.marked > 10
    _same(_stored(ledger), jobs + late)
    assert rollup.refresh(ledger).marked == 0


def test_a_round_that_did_not_take_place_is_made_up_for(ledger: Engine) -> None:
    """After hours without one, the next counts all of them."""
    dice = random.Random(8)
    jobs = _some(dice, 100, NOW - timedelta(hours=6))
    _write(ledger, jobs)
    rollup.refresh(ledger)
    with ledger.begin() as connection:
        cut = NOW - timedelta(hours=3)
        connection.execute(text("DELETE FROM job_rollups WHERE bucket > :cut"), {"cut": cut})
    rollup.refresh(ledger)
    _same(_stored(ledger), jobs)


def test_a_job_that_ends_otherwise_moves(ledger: Engine) -> None:
    """What was dead and has succeeded in a replay is not counted where it is no more."""
    at = NOW.timestamp() - 60
    job = Ended(actor="a", queue="q", state="dead", wanted=at - 3, started=at - 2, finished=at)
    job_id = new_id()
    _write(ledger, [job], [job_id])
    rollup.refresh(ledger)
    assert {key[3] for key in _stored(ledger)} == {"dead"}
    replayed = replace(job, state="succeeded", run=1, started=at + 1, finished=at + 2)
    _write(ledger, [replayed], [job_id])
    rollup.refresh(ledger)
    _same(_stored(ledger), [replayed])


@pytest.mark.parametrize(
    "written", ["2026-02-30T10:00:00Z", "soon", "", "2026-13-01T00:00:00Z", 7, None, [1]]
)
def test_a_header_that_makes_no_sense_spoils_nothing(ledger: Engine, written: object) -> None:
    """Anybody may write anything where the time of a delayed job stands."""
    at = NOW.timestamp()
    _write(ledger, [Ended(actor="a", queue="q", state="dead", wanted=at, started=at, finished=at)])
    with ledger.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET headers = CAST(:headers AS json)"),
            {"headers": json.dumps({"x-leveret-due-at": written})},
        )
    assert rollup.refresh(ledger).jobs == 1


def test_clocks_of_workers_that_are_wrong_spoil_nothing(ledger: Engine) -> None:
    """A job that ended before it started took no time; one that ended next year waits for it."""
    at = NOW.timestamp()
    backwards = Ended(
        actor="a", queue="q", state="succeeded", wanted=at + 9, started=at + 3, finished=at
    )
    future = replace(backwards, started=at + 3e7 - 1, finished=at + 3e7)
    _write(ledger, [backwards, future])
    rollup.refresh(ledger)
    _same(_stored(ledger), [backwards])


def test_marks_of_what_is_not_kept_are_not_followed(ledger: Engine) -> None:
    """Where jobs have been dropped, counting again would take them out of the roll-ups."""
    old = TODAY - timedelta(days=40)
    with ledger.begin() as connection:
        connection.execute(text("INSERT INTO rollup_marks (bucket) VALUES (:old)"), {"old": old})
        connection.execute(
            text(
                "INSERT INTO job_rollups VALUES (:old, 'a', 'q', 'dead', 9, 0, 0, 0, '{}', '{}'),"
                " (:now, 'a', 'q', 'dead', 9, 0, 0, 0, '{}', '{}')"
            ),
            {"old": old, "now": TODAY},
        )
    assert rollup.refresh(ledger, keep=timedelta(days=30)).marked == 0
    assert {key[0] for key in _stored(ledger)} == {old}


def test_the_round_reads_by_the_index(ledger: Engine) -> None:
    """What has ended lately is found without reading all jobs."""
    with ledger.begin() as connection:
        partition.ensure(connection)
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(
            connection.execute(
                text("EXPLAIN SELECT 1 FROM jobs WHERE finished_at >= now() - interval '1 hour'")
            ).scalars()
        )
    assert "finished_at_idx" in plan


# ----------------------------------------------------------------------------------------- reading


def _sum(jobs: Iterable[Ended], start: datetime, end: datetime) -> int:
    return sum(start.timestamp() <= job.finished < end.timestamp() for job in jobs)


def test_steps_add_up_buckets(ledger: Engine) -> None:
    """Of each step there is a point, also where nothing ended; together they are all jobs."""
    jobs = _some(random.Random(9), 300, NOW - timedelta(hours=5))
    _write(ledger, jobs)
    rollup.refresh(ledger)
    hour = timedelta(hours=1)
    with ledger.connect() as connection:
        (series,) = rollup.read(connection, NOW - 8 * hour, NOW, hour)
        by_state = rollup.read(connection, NOW - 8 * hour, NOW, hour, by=["state", "actor"])
        bulk = rollup.read(connection, NOW - 8 * hour, NOW, hour, queue="bulk")
        nobody = rollup.read(connection, NOW - 8 * hour, NOW, hour, actor="nobody")
    assert len(series.points) == 9
    for point in series.points:
        assert point.jobs == _sum(jobs, point.at, point.at + hour)
        assert sum(point.run_histogram) <= point.jobs
    assert sum(point.jobs for point in series.points) == 300
    assert {(one.state, one.actor) for one in by_state} == {
        (job.state, job.actor or "") for job in jobs
    }
    for number, point in enumerate(series.points):
        assert sum(one.points[number].jobs for one in by_state) == point.jobs
    assert sum(point.jobs for point in bulk[0].points) == sum(job.queue == "bulk" for job in jobs)
    assert [point.jobs for point in nobody[0].points] == [0] * 9


def test_quantiles_are_near_the_true_ones(ledger: Engine) -> None:
    """They are in the bin that the true value is in."""
    dice = random.Random(10)
    at = NOW.timestamp() - 30
    ran = sorted(dice.expovariate(0.5) for _ in range(400))
    _write(
        ledger,
        [
            Ended(
                actor="a", queue="q", state="succeeded", wanted=at - r, started=at - r, finished=at
            )
            for r in ran
        ],
    )
    rollup.refresh(ledger)
    with ledger.connect() as connection:
        (series,) = rollup.read(connection, TODAY - BUCKET, NOW + BUCKET, 2 * BUCKET)
    point = max(series.points, key=lambda p: p.jobs)
    for share in (0.5, 0.9, 0.99):
        found = point.run_quantile(share)
        assert found is not None
        assert abs(_bin(found) - _bin(ran[int(share * len(ran)) - 1])) <= 1
    assert Point(at=NOW).run_quantile(0.5) is None


@pytest.mark.parametrize(
    ("share", "histogram", "wanted"),
    [
        (0.5, [0, 10, 0], 1.5),
        (1.0, [0, 10, 0], 2.0),
        (0.0, [0, 10, 0], 1.0),
        (0.5, [10, 0, 10], 1.0),
        (0.9, [10, 0, 10], 2.0),
        (0.5, [0, 0, 0], None),
    ],
)
def test_quantiles_are_read_off_straight_lines(
    share: float, histogram: list[int], wanted: float | None
) -> None:
    """Within a bin by its share, beyond the last bound that bound, of nothing nothing."""
    assert quantile(share, histogram, bounds=(1.0, 2.0)) == wanted


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"step": timedelta(minutes=7)}, "multiple"),
        ({"step": timedelta(0)}, "multiple"),
        ({"by": ["weekday"]}, "weekday"),
        ({"start": NOW - timedelta(days=400)}, "too many"),
    ],
)
def test_questions_without_an_answer_are_refused(
    ledger: Engine, values: dict[str, Any], said: str
) -> None:
    """What cannot be read from roll-ups is said, with what can."""
    with ledger.connect() as connection, pytest.raises(ValueError, match=said):
        rollup.read(connection, **{"start": NOW - BUCKET, "end": NOW, **values})
