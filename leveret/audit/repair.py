"""Doing what an audit proposes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import text

from leveret.audit.verdict import Finding, Kind
from leveret.ledger.retry import republish
from leveret.schedules import repair as slots

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["repair"]

# Each statement looks again: what has changed since the audit is left alone.
_WAITS = text(
    "UPDATE jobs SET state = 'queued', worker = NULL, updated_at = now()"
    " WHERE id = :id AND state = 'running'"
)
_DEAD = text(
    "UPDATE jobs j SET state = 'dead', settled = 1, reason = d.reason, error_type = d.error_type,"
    "   error = d.error, finished_at = d.dead_at, event_at = d.dead_at, updated_at = now()"
    " FROM dead_letters d WHERE j.id = :id AND d.job_id = j.id AND d.run = j.run"
    "   AND d.state = 'open'"
    "   AND j.state IN ('scheduled', 'queued', 'running', 'retrying')"
)
_SUPERSEDE = text(
    "WITH closed AS ("
    "  UPDATE dead_letters d SET state = 'superseded', resolved_at = now(), resolved_by = 'audit'"
    "  FROM jobs j WHERE d.job_id = :id AND j.id = d.job_id AND j.run >= d.run"
    "    AND j.state = 'succeeded' AND d.state = 'open' RETURNING d.fingerprint)"
    " UPDATE dead_letter_groups g SET open = g.open - c.n, superseded = g.superseded + c.n"
    " FROM (SELECT fingerprint, count(*) AS n FROM closed GROUP BY fingerprint) c"
    " WHERE g.fingerprint = c.fingerprint"
)
_RELEASE = text(
    "UPDATE claims SET state = 'released', lease_until = NULL"
    " WHERE job_id = :id AND state = 'running' AND lease_until < now()"
)
_TRY = text(
    "UPDATE leveret_outbox SET error = NULL, hold_until = '-infinity'"
    " WHERE job_id = :id AND error IS NOT NULL"
)
_TAKE_OUT = text("DELETE FROM leveret_outbox WHERE job_id = :id")
_LETTER = text(
    "INSERT INTO dead_letters (key, job_id, job_created_at, run, attempt, actor, queue,"
    "   routing_key, reason, error_type, error, fingerprint, body, properties, headers, dead_at)"
    " SELECT 'audit:' || id || ':' || run, id, created_at, run, attempt, actor, queue,"
    "   coalesce(routing_key, ''), coalesce(reason, 'unknown'), error_type, error, :fingerprint,"
    "   coalesce(body, ''), coalesce(properties, ''), headers, coalesce(finished_at, now())"
    " FROM jobs WHERE id = :id AND state IN ('dead', 'expired')"
    " ON CONFLICT (key) DO NOTHING"
)
_GROUP = text(
    "INSERT INTO dead_letter_groups (fingerprint, actor, reason, error_type, error, first_at,"
    "   last_at, total, open)"
    " SELECT fingerprint, actor, reason, error_type, error, dead_at, dead_at, 1, 1"
    " FROM dead_letters WHERE job_id = :id AND fingerprint = :fingerprint"
    " ORDER BY id DESC LIMIT 1"
    " ON CONFLICT (fingerprint) DO UPDATE SET total = dead_letter_groups.total + 1,"
    "   open = dead_letter_groups.open + 1, last_at = excluded.last_at"
)
_ROW = text(
    "WITH letter AS (SELECT * FROM dead_letters WHERE job_id = :id ORDER BY id DESC LIMIT 1),"
    " remembered AS (INSERT INTO job_ids (id, created_at) SELECT job_id, now() FROM letter"
    "   ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING id, created_at)"
    " INSERT INTO jobs (id, created_at, actor, queue, routing_key, body, properties, headers,"
    "   state, run, attempt, finished_at, reason, error_type, error, settled, event_at)"
    " SELECT r.id, r.created_at, l.actor, l.queue, l.routing_key, l.body, l.properties,"
    "   l.headers, 'dead', l.run, l.attempt, l.dead_at, l.reason, l.error_type, l.error, 1,"
    "   l.dead_at"
    " FROM letter l JOIN remembered r ON r.id = l.job_id"
    " ON CONFLICT DO NOTHING"
)

_SIMPLE = {
    Kind.NOT_RUNNING: _WAITS,
    Kind.NOT_DEAD: _DEAD,
    Kind.NOT_SUPERSEDED: _SUPERSEDE,
    Kind.CLAIM_HELD: _RELEASE,
    Kind.OUTBOX_FAILED: _TRY,
    Kind.OUTBOX_STALE: _TAKE_OUT,
    Kind.NO_ROW: _ROW,
}


def repair(
    connection: Connection,
    findings: Sequence[Finding],
    *,
    by: str = "audit",
    record: Callable[[Connection, Finding, bool], object],
) -> Mapping[Finding, bool]:
    """Do what each finding's remedy says, a transaction for each; tell whether it was done.

    What has changed since the audit is left alone, and so is a lost job of which the ledger has no
    copy. ``record`` is called in the transaction, to write the audit log; ``by`` is who wants it.
    """
    done = {}
    for finding in findings:
        changed = _apply(connection, finding, by)
        record(connection, finding, changed)
        connection.commit()
        done[finding] = changed
    return done


def _apply(connection: Connection, finding: Finding, by: str) -> bool:
    if finding.kind is Kind.LOST:
        return republish(connection, finding.subject)
    if finding.schedule is not None:
        return _apply_to_schedule(connection, finding, finding.schedule, by)
    values = {"id": finding.subject}
    if finding.kind is Kind.NO_DEAD_LETTER:
        # Alone in its group: how it failed is not known any more.
        digest = hashlib.sha256(f"audit\0{finding.detail}".encode()).hexdigest()[:16]
        values["fingerprint"] = digest
        if not connection.execute(_LETTER, values).rowcount:
            return False
        connection.execute(_GROUP, values)
        return True
    return bool(connection.execute(_SIMPLE[finding.kind], values).rowcount)


def _apply_to_schedule(connection: Connection, finding: Finding, schedule: str, by: str) -> bool:
    match finding.kind, finding.slot:
        case Kind.SCHEDULE_GAP, datetime() as slot:
            return slots.fire(connection, schedule, slot, by=by)
        case Kind.SLOT_WITHOUT_JOB, datetime() as slot:
            return slots.publish_again(connection, schedule, slot)
    return False
