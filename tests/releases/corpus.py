"""The wire of a release: a message of each kind that its processes write, and how it read them.

They are written by the code that writes them in production, with its clock stopped, so that the
same tree writes the same file. Together with the database that `tests.releases.database` makes they
are one scene: a release that was stopped in the middle of its work, on 31 January 2026 at noon.
"""

from __future__ import annotations

import base64
import json
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any
from unittest import mock

import pika

from leveret import names
from leveret.control import CONTROL_TYPE, decode_cancel, encode_cancel
from leveret.errors import InvalidJob
from leveret.ledger.batch import _RECORDS_TYPE
from leveret.ledger.event import Malformed, Message
from leveret.ledger.letter import read_dead_letter
from leveret.ledger.record import read_records
from leveret.ledger.tap import read_published
from leveret.message import Job, Reason, decode, encode, encode_arguments
from leveret.outbox.row import entry_of
from leveret.outcome import Cancelled, Dead, Expired, Quarantine, Retry, Returned, Snooze, Succeeded
from leveret.worker import copies, records
from leveret.worker.delivery import Delivery, Session
from services.relay.message import Held, Row, message_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "NOW",
    "Posted",
    "covers",
    "encoded",
    "jobs",
    "messages",
    "outbox",
    "read",
    "read_row",
    "stopped_clock",
]

#: When the scene was frozen.
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
WORKER = "worker@frozen:1"
_STAMP = NOW.timestamp()


@dataclass(frozen=True, kw_only=True)
class Posted:
    """A message, and where it was published."""

    #: What it is here for.
    name: str
    exchange: str
    routing_key: str
    properties: pika.BasicProperties
    body: bytes
    #: The queue in which its reader finds it.
    queue: str


def job_id(number: int) -> str:
    """Return the id of one of the scene's jobs."""
    milliseconds = f"{int(_STAMP * 1000):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7000-8000-{number:012x}"


def jobs() -> dict[str, Job]:
    """Return the jobs of the scene, by what becomes of them."""
    plain = Job(actor="note.keep", arguments={"text": "ünï©ode ✓", "n": 1}, id="", queue="default")
    made = {
        "done": plain,
        "waiting": replace(plain, queue=None, priority=3, correlation_id="order-1", app_id="shop"),
        "running": plain,
        "retrying": replace(plain, max_retries=2),
        "snoozed": plain,
        "returned": plain,
        "quarantined": plain,
        "scheduled": replace(plain, due_at=NOW + timedelta(seconds=1)),
        "replayed": replace(plain, run=1),
        "traced": replace(
            plain,
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            tracestate="vendor=1",
        ),
        "slot": replace(plain, schedule="nightly", slot=NOW),
        "once": replace(plain, once=True, idempotency_key="payment-1"),
        "unique": replace(
            plain,
            idempotency_key="report-1",
            unique_for=timedelta(hours=1),
            unique_until="done",
            on_conflict="replace",
        ),
        "expiring": replace(plain, expires_at=NOW + timedelta(hours=1)),
        "cancelled": plain,
        "failing": replace(plain, actor="note.fail"),
        "dead": replace(plain, actor="note.fail"),
        "unrecorded": plain,
        "in-outbox": replace(plain, priority=5, correlation_id="order-2"),
        "unwanted": replace(plain, actor="no.body", queue="nowhere"),
        "strange": replace(plain, actor="nobody.knows"),
    }
    return {
        name: replace(job, id=job_id(number)) for number, (name, job) in enumerate(made.items(), 1)
    }


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Let what writes messages believe that it is `NOW`, and that ids are not made up."""
    numbers = iter(range(0xF000, 0xFFFF))

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return NOW.astimezone(tz)

    with ExitStack() as stack:
        for target, name, value in (
            ("leveret.message.moment", "datetime", Stopped),
            ("leveret.ledger.writer", "datetime", Stopped),
            ("leveret.store.partition", "datetime", Stopped),
            ("leveret.worker.copies", "new_id", lambda: job_id(next(numbers))),
        ):
            stack.enter_context(mock.patch(f"{target}.{name}", value))
        yield


def messages() -> list[Posted]:
    """Return a message of each kind, as this tree's processes write it."""
    with stopped_clock():
        return [
            *_published(),
            *_foreign(),
            *_copies(),
            *_records(),
            *_broker_letters(),
            *_control(),
        ]


# ------------------------------------------------------------------------------------- who writes


def _posted(name: str, job: Job) -> Posted:
    exchange, key, properties = encode(job, timestamp=_STAMP)
    return Posted(
        name=name,
        exchange=exchange,
        routing_key=key,
        properties=properties,
        body=encode_arguments(job.arguments),
        queue=names.work_queue(job.queue or "default"),
    )


#: Jobs that are nowhere but in the database, or of which a worker has published a copy.
_ELSEWHERE = ("done", "retrying", "snoozed", "returned", "quarantined", "dead", "in-outbox")


def _published() -> Iterator[Posted]:
    """Write what publishers write."""
    yield from (_posted(name, job) for name, job in jobs().items() if name not in _ELSEWHERE)


def _foreign() -> Iterator[Posted]:
    """Write what others do, who have the wire contract and nothing else."""

    def post(name: str, body: bytes, key: str = "default.note.keep", **properties: Any) -> Posted:
        return Posted(
            name=name,
            exchange=names.JOBS,
            routing_key=key,
            properties=pika.BasicProperties(**properties),
            body=body,
            queue=names.work_queue("default"),
        )

    yield post("foreign: an id of its own", b'{"text": "a", "n": 2}', message_id="order-4711")
    yield post(
        "foreign: stock Dramatiq",
        json.dumps(
            {
                "queue_name": "default",
                "actor_name": "note.keep",
                "args": ["b"],
                "kwargs": {"n": 3},
                "options": {"retries": 1},
                "message_id": "3b4f0d2e-0000-4000-8000-000000000001",
                "message_timestamp": int(_STAMP * 1000),
            }
        ).encode(),
    )
    yield post("foreign: times as AMQP has them", b'{"text": "c", "n": 4}', message_id="stamp-1",
        headers={"x-leveret-expires-at": datetime(2099, 1, 1, tzinfo=UTC)})  # fmt: skip
    yield post("foreign: no JSON", b"{not json", message_id="bad-1")
    yield post("foreign: arguments that the actor refuses", b'{"n": "many"}', message_id="bad-2")
    yield post("foreign: a header that is none", b"{}", message_id="bad-3",
        headers={"x-leveret-attempt": "first"})  # fmt: skip


def _delivery(job: Job, *, started: bool = True) -> Delivery:
    _, key, properties = encode(job, timestamp=_STAMP)
    made = Delivery(
        Session(None, job.queue or "default", names.work_queue(job.queue or "default")),
        1,
        key,
        properties,
        encode_arguments(job.arguments),
    )
    made.job = job
    if started:
        made.started_at, made.ended_at = _STAMP + 1, _STAMP + 2
    return made


def _copies() -> Iterator[Posted]:
    """Write what workers publish of a delivery."""
    all_jobs = jobs()
    error = OSError("no mail server")
    for name, queue, made in (
        ("retrying", names.work_queue("default"), copies.delayed(
            _delivery(all_jobs["retrying"]), Retry(timedelta(milliseconds=500), error))),
        ("snoozed", names.work_queue("default"), copies.delayed(
            _delivery(all_jobs["snoozed"]), Snooze(timedelta(milliseconds=300), "not yet"))),
        ("returned", names.work_queue("default"), copies.returned(
            _delivery(all_jobs["returned"], started=False), Returned(kills=1))),
        ("quarantined", names.quarantine_queue("default"), copies.suspect(
            _delivery(all_jobs["quarantined"], started=False), Quarantine(2))),
        ("dead", names.dead_queue("default"), copies.dead_letter(
            _delivery(all_jobs["dead"]), Dead(Reason.EXHAUSTED, error))),
        ("expired", names.dead_queue("default"), copies.dead_letter(
            _delivery(all_jobs["expiring"], started=False), Expired("too late"))),
    ):  # fmt: skip
        exchange, key, properties = made
        yield Posted(
            name=f"copy: {name}",
            exchange=exchange,
            routing_key=key,
            properties=properties,
            body=encode_arguments(next(iter(all_jobs.values())).arguments),
            queue=queue,
        )


def _records() -> Iterator[Posted]:
    """Write what workers tell the ledger."""
    all_jobs = jobs()
    error = OSError("no mail server")

    def group(name: str, *written: bytes) -> Posted:
        return Posted(
            name=f"records: {name}",
            exchange=names.OUTCOMES,
            routing_key="",
            properties=pika.BasicProperties(
                content_type="application/json", delivery_mode=2, type=_RECORDS_TYPE
            ),
            body=records.encode_group(WORKER, list(written)),
            queue=names.LEDGER,
        )

    def told(job: str, outcome: Any, *, started: bool = True) -> bytes:
        return records.encode_record(_delivery(all_jobs[job], started=started), outcome, _STAMP + 2)

    yield group("succeeded", told("done", Succeeded({"kept": "ünï©ode ✓"})))
    yield group("a result elsewhere", told("unrecorded", Succeeded(ref="2026/01/31/result.json")))
    yield group("started", records.started(_delivery(all_jobs["running"])))
    yield group(
        "unsettled",
        told("retrying", Retry(timedelta(milliseconds=500), error)),
        told("snoozed", Snooze(timedelta(milliseconds=300), "not yet")),
        told("quarantined", Quarantine(2), started=False),
    )
    yield group("dead", told("dead", Dead(Reason.EXHAUSTED, error)))
    yield group("expired", told("expiring", Expired("too late"), started=False))
    yield group("cancelled", told("cancelled", Cancelled("somebody wants it"), started=False))
    yield group("a replay", told("replayed", Succeeded(done_by=job_id(1))))
    yield group("heartbeat", records.heartbeat(["default", "bulk"], 8, [job_id(3)], _STAMP + 5))
    report = mock.Mock(at=_STAMP + 1.5, progress=0.5, note="half of it")
    yield group("progress", records.progress(_delivery(all_jobs["running"]), report))


def _broker_letters() -> Iterator[Posted]:
    """Write what the broker gives up by itself."""
    job = jobs()["waiting"]
    _, key, properties = encode(job, timestamp=_STAMP)
    headers = properties.headers or {}
    headers["x-death"] = [
        {
            "count": 1,
            "reason": "delivery_limit",
            "queue": "leveret.default",
            "time": datetime(2026, 1, 31, 12, 0, 9),  # noqa: DTZ001 - as pika reads it
            "exchange": "leveret.route",
            "routing-keys": [key],
        }
    ]
    properties.headers = headers
    body = encode_arguments(job.arguments)
    yield Posted(
        name="letter: given up by the broker",
        exchange=names.DEAD,
        routing_key="default",
        properties=properties,
        body=body,
        queue=names.dead_queue("default"),
    )
    job = jobs()["unwanted"]
    _, key, properties = encode(job, timestamp=_STAMP)
    yield Posted(
        name="letter: unroutable",
        exchange=names.JOBS,
        routing_key=key,
        properties=properties,
        body=body,
        queue=names.UNROUTABLE,
    )


def _control() -> Iterator[Posted]:
    """Write what every worker is told."""
    yield Posted(
        name="control: cancel",
        exchange=names.CONTROL,
        routing_key="",
        properties=pika.BasicProperties(content_type="application/json", type=CONTROL_TYPE),
        body=encode_cancel({jobs()["cancelled"].id: 0, jobs()["replayed"].id: 1}),
        queue="leveret.control.frozen",
    )


def outbox() -> list[dict[str, Any]]:
    """Return rows of the outbox, by their columns: a job's, and a replay's."""
    with stopped_clock():
        wanted = jobs()["in-outbox"]
        entry = entry_of(wanted, now=_STAMP)
        _, key, properties = encode(jobs()["replayed"], timestamp=_STAMP)
    return [
        {
            "job_id": entry.job_id,
            "actor": entry.actor,
            "queue": entry.queue,
            "body": _text(entry.body),
            "options": entry.options,
        },
        {
            "job_id": jobs()["replayed"].id,
            "actor": "note.keep",
            "body": _text(encode_arguments(jobs()["replayed"].arguments)),
            "properties": _text(encoded(properties)),
            "routing_key": key,
        },
    ]


# -------------------------------------------------------------------------------------- who reads


def read(posted: Posted) -> dict[str, Any]:
    """Return what the readers of this tree make of a message, as JSON."""
    message = Message(
        posted.queue,
        posted.exchange,
        posted.routing_key,
        posted.properties,
        posted.body,
        redelivered=False,
    )
    found: dict[str, Any] = {}
    if posted.exchange == names.CONTROL:
        found["cancels"] = decode_cancel(posted.properties.type, posted.body)
    elif posted.exchange == names.OUTCOMES:
        found["events"] = [
            str(event) if isinstance(event, Malformed) else event._asdict()
            for event in read_records(posted.body)
        ]
    elif posted.queue.startswith(names.DEAD) or posted.queue == names.UNROUTABLE:
        letter, event = read_dead_letter(message, received_at=_STAMP + 10)
        found["letter"] = letter._asdict()
        found["event"] = None if event is None else event._asdict()
    else:
        try:
            job = decode(posted.properties, posted.routing_key, posted.body)
        except InvalidJob as error:
            found["refused"] = str(error.reason)
        else:
            found["job"] = asdict(replace(job, id="(new)") if job.id_assigned else job)
        if posted.exchange in (names.JOBS, names.DELAY):
            tap = read_published(message)
            found["tap"] = None if tap is None else tap._asdict()
    return json.loads(json.dumps(_plain(found)))


def read_row(columns: dict[str, Any]) -> dict[str, Any]:
    """Return what a relay of this tree makes of a row of the outbox, as JSON."""
    body = base64.b64decode(columns["body"])
    properties = columns.get("properties")
    row = Row(
        id=1,
        job_id=columns["job_id"],
        actor=columns["actor"],
        queue=columns.get("queue"),
        options=columns.get("options"),
        due_at=None,
        properties=None if properties is None else base64.b64decode(properties),
        routing_key=columns.get("routing_key"),
        body=body,
        body_bytes=len(body),
    )
    message = message_of(row, now=_STAMP)
    assert not isinstance(message, Held)
    again = pika.BasicProperties().decode(encoded(message.properties))
    found = {
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "properties": vars(again),
    }
    return json.loads(json.dumps(_plain(found)))


def covers(new: object, old: object) -> bool:
    """Tell whether ``new`` says all that ``old`` says; it may say more."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(name in new and covers(new[name], value) for name, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(covers, new, old))
    return bool(new == old)


def encoded(properties: pika.BasicProperties) -> bytes:
    """Return properties as they are on the wire."""
    return b"".join(properties.encode())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _plain(value: object) -> Any:  # noqa: PLR0911 - a return for each type
    match value:
        case Enum():
            return value.value
        case dict():
            return {str(name): _plain(part) for name, part in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return _plain(value._asdict())
        case list() | tuple():
            return [_plain(part) for part in value]
        case bytes():
            return _text(value)
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case float() if value in (float("inf"), float("-inf")):
            return str(value)
    return value
