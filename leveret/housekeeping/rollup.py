"""Roll-ups: how many jobs ended, and how long they took, in buckets of five minutes.

``job_rollups`` has a row for each bucket, actor, queue and final state, by when jobs ended. Nobody
adds to a row. A bucket is counted from ``jobs`` as a whole, and what stands there is replaced:
counting it twice, or in two processes, leads to the same.

What is counted when
    Each round counts the buckets from 20 minutes before the newest that stands (or before now, if
    that is earlier) up to the present one, which is not complete. So a round that did not take
    place is made up for by the next, and the first round of all counts the whole ledger. Beside
    that it counts the buckets that have a mark: jobs in them ended long before the ledger heard of
    it (`leveret.ledger.late`).

What is counted how
    By the last run of a job: `run` is the time from its start to its end; `queue` that from when
    it was wanted to its start, where wanted is when it was published, or due, or due again after
    the attempt before. Jobs that never started have neither, nor has the first attempt of a replay
    a `queue`, since nobody wrote down when that was wanted. A job that was given up and succeeds
    when it is replayed counts where it ended last, as soon as its old bucket is counted again,
    and in both until then.

Histograms have the bounds of ``leveret_job_duration_seconds``, and one number more for what is
longer. A job is in the first whose bound is not less than its time, as Prometheus has it, but each
number stands for itself: they are not added up.
"""

# ruff: noqa: S608 - every statement is put together from constants of this module

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection, Row

from leveret.ledger.late import BUCKET, LATE, bucket_of
from leveret.metrics import DURATION_BUCKETS as BOUNDS

__all__ = ["BOUNDS", "BUCKET", "Point", "Series", "Tally", "quantile", "read", "refresh"]

#: How far a round looks back, beyond what stands.
_BACK = 4 * LATE
#: Buckets that are counted in one transaction.
_CHUNK = timedelta(hours=1)
#: Clocks of workers may be ahead of the database's.
_AHEAD = BUCKET
#: The advisory lock (of a transaction) under which one process counts.
_LOCK = 0x6C657675  # "levu"
_BINS = len(BOUNDS) + 1
_KEY = ("bucket", "actor", "queue", "state")

# ---------------------------------------------------------------------------------------- counting

_BIN_SECONDS = int(BUCKET.total_seconds())
#: The bounds with their signs turned: `width_bucket` counts a bound that is met as passed.
_TURNED = ", ".join(f"-{bound!r}" for bound in reversed(BOUNDS))
#: Dates that PostgreSQL reads whoever wrote them; the 29th of February is left out.
_DATE = (
    r"[12]\d{3}-((0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])|(0[13-9]|1[0-2])-(29|30)"
    r"|(0[13578]|1[02])-31)"
)
_MOMENT = rf"^{_DATE}T([01]\d|2[0-3])(:[0-5]\d){{2}}(\.\d{{1,6}})?(Z|[+-](0\d|1[0-4]):[0-5]\d)$"
_WANTED = f"""
CASE WHEN j.attempt > 1 THEN (
    SELECT max(a.due_at) FROM attempts AS a
    WHERE a.job_id = j.id AND a.created_at = j.created_at AND a.run = j.run
    AND a.attempt = j.attempt - 1)
WHEN j.run > 0 THEN NULL
WHEN j.headers IS NOT NULL AND j.headers ->> 'x-leveret-due-at' ~ '{_MOMENT}'
    THEN CAST(j.headers ->> 'x-leveret-due-at' AS timestamptz)
ELSE coalesce(j.published_at, j.created_at) END
"""


def _bin(seconds: str) -> str:
    return f"{len(BOUNDS)} - width_bucket(-{seconds}, CAST(ARRAY[{_TURNED}] AS float8[]))"


def _histogram(column: str) -> str:
    counts = (f"coalesce(sum(n) FILTER (WHERE {column} = {i}), 0)" for i in range(_BINS))
    return f"CAST(ARRAY[{', '.join(counts)}] AS bigint[])"


_COUNT = text(f"""
WITH ended AS MATERIALIZED (
    SELECT date_bin('{_BIN_SECONDS} s', j.finished_at, '1970-01-01 00:00Z') AS bucket,
        coalesce(j.actor, '') AS actor, coalesce(j.queue, '') AS queue, j.state,
        j.attempt - 1 AS retries,
        CAST(extract(epoch FROM j.finished_at - j.started_at) AS float8) AS run,
        CAST(extract(epoch FROM j.started_at - ({_WANTED})) AS float8) AS wait
    FROM jobs AS j
    WHERE j.finished_at >= :start AND j.finished_at < :end
    AND j.state IN ('succeeded', 'dead', 'cancelled', 'expired')
), timed AS MATERIALIZED (
    SELECT bucket, actor, queue, state, retries,
        CASE WHEN run < 0 THEN 0 ELSE run END AS run,
        CASE WHEN wait < 0 THEN 0 ELSE wait END AS wait
    FROM ended
), binned AS (
    SELECT bucket, actor, queue, state, {_bin("run")} AS ran, {_bin("wait")} AS waited,
        count(*) AS n, sum(retries) AS retries, sum(run) AS run, sum(wait) AS wait
    FROM timed GROUP BY bucket, actor, queue, state, ran, waited
), counted AS (
    SELECT bucket, actor, queue, state, sum(n) AS jobs, sum(retries) AS retries,
        coalesce(sum(run), 0) AS run_seconds, coalesce(sum(wait), 0) AS queue_seconds,
        {_histogram("ran")} AS run_histogram, {_histogram("waited")} AS queue_histogram
    FROM binned GROUP BY bucket, actor, queue, state
), gone AS (
    DELETE FROM job_rollups AS r WHERE r.bucket >= :start AND r.bucket < :end
    AND NOT EXISTS (SELECT FROM counted AS c
        WHERE {" AND ".join(f"c.{column} = r.{column}" for column in _KEY)})
), kept AS (
    INSERT INTO job_rollups AS r ({", ".join(_KEY)}, jobs, retries, run_seconds, queue_seconds,
        run_histogram, queue_histogram)
    SELECT {", ".join(_KEY)}, jobs, retries, run_seconds, queue_seconds,
        run_histogram, queue_histogram FROM counted
    ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET
        jobs = excluded.jobs, retries = excluded.retries, run_seconds = excluded.run_seconds,
        queue_seconds = excluded.queue_seconds, run_histogram = excluded.run_histogram,
        queue_histogram = excluded.queue_histogram
    WHERE r.* IS DISTINCT FROM excluded.*
)
SELECT coalesce(sum(jobs), 0) FROM counted
""")
_ALONE = text("SELECT pg_advisory_xact_lock(:key)")
#: Compiling a thousand expressions, for each partition anew, takes longer than what they do.
_PLAINLY = text("SET LOCAL jit = off")
_STANDS = text("SELECT max(bucket), clock_timestamp() FROM job_rollups")
_OLDEST = text("SELECT min(finished_at) FROM jobs")
_MARKS = text("DELETE FROM rollup_marks RETURNING bucket")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What a round has done."""

    #: The first bucket that it counted beside those with a mark.
    since: datetime
    #: Jobs in the buckets that it counted.
    jobs: int = 0
    #: Buckets that were counted because of a mark.
    marked: int = 0


def refresh(engine: Engine, *, keep: timedelta | None = None) -> Tally:
    """Count what may have changed since the round before; see the top of this module.

    Marks of buckets older than ``keep`` are taken off and not followed: the jobs are not kept so
    long. Each hour of buckets is a transaction of its own, so a round that is broken off goes on
    where it was.
    """
    with engine.begin() as connection:
        newest, now = connection.execute(_STANDS).one()
        since = newest or connection.scalar(_OLDEST) or now
    if keep is not None:
        since = max(since, now - keep)
    start = bucket_of(min(since, now) - _BACK)
    end = bucket_of(now + _AHEAD) + BUCKET
    jobs = 0
    at = start
    while at < end:
        until = min(at + _CHUNK, end)
        with engine.begin() as connection:
            jobs += _count(connection, at, until)
        at = until
    with engine.begin() as connection:
        connection.execute(_ALONE, {"key": _LOCK})
        marked = {bucket.astimezone(UTC) for bucket in connection.scalars(_MARKS)}
        late = sorted(b for b in marked if b < start and (keep is None or b >= now - keep))
        for bucket in late:
            jobs += _count(connection, bucket, bucket + BUCKET)
    return Tally(since=start, jobs=jobs, marked=len(late))


def _count(connection: Connection, start: datetime, end: datetime) -> int:
    connection.execute(_ALONE, {"key": _LOCK})
    connection.execute(_PLAINLY)
    counted: Any = connection.scalar(_COUNT, {"start": start, "end": end})
    return int(counted)


# ----------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The jobs that ended within one step."""

    #: Where the step begins.
    at: datetime
    jobs: int = 0
    #: Attempts of these jobs beyond their first.
    retries: int = 0
    #: Sums over the jobs that had started, in seconds.
    run_seconds: float = 0.0
    queue_seconds: float = 0.0
    #: How many jobs took how long, by `BOUNDS` and beyond; each number for itself.
    run_histogram: tuple[int, ...] = (0,) * _BINS
    queue_histogram: tuple[int, ...] = (0,) * _BINS

    def run_quantile(self, share: float) -> float | None:
        """Estimate the seconds that this share of the runs did not exceed; None without runs."""
        return quantile(share, self.run_histogram)

    def queue_quantile(self, share: float) -> float | None:
        """Estimate the seconds that this share of the jobs did not wait longer than."""
        return quantile(share, self.queue_histogram)


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Points of what was asked to be told apart; None where it was not asked."""

    actor: str | None = None
    queue: str | None = None
    state: str | None = None
    #: One for each step, also where nothing ended.
    points: tuple[Point, ...]


def read(
    connection: Connection,
    start: datetime,
    end: datetime,
    step: timedelta = BUCKET,
    *,
    by: Sequence[str] = (),
    actor: str | None = None,
    queue: str | None = None,
) -> list[Series]:
    """Return the jobs that ended from ``start`` to ``end``, in steps, from roll-ups alone.

    ``step`` is a multiple of five minutes; steps are counted from 1970-01-01 UTC, and the first
    has ``start`` in it. ``by`` names what is told apart: ``actor``, ``queue``, ``state``; without
    any there is one series, which may be all zeros. The last five minutes are as complete as the
    last round of counting. An actor or queue that nobody knows is the empty string. Raises
    `ValueError` for another step, for more than 10,000 of them, or for another name in ``by``.
    """
    seconds = step.total_seconds()
    if seconds <= 0 or step % BUCKET:
        raise ValueError(f"a step is a multiple of {BUCKET}, not {step}")
    if not set(by) <= {"actor", "queue", "state"}:
        raise ValueError(f"jobs are told apart by actor, queue and state, not by {', '.join(by)}")
    first = math.floor(start.timestamp() / seconds)
    steps = max(0, math.ceil(end.timestamp() / seconds) - first)
    if steps > _MOST_STEPS:
        raise ValueError(f"{steps} steps are too many; {_MOST_STEPS} are the limit")
    moments = [datetime.fromtimestamp((first + i) * seconds, UTC) for i in range(steps)]
    if not moments:
        return []
    values: dict[str, object] = {"start": moments[0], "end": moments[-1] + step, "step": step}
    where = ["bucket >= :start", "bucket < :end"]
    for name, wanted in (("actor", actor), ("queue", queue)):
        if wanted is not None:
            where.append(f"{name} = :{name}")
            values[name] = wanted
    keys = tuple(dict.fromkeys(by))
    columns = ", ".join(("at", *keys))
    statement = text(
        "SELECT date_bin(:step, bucket, '1970-01-01 00:00Z') AS at"
        f"{''.join(f', {key}' for key in keys)}, {_SUMS}"
        f" FROM job_rollups WHERE {' AND '.join(where)} GROUP BY {columns} ORDER BY {columns}"
    )
    found: dict[tuple[str, ...], dict[datetime, Point]] = {} if keys else {(): {}}
    for row in connection.execute(statement, values):
        key = tuple(str(value) for value in row[1 : 1 + len(keys)])
        point = _point(row)
        found.setdefault(key, {})[point.at] = point
    return [
        Series(
            **dict(zip(keys, key, strict=True)),
            points=tuple(points.get(moment) or Point(at=moment) for moment in moments),
        )
        for key, points in sorted(found.items())
    ]


def quantile(
    share: float, histogram: Sequence[int], bounds: Sequence[float] = BOUNDS
) -> float | None:
    """Estimate from a histogram the value that ``share`` (0 to 1) of all values do not exceed.

    By straight lines within a bin, as Prometheus' ``histogram_quantile`` does; beyond the last
    bound it is that bound. None when the histogram is empty.
    """
    total = sum(histogram)
    if not total:
        return None
    rank = min(1.0, max(0.0, share)) * total
    below = 0
    for index, count in enumerate(histogram):
        if count and below + count >= rank:
            if index == len(bounds):
                break
            low = bounds[index - 1] if index else 0.0
            return low + (bounds[index] - low) * max(0.0, rank - below) / count
        below += count
    return bounds[-1]


_MOST_STEPS = 10_000


def _sums(column: str) -> str:
    numbers = ", ".join(f"coalesce(sum({column}[{i}]), 0)" for i in range(1, _BINS + 1))
    return f"CAST(ARRAY[{numbers}] AS bigint[]) AS {column}"


_SUMS = (
    "CAST(sum(jobs) AS bigint) AS jobs, CAST(sum(retries) AS bigint) AS retries,"
    " sum(run_seconds) AS run_seconds, sum(queue_seconds) AS queue_seconds,"
    f" {_sums('run_histogram')}, {_sums('queue_histogram')}"
)


def _point(row: Row[Any]) -> Point:
    return Point(
        at=row.at.astimezone(UTC),
        jobs=row.jobs,
        retries=row.retries,
        run_seconds=row.run_seconds,
        queue_seconds=row.queue_seconds,
        run_histogram=tuple(row.run_histogram),
        queue_histogram=tuple(row.queue_histogram),
    )
