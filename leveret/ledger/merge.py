"""What a batch becomes in SQL: rows for ``COPY``, and the statements that merge them. Pure.

The comparisons here are those of `leveret.ledger.fold`, written once more for the database.
"""

# ruff: noqa: S608 - every statement is put together from the tables of columns in this module

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import sha256

from leveret.ledger.event import LONG_AGO, AttemptEvent, DeadLetterEvent
from leveret.ledger.fold import JobChange

__all__ = [
    "ANY_CANCELLATION",
    "ANY_OPEN",
    "ATTEMPTS",
    "BEAT",
    "CLOSE_CANCELLATIONS",
    "INSERT_LETTERS",
    "JOBS",
    "LETTERS",
    "MERGE_ATTEMPTS",
    "MERGE_JOBS",
    "REJECT",
    "SUPERSEDE",
    "Stage",
    "attempt_line",
    "job_line",
    "letter_line",
]

# -------------------------------------------------------------------------------- the merge of jobs

_CONTENT = (
    ("actor", "text"),
    ("queue", "text"),
    ("routing_key", "text"),
    ("content_type", "text"),
    ("body", "bytea"),
    ("headers", "json"),
    ("properties", "bytea"),
    ("priority", "smallint"),
    ("correlation_id", "text"),
    ("app_id", "text"),
    ("idempotency_key", "text"),
    ("traceparent", "text"),
    ("expires_at", "time"),
    ("published_at", "time"),
)
_STANDING = (
    ("run", "integer"),
    ("settled", "smallint"),
    ("attempt", "integer"),
    ("event_at", "time"),
    ("kind", "smallint"),
    ("state", "text"),
    ("due_at", "time"),
    ("started_at", "time"),
    ("finished_at", "time"),
    ("worker", "text"),
    ("reason", "text"),
    ("error_type", "text"),
    ("error", "text"),
    ("result", "bytea"),
    ("result_ref", "text"),
    ("result_lost", "text"),
)
_PROGRESS = (("progress_at", "time"), ("progress", "float8"), ("progress_note", "text"))
_JOB = (("id", "text"), ("created_at", "time"), *_CONTENT, *_STANDING, *_PROGRESS)
_ATTEMPT = (
    ("job_id", "text"),
    ("created_at", "time"),
    ("run", "integer"),
    ("attempt", "integer"),
    ("started_at", "time"),
    ("ended_at", "time"),
    ("due_at", "time"),
    ("outcome", "text"),
    ("worker", "text"),
    ("queue", "text"),
    ("reason", "text"),
    ("error_type", "text"),
    ("error", "text"),
    ("traceback", "text"),
)
_LETTER = (
    ("key", "text"),
    ("may_repeat", "boolean"),
    ("job_id", "text"),
    ("job_created_at", "time"),
    ("run", "integer"),
    ("attempt", "integer"),
    ("actor", "text"),
    ("queue", "text"),
    ("routing_key", "text"),
    ("exchange", "text"),
    ("reason", "text"),
    ("error_type", "text"),
    ("error", "text"),
    ("traceback", "text"),
    ("fingerprint", "text"),
    ("body", "bytea"),
    ("properties", "bytea"),
    ("headers", "json"),
    ("dead_at", "time"),
)
_Columns = Collection[tuple[str, str]]


def _named(columns: _Columns) -> str:
    return ", ".join(column for column, _ in columns)


def _values(columns: _Columns) -> str:
    return ", ".join(f"to_timestamp({c})" if kind == "time" else c for c, kind in columns)


class Stage:
    """A temporary table that rows are copied into; a time is a number of seconds in it.

    It is named for its columns: on the same connection of PgBouncer, another release may have made
    one with others.
    """

    def __init__(self, what: str, columns: _Columns) -> None:
        types = ", ".join(f"{c} {'float8' if kind == 'time' else kind}" for c, kind in columns)
        self.name = name = f"leveret_{what}_{sha256(types.encode()).hexdigest()[:8]}"
        #: Makes the table, unless this connection has it; commits empty it.
        self.create = (
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({types}) ON COMMIT DELETE ROWS;"
        )
        self.copy = f"COPY {name} ({_named(columns)}) FROM STDIN"


JOBS = Stage("jobs", _JOB)
ATTEMPTS = Stage("attempts", _ATTEMPT)
LETTERS = Stage("letters", _LETTER)

_NEWER = (
    "(excluded.run, excluded.settled, excluded.attempt, excluded.event_at, excluded.kind)"
    " > (jobs.run, jobs.settled, jobs.attempt, jobs.event_at, jobs.kind)"
)
_LATER = (
    "excluded.progress_at IS NOT NULL"
    " AND (jobs.progress_at IS NULL OR excluded.progress_at > jobs.progress_at)"
)
_FILLS = " OR ".join(
    f"(jobs.{column} IS NULL AND excluded.{column} IS NOT NULL)"
    for column in ("actor", "queue", "body", "properties")
)
MERGE_JOBS = f"""
INSERT INTO jobs ({_named(_JOB)})
SELECT {_values(_JOB)} FROM {JOBS.name} ORDER BY id
ON CONFLICT (id, created_at) DO UPDATE SET
{", ".join(f"{c} = COALESCE(jobs.{c}, excluded.{c})" for c, _ in _CONTENT)},
{", ".join(f"{c} = CASE WHEN {_NEWER} THEN excluded.{c} ELSE jobs.{c} END" for c, _ in _STANDING)},
{", ".join(f"{c} = CASE WHEN {_LATER} THEN excluded.{c} ELSE jobs.{c} END" for c, _ in _PROGRESS)},
updated_at = now()
WHERE {_NEWER} OR {_FILLS} OR ({_LATER})
"""

#: The outcomes of attempts in the order of `leveret.ledger.event.Kind`, from its first.
_OUTCOMES = (
    "running", "abandoned", "quarantined", "snoozed", "retrying", "expired", "cancelled", "dead",
    "succeeded",
)  # fmt: skip
_RANK = f"array_position('{{{{{','.join(_OUTCOMES)}}}}}'::text[], {{0}}.outcome)"
_WEIGHT = f"({_RANK}, COALESCE({{0}}.ended_at, '-infinity'), COALESCE({{0}}.due_at, '-infinity'))"
_KEY = ("job_id", "created_at", "run", "attempt", "started_at")
MERGE_ATTEMPTS = f"""
INSERT INTO attempts ({_named(_ATTEMPT)})
SELECT {_values(_ATTEMPT)} FROM {ATTEMPTS.name} ORDER BY {", ".join(_KEY)}
ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET
{", ".join(f"{c} = excluded.{c}" for c, _ in _ATTEMPT if c not in _KEY)}
WHERE {_WEIGHT.format("excluded")} > {_WEIGHT.format("attempts")}
"""

# -------------------------------------------------------------------------------- dead letters

_HAS_SUCCEEDED = """
EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = l.job_id AND j.created_at = to_timestamp(
    l.job_created_at) AND j.settled = 2 AND j.run >= l.run)
"""
_LETTER_COLUMNS = [c for c, _ in _LETTER if c not in ("key", "may_repeat")]
INSERT_LETTERS = f"""
WITH new AS (
    INSERT INTO dead_letters (key, {", ".join(_LETTER_COLUMNS)}, state, resolved_at)
    SELECT
        CASE WHEN may_repeat AND EXISTS (SELECT 1 FROM dead_letters AS d WHERE d.key = l.key)
            THEN l.key || ':' || gen_random_uuid() ELSE l.key END,
        {_values([(c, kind) for c, kind in _LETTER if c in _LETTER_COLUMNS])},
        CASE WHEN {_HAS_SUCCEEDED} THEN 'superseded' ELSE 'open' END,
        CASE WHEN {_HAS_SUCCEEDED} THEN now() END
    FROM {LETTERS.name} AS l ORDER BY l.key
    ON CONFLICT (key) DO NOTHING
    RETURNING
        fingerprint, actor, queue, reason, error_type, error, traceback, dead_at, state, run, id
), merged AS (
INSERT INTO dead_letter_groups AS g (
    fingerprint, actor, reason, error_type, error, traceback, first_at, last_at,
    total, open, superseded, died_again
)
SELECT
    fingerprint,
    (array_agg(actor ORDER BY dead_at DESC, id DESC))[1],
    (array_agg(reason ORDER BY dead_at DESC, id DESC))[1],
    (array_agg(error_type ORDER BY dead_at DESC, id DESC))[1],
    (array_agg(error ORDER BY dead_at DESC, id DESC))[1],
    (array_agg(traceback ORDER BY dead_at DESC, id DESC))[1],
    min(dead_at), max(dead_at), count(*),
    count(*) FILTER (WHERE state = 'open'),
    count(*) FILTER (WHERE state = 'superseded'),
    count(*) FILTER (WHERE run > 0)
FROM new GROUP BY fingerprint ORDER BY fingerprint
ON CONFLICT (fingerprint) DO UPDATE SET
    error = CASE WHEN excluded.last_at >= g.last_at THEN excluded.error ELSE g.error END,
    traceback =
        CASE WHEN excluded.last_at >= g.last_at THEN excluded.traceback ELSE g.traceback END,
    first_at = LEAST(g.first_at, excluded.first_at),
    last_at = GREATEST(g.last_at, excluded.last_at),
    total = g.total + excluded.total,
    open = g.open + excluded.open,
    superseded = g.superseded + excluded.superseded,
    died_again = g.died_again + excluded.died_again
RETURNING xmax = 0 AS is_new
)
SELECT actor, queue, reason, count(*), (SELECT count(*) FROM merged WHERE is_new)
FROM new GROUP BY actor, queue, reason
"""
ANY_CANCELLATION = "SELECT EXISTS (SELECT 1 FROM cancellations WHERE closed_at IS NULL)"
#: The jobs have ended, as somebody wanted or otherwise (see `leveret.ledger.cancel`).
CLOSE_CANCELLATIONS = f"""
UPDATE cancellations AS c SET closed_at = clock_timestamp() FROM {JOBS.name} AS b
WHERE c.job_id = b.id AND c.run = b.run AND b.settled > 0 AND c.closed_at IS NULL
"""
ANY_OPEN = "SELECT EXISTS (SELECT 1 FROM dead_letters WHERE state = 'open')"
SUPERSEDE = f"""
WITH locked AS (
    SELECT d.id FROM dead_letters AS d JOIN {JOBS.name} AS b ON d.job_id = b.id
    WHERE b.settled = 2 AND d.state = 'open' AND d.run <= b.run
    ORDER BY d.id FOR UPDATE OF d
), done AS (
    UPDATE dead_letters AS d SET state = 'superseded', resolved_at = now()
    FROM locked WHERE d.id = locked.id AND d.state = 'open'
    RETURNING d.fingerprint
)
UPDATE dead_letter_groups AS g SET open = g.open - n, superseded = g.superseded + n
FROM (SELECT fingerprint, count(*) AS n FROM done GROUP BY fingerprint) AS counted
WHERE g.fingerprint = counted.fingerprint
"""

# ------------------------------------------------------------------------------ workers, rejects

BEAT = """
INSERT INTO workers AS w (id, queues, threads, running, first_seen_at, seen_at, beat_at)
VALUES (%s, %s, %s, %s, now(), now(), to_timestamp(%s))
ON CONFLICT (id) DO UPDATE SET
    queues = excluded.queues, threads = excluded.threads, running = excluded.running,
    seen_at = excluded.seen_at, beat_at = excluded.beat_at, gone_at = NULL
WHERE excluded.beat_at > w.beat_at
"""
REJECT = """
INSERT INTO ledger_rejects (queue, routing_key, error, properties, body)
VALUES (%s, %s, %s, %s, %s)
"""

# ---------------------------------------------------------------------------------- COPY's own text

_SPECIAL = re.compile("[\\\\\t\n\r\0]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\N{REPLACEMENT CHARACTER}"}


def _escape(match: re.Match[str]) -> str:
    return _ESCAPES[match[0]]


def _text(value: str | None) -> str:
    if value is None:
        return "\\N"
    return value if _SPECIAL.search(value) is None else _SPECIAL.sub(_escape, value)


def _bytes(value: bytes | None) -> str:
    return "\\N" if value is None else f"\\\\x{value.hex()}"


def _number(value: int | None) -> str:
    return "\\N" if value is None else str(value)


def _time(value: float | None) -> str:
    return "\\N" if value is None else repr(value)


_NO_CONTENT = "\t".join(["\\N"] * (len(_CONTENT) - 2))
_NO_PROGRESS = "\\N\t\\N\t\\N"


def job_line(change: JobChange, created_at: float) -> str:
    """Write a job's change as a line for ``COPY``."""
    content = change.content
    if content is None:
        said = f"{_text(change.actor)}\t{_text(change.queue)}\t{_NO_CONTENT}"
    else:
        (
            actor, queue, key, content_type, body, headers, properties, priority, correlation_id,
            app_id, idempotency_key, traceparent, expires_at, published_at,
        ) = content  # fmt: skip
        said = (
            f"{_text(actor or change.actor)}\t{_text(queue or change.queue)}\t{_text(key)}\t"
            f"{_text(content_type)}\t{_bytes(body)}\t{_text(headers)}\t{_bytes(properties)}\t"
            f"{_number(priority)}\t{_text(correlation_id)}\t"
            f"{_text(app_id)}\t{_text(idempotency_key)}\t{_text(traceparent)}\t"
            f"{_time(expires_at)}\t{_time(published_at)}"
        )
    (
        run, settled, attempt, event_at, kind, state, due_at, started_at, finished_at, worker,
        reason, error_type, error, result, result_ref, result_lost,
    ) = change.standing  # fmt: skip
    at = "-Infinity" if event_at == LONG_AGO else repr(event_at)
    given = "\\N" if result is None else _bytes(result.encode(errors="backslashreplace"))
    progress = change.progress
    how_far = (
        _NO_PROGRESS
        if progress is None
        else f"{progress.at!r}\t{progress.share!r}\t{_text(progress.note)}"
    )
    return (
        f"{_text(change.id)}\t{created_at!r}\t{said}\t"
        f"{run}\t{settled}\t{attempt}\t{at}\t{int(kind)}\t{state}\t{_time(due_at)}\t"
        f"{_time(started_at)}\t{_time(finished_at)}\t{_text(worker)}\t{_text(reason)}\t"
        f"{_text(error_type)}\t{_text(error)}\t{given}\t{_text(result_ref)}\t"
        f"{_text(result_lost)}\t{how_far}\n"
    )


def attempt_line(job_id: str, created_at: float, event: AttemptEvent) -> str:
    """Write a run as a line for ``COPY``."""
    (
        run, attempt, started_at, _, ended_at, due_at, outcome, worker, queue, reason, error_type,
        error, trace,
    ) = event  # fmt: skip
    return (
        f"{_text(job_id)}\t{created_at!r}\t{run}\t{attempt}\t{started_at!r}\t{_time(ended_at)}\t"
        f"{_time(due_at)}\t{outcome}\t{_text(worker)}\t{_text(queue)}\t{_text(reason)}\t"
        f"{_text(error_type)}\t{_text(error)}\t{_text(trace)}\n"
    )


def letter_line(letter: DeadLetterEvent, created_at: float | None, *, may_repeat: bool) -> str:
    """Write a dead letter as a line for ``COPY``."""
    return (
        f"{_text(letter.key)}\t{'t' if may_repeat else 'f'}\t{_text(letter.job_id)}\t"
        f"{_time(created_at)}\t{letter.run}\t{letter.attempt}\t{_text(letter.actor)}\t"
        f"{_text(letter.queue)}\t{_text(letter.routing_key)}\t{_text(letter.exchange)}\t"
        f"{_text(letter.reason)}\t{_text(letter.error_type)}\t{_text(letter.error)}\t"
        f"{_text(letter.traceback)}\t{letter.fingerprint}\t{_bytes(letter.body)}\t"
        f"{_bytes(letter.properties)}\t{_text(letter.headers)}\t{letter.dead_at!r}\n"
    )
