"""Publishing over HTTP: what is accepted is kept, what is wrong is named."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from urllib.parse import quote

import httpx
import pika
import pytest
from sqlalchemy import func, select

from leveret.message import decode, new_id
from leveret.store.schema import AuditEntry, JobRow, OutboxRow

SHIP = {"actor": "order.ship", "arguments": {"order": 1, "to": "Ada"}}


def outbox(api, job_id):
    """Return the outbox rows of a job."""
    with api.engine.begin() as connection:
        return connection.execute(
            select(OutboxRow.actor, OutboxRow.queue, OutboxRow.body, OutboxRow.options).where(
                OutboxRow.job_id == job_id
            )
        ).all()


def count_jobs(api):
    """Count the jobs of the ledger."""
    with api.engine.begin() as connection:
        return connection.execute(select(func.count()).select_from(JobRow)).scalar_one()


def test_an_accepted_job_is_found_at_once(api, client):
    """At its Location, with what was published; it waits in the outbox for a relay."""
    answer = client.post(
        "/v1/jobs",
        json={
            **SHIP,
            "correlation_id": "order-1",
            "priority": 3,
            "max_retries": 2,
            "expires_in": 3600,
            "idempotency_key": "ship-1",
            "once": True,
        },
        headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    )
    assert answer.status_code == 202
    accepted = answer.json()
    assert (accepted["state"], accepted["queue"], accepted["existed"]) == (
        "queued",
        "critical",
        False,
    )
    job = client.get(answer.headers["Location"]).json()
    assert job["id"] == accepted["id"]
    assert job["arguments"] == SHIP["arguments"]
    assert (job["correlation_id"], job["idempotency_key"]) == ("order-1", "ship-1")
    assert (job["priority"], job["app_id"], job["attempt"], job["run"]) == (3, "test", 1, 0)
    assert job["traceparent"].startswith("00-0af7")
    assert job["expires_at"] > job["published_at"]
    (row,) = outbox(api, accepted["id"])
    assert (row.actor, row.queue, json.loads(row.body)) == ("order.ship", None, SHIP["arguments"])
    assert row.options["once"] is True
    assert row.options["max_retries"] == 2


def test_the_ledger_keeps_the_message_as_a_worker_would_read_it(api, client):
    """Its properties and body decode to the job that was asked for."""
    at = datetime.now(UTC) + timedelta(hours=2)
    job_id = client.post("/v1/jobs", json={**SHIP, "queue": "bulk", "at": at.isoformat()}).json()[
        "id"
    ]
    with api.engine.begin() as connection:
        row = connection.execute(
            select(
                JobRow.properties, JobRow.routing_key, JobRow.body, JobRow.state, JobRow.queue
            ).where(JobRow.id == job_id)
        ).one()

    properties = pika.BasicProperties()
    properties.decode(row.properties)
    job = decode(properties, row.routing_key, row.body)
    assert (job.id, job.actor, job.queue) == (job_id, "order.ship", "bulk")
    assert abs(job.due_at - at) < timedelta(milliseconds=2)
    assert (row.state, row.queue) == ("scheduled", "bulk")


def test_a_unique_job_has_a_key(client):
    """Its own, or one made of its arguments, by which later ones are known."""
    job = {**SHIP, "unique_for": 60, "unique_until": "started", "on_conflict": "replace"}
    first, second = (client.post("/v1/jobs", json=job) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    keys = [client.get(a.headers["Location"]).json()["idempotency_key"] for a in (first, second)]
    assert keys[0] is not None
    assert keys[0] == keys[1]


def test_a_job_may_be_due_after_years(api, client):
    """Longer than the delay wheel reaches: it stays in the outbox."""
    answer = client.post("/v1/jobs", json={**SHIP, "delay": 86400 * 3650})
    assert answer.status_code == 202
    assert answer.json()["state"] == "scheduled"
    assert len(outbox(api, answer.json()["id"])) == 1


@pytest.mark.parametrize(
    ("job", "pointer", "reason"),
    [
        ({"actor": "order.nosuch"}, "/actor", "unknown-actor"),
        ({"actor": "order.ship", "arguments": {"to": "x"}}, "/arguments/order", "bad-arguments"),
        (
            {"actor": "order.ship", "arguments": {"order": "many", "to": "x"}},
            "/arguments/order",
            "bad-arguments",
        ),
        (
            {"actor": "order.ship", "arguments": {"order": 1, "to": "x", "a/b~c": 1}},
            "/arguments/a~1b~0c",
            "bad-arguments",
        ),
        (
            {
                "actor": "order.ship",
                "arguments": {"order": 1, "to": "x", "items": [{"sku": "a"}, {"count": 1}]},
            },
            "/arguments/items/1/sku",
            "bad-arguments",
        ),
        ({**SHIP, "queue": "nosuch"}, "/queue", "unknown-queue"),
        ({**SHIP, "delay": 1, "at": "2031-01-01T00:00:00Z"}, "/at", "bad-property"),
        ({**SHIP, "at": "2031-01-01T00:00:00"}, "/at", "timezone-aware"),
        ({**SHIP, "at": 2000000000}, "/at", "value-error"),
        ({**SHIP, "delay": -1}, "/delay", "greater-than-equal"),
        ({**SHIP, "delay": "5"}, "/delay", "float-type"),
        ({**SHIP, "priority": 256}, "/priority", "less-than-equal"),
        ({**SHIP, "id": ""}, "/id", "string-too-short"),
        ({**SHIP, "id": "a\0b"}, "/id", "value-error"),
        ({**SHIP, "id": "ü" * 128}, "/id", "value-error"),
        ({**SHIP, "queu": "bulk"}, "/queu", "extra-forbidden"),
        ({**SHIP, "arguments": [1]}, "/arguments", "dict-type"),
        ({"arguments": {}}, "/actor", "missing"),
        ([], "", "model-attributes-type"),
    ],
)
def test_what_is_wrong_is_named(client, job, pointer, reason):
    """By a pointer to it, with a word for programs."""
    answer = client.post("/v1/jobs", json=job)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 422
    assert (problem["errors"][0].get("pointer"), problem["errors"][0]["reason"]) == (
        pointer,
        reason,
    )


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b'{"actor": "order.note", "arguments": {"text": "a", "text": "b"}}',
        b'{"actor": "order.note", "arguments": {"text": NaN}}',
        b'{"actor": "order.note", "arguments": {"text": "\\ud800"}}',
        b'{"actor": "order.note", "arguments": {"text": "\xff"}}',
        b'{"actor": "order.note", "arguments": {"text": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
        b'{"actor": "order.note", "priority": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_body_that_cannot_be_read_is_refused(client, body):
    """As a bad request, or as one without what it needs; never as an error of the server."""
    answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("depth", "status"), [(63, 202), (64, 422), (66, 400)])
def test_arguments_deeper_than_a_worker_reads_are_refused(client, depth, status):
    """They would be a dead letter; the object of the arguments is a level, too."""
    value = "[" * depth + "]" * depth
    answer = client.post(
        "/v1/jobs",
        content=f'{{"actor": "order.keep", "arguments": {{"value": {value}}}}}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_another_kind_of_body_is_refused(client, headers):
    """A job is written as plain JSON."""
    answer = client.post("/v1/jobs", content=json.dumps(SHIP).encode(), headers=headers)
    assert answer.status_code == 415


def test_a_body_that_is_said_to_be_too_large_is_not_read(api):
    """The answer comes before any of it is sent."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.putrequest("POST", "/v1/jobs")
    connection.putheader("Authorization", f"Bearer {api.key('publish')}")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["type"] == "urn:leveret:problem:too-large"
    connection.close()


def test_a_body_that_becomes_too_large_is_not_read_on(client):
    """Without a length it is read up to the limit; then the server answers and hangs up."""

    def endless():
        while True:
            yield b" " * 65536

    try:
        answer = client.post(
            "/v1/jobs", content=endless(), headers={"content-type": "application/json"}
        )
    except httpx.WriteError:  # it hung up before we had read the answer
        return
    assert answer.status_code == 413


def test_arguments_that_are_too_large_are_refused(client):
    """Beyond the setting, although the request may just be read."""
    job = {"actor": "order.note", "arguments": {"text": "x" * (1024 * 1024)}}
    answer = client.post("/v1/jobs", json=job)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["reason"] == "too-large"


def test_the_same_id_is_the_same_job(api, client):
    """It is accepted again and published once; another job under the id is refused."""
    job = {**SHIP, "id": f"order/{new_id()}"}
    first, second = client.post("/v1/jobs", json=job), client.post("/v1/jobs", json=job)
    assert (first.status_code, second.status_code) == (202, 202)
    assert (first.json()["existed"], second.json()["existed"]) == (False, True)
    assert len(outbox(api, job["id"])) == 1
    other = client.post("/v1/jobs", json={**job, "arguments": {"order": 2, "to": "Ada"}})
    assert other.status_code == 409
    assert other.json()["errors"][0]["pointer"] == "/id"
    assert client.get(first.headers["Location"]).json()["id"] == job["id"]
    assert client.get(f"/v1/jobs/{quote(job['id'])}").json()["id"] == job["id"]


# ------------------------------------------------------------------------------- Idempotency-Key


def test_a_request_that_is_sent_again_gets_the_first_answer(api, client):
    """With the same job, and a header that says so; nothing is published twice."""
    headers = {"Idempotency-Key": new_id()}
    job = {**SHIP, "delay": 60}
    first = client.post("/v1/jobs", json=job, headers=headers)
    again = client.post("/v1/jobs", json=job, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(outbox(api, first.json()["id"])) == 1


def test_a_key_of_another_request_is_refused(client):
    """Other arguments, or another endpoint."""
    headers = {"Idempotency-Key": new_id()}
    assert client.post("/v1/jobs", json=SHIP, headers=headers).status_code == 202
    other = {**SHIP, "arguments": {"order": 1, "to": "Bob"}}
    for path, body in (("/v1/jobs", other), ("/v1/jobs/batch", {"jobs": [SHIP]})):
        answer = client.post(path, json=body, headers=headers)
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:leveret:problem:key-reused"


def test_an_idempotency_key_is_the_callers_own(api, client):
    """Another API key may use the same."""
    headers = {"Idempotency-Key": new_id()}
    first = client.post("/v1/jobs", json=SHIP, headers=headers)
    with api.client("publish") as other:
        second = other.post("/v1/jobs", json=SHIP, headers=headers)
    assert second.status_code == 202
    assert second.json()["id"] != first.json()["id"]


def test_requests_with_one_key_at_the_same_time_are_one(api, client):
    """Eight at once: each waits for the first and gets its answer."""
    headers = {"Idempotency-Key": new_id()}
    start = Barrier(8)

    def post(_number):
        start.wait()
        return client.post("/v1/jobs", json=SHIP, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert {answer.status_code for answer in answers} == {202}
    (job_id,) = {answer.json()["id"] for answer in answers}
    assert [a.headers.get("Idempotency-Replayed") for a in answers].count(None) == 1
    assert len(outbox(api, job_id)) == 1


def test_a_refused_request_leaves_its_key_free(client):
    """What was wrong can be put right under the same key."""
    headers = {"Idempotency-Key": new_id()}
    wrong = {"actor": "order.ship", "arguments": {}}
    assert client.post("/v1/jobs", json=wrong, headers=headers).status_code == 422
    assert client.post("/v1/jobs", json=SHIP, headers=headers).status_code == 202


# ------------------------------------------------------------------------------------------ batch


def test_a_batch_is_published_in_its_order(api, client):
    """A thousand jobs in one transaction; the outbox keeps their order."""
    jobs = [{"actor": "order.note", "arguments": {"text": str(n)}} for n in range(1000)]
    answer = client.post("/v1/jobs/batch", json={"jobs": jobs})
    assert answer.status_code == 202
    ids = [job["id"] for job in answer.json()["jobs"]]
    assert len(set(ids)) == 1000
    with api.engine.begin() as connection:
        rows = connection.execute(
            select(OutboxRow.job_id).where(OutboxRow.job_id.in_(ids)).order_by(OutboxRow.id)
        ).scalars()
        assert list(rows) == ids
    assert client.get(f"/v1/jobs/{ids[-1]}").json()["arguments"] == {"text": "999"}


def test_a_batch_is_published_as_a_whole_or_not_at_all(api, client):
    """Each wrong job is named; nothing of the others is kept."""
    jobs = [SHIP, {"actor": "nosuch"}, {"actor": "order.ship", "arguments": {"to": "x"}}]
    before = count_jobs(api)
    answer = client.post("/v1/jobs/batch", json={"jobs": jobs})
    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == [
        "/jobs/1/actor",
        "/jobs/2/arguments/order",
    ]
    assert count_jobs(api) == before


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_has_its_bounds(client, count):
    """One job at least, a thousand at most."""
    answer = client.post("/v1/jobs/batch", json={"jobs": [SHIP] * count})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/jobs"


def test_a_batch_says_of_each_job_whether_it_was_there(client):
    """And refuses the same id twice within it."""
    known = {**SHIP, "id": new_id()}
    client.post("/v1/jobs", json=known)
    answer = client.post("/v1/jobs/batch", json={"jobs": [SHIP, known]})
    assert [job["existed"] for job in answer.json()["jobs"]] == [False, True]
    twice = client.post("/v1/jobs/batch", json={"jobs": [known, known]})
    assert twice.status_code == 422
    assert twice.json()["errors"][0]["pointer"] == "/jobs/1/id"


def test_publishing_is_in_the_audit_log(api, client):
    """Who published, from where, and which actors; not the arguments."""
    job_id = client.post("/v1/jobs", json=SHIP).json()["id"]
    with api.engine.begin() as connection:
        entry = connection.execute(
            select(AuditEntry.__table__).where(AuditEntry.target == job_id)
        ).one()
    assert entry.who.startswith("key:")
    assert (entry.action, entry.outcome, entry.address) == ("job.publish", "done", "127.0.0.1")
    assert entry.detail == {"jobs": 1, "actors": ["order.ship"]}
