"""Looking, cancelling, retrying, replaying and following over HTTP."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import func, select, text, update

from leveret.ledger import watch
from leveret.message import new_id
from leveret.store.schema import AuditEntry, JobRow, OutboxRow, WorkerRow
from services.api.streams import Streams
from tests.support import letters
from tests.support.waiting import wait_until

SHIP = {"actor": "order.ship", "arguments": {"order": 1, "to": "Ada"}}


def publish(client, **options) -> str:
    """Publish a job; return its id."""
    return client.post("/v1/jobs", json={**SHIP, **options}).json()["id"]


def become(api, job_id, state, **columns) -> None:
    """Have a job be in a state, as the recorder would write it, and tell who waits."""
    with api.engine.begin() as connection:
        connection.execute(
            update(JobRow)
            .where(JobRow.id == job_id)
            .values(state=state, updated_at=func.clock_timestamp(), **columns)
        )
        watch.notify(connection, [job_id])


def test_jobs_are_listed_in_pages(client):
    """Newest first, every job once, however small the pages."""
    order = new_id()
    ids = [publish(client, correlation_id=order) for _ in range(7)]
    found, cursor = [], None
    while True:
        query = {"correlation_id": order, "limit": 3, **({"cursor": cursor} if cursor else {})}
        page = client.get("/v1/jobs", params=query).json()
        found += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
        if cursor is None:
            break
        assert len(page["jobs"]) == 3
    assert found == ids[::-1]


def test_jobs_are_found_by_what_is_known_of_them(api, client):
    """Filters narrow together; an id is found as somebody pasted it."""
    order = new_id()
    one = publish(client, correlation_id=order, idempotency_key=f"k-{order}", queue="bulk")
    two = publish(client, correlation_id=order, delay=3600)
    become(api, one, "dead", reason="exhausted")

    def ids(**query):
        answer = client.get("/v1/jobs", params=query)
        assert answer.status_code == 200, answer.text
        return {job["id"] for job in answer.json()["jobs"]}

    assert ids(correlation_id=order) == {one, two}
    assert ids(correlation_id=order, state="dead") == {one}
    assert ids(correlation_id=order, state=["dead", "scheduled"]) == {one, two}
    assert ids(correlation_id=order, queue="bulk") == {one}
    assert ids(idempotency_key=f"k-{order}") == {one}
    assert ids(q=one) == {one}
    assert ids(q=order) == {one, two}
    assert ids(correlation_id=order, since="2100-01-01T00:00:00Z") == set()
    assert ids(correlation_id=order, until="2100-01-01T00:00:00Z", actor="order.ship") == {one, two}


@pytest.mark.parametrize(
    "query",
    [
        {"state": "lost"},
        {"limit": "201"},
        {"limit": "0"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"cursor": "x"},
        {"cursor": "WzEsIDIsIDNd"},
        {"actor": "a\0b"},
        {"nosuch": "1"},
        {"q": ""},
    ],
)
def test_a_query_that_makes_no_sense_is_refused(client, query):
    """By the name of the parameter."""
    answer = client.get("/v1/jobs", params=query)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"].startswith(next(iter(query)))


@pytest.mark.parametrize(
    "job_id",
    ["nosuch", "01a20163-0917-76fb-bac8-1709b5de8cca", "a%2Fb", "%00", "x" * 300, "%FF", "..%2F.."],
)
@pytest.mark.parametrize("part", ["", "/attempts", "/events"])
def test_a_job_that_is_not_there_is_not_found(client, job_id, part):
    """Whatever its id looks like."""
    answer = client.get(f"/v1/jobs/{job_id}{part}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_attempts_are_a_timeline(api, client):
    """The oldest first, with what each ended in."""
    job_id = publish(client)
    with api.engine.begin() as connection:
        for number, outcome in enumerate(("retrying", "succeeded"), start=1):
            connection.execute(
                text(
                    "INSERT INTO attempts (job_id, created_at, run, attempt, started_at, ended_at,"
                    " outcome, error) SELECT id, created_at, 0, :number, now(), now(), :outcome,"
                    " :error FROM jobs WHERE id = :id"
                ),
                {"id": job_id, "number": number, "outcome": outcome, "error": f"e{number}"},
            )
    found = client.get(f"/v1/jobs/{job_id}/attempts").json()["attempts"]
    assert [(a["attempt"], a["outcome"], a["error"]) for a in found] == [
        (1, "retrying", "e1"),
        (2, "succeeded", "e2"),
    ]


@pytest.mark.parametrize(
    ("body", "arguments", "base64"),
    [
        (b'{"a": NaN}', None, "eyJhIjogTmFOfQ=="),
        (b"\xff\x00", None, "/wA="),
        (b'"\\ud800"', None, "Ilx1ZDgwMCI="),
        (b'{"a": [1e999, "x"]}', {"a": ["inf", "x"]}, None),
        (b"", None, ""),
    ],
)
def test_a_job_of_any_bytes_can_be_shown(api, client, body, arguments, base64):
    """What others have published may be anything; JSON cannot hold all of it."""
    job_id = publish(client)
    with api.engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET body = :body, headers = :headers WHERE id = :id"),
            {"body": body, "headers": json.dumps({"x": "\ud800", "y": 1}), "id": job_id},
        )
    answer = client.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200
    job = answer.json()
    assert (job["arguments"], job["body_base64"]) == (arguments, base64)


# ------------------------------------------------------------------------------- waiting, following


def test_a_request_may_wait_for_a_jobs_end(api, client):
    """It is answered when the job has ended, with its result, long before its time is over."""
    job_id = publish(client)
    answers: list[httpx.Response] = []
    waiting = threading.Thread(
        target=lambda: answers.append(client.get(f"/v1/jobs/{job_id}", params={"wait": 60}))
    )
    waiting.start()
    become(api, job_id, "running")
    become(api, job_id, "succeeded", result=b'{"sent": 1}')
    waiting.join(50)
    assert answers[0].json()["state"] == "succeeded"
    assert answers[0].json()["result"] == {"sent": 1}


def test_waiting_ends_when_the_time_is_over(client):
    """With the job as it is; one that nobody knows is not found."""
    assert client.get(f"/v1/jobs/{publish(client)}?wait=0.2").json()["state"] == "queued"
    assert client.get(f"/v1/jobs/{new_id()}?wait=0.2").status_code == 404
    assert client.get(f"/v1/jobs/{new_id()}?wait=61").status_code == 422


def test_a_job_is_followed_to_its_end(api, client):
    """Server-sent events: where it stands, each change, and that it was the last."""
    job_id = publish(client)
    seen = []
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        event = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event == "state":
                data = json.loads(line.removeprefix("data: "))
                seen.append((data["state"], data["progress"]))
                if data["state"] == "queued":
                    become(api, job_id, "running", progress=0.4, progress_note="page 4")
                elif data["state"] == "running":
                    become(api, job_id, "succeeded")
    assert seen == [("queued", None), ("running", pytest.approx(0.4)), ("succeeded", 0.4)]
    assert event == "end"


def test_a_key_has_so_many_streams_and_the_server_in_all(api, client, monkeypatch):
    """One too many of a key is 429, one too many of all 503; a place is free when one has ended."""
    monkeypatch.setattr(api.app.state.context, "streams", Streams(per_key=2, in_all=3))
    streams = api.app.state.context.streams
    job_id = publish(client)
    url = f"/v1/jobs/{job_id}/events"
    with ExitStack() as stack:
        other = stack.enter_context(api.client("read"))
        follow = lambda who: stack.enter_context(who.stream("GET", url)).status_code  # noqa: E731
        assert [follow(client), follow(client), follow(other)] == [200, 200, 200]
        refused = client.get(url)
        assert refused.status_code == 429
        assert refused.json()["type"] == "urn:leveret:problem:too-many-streams"
        assert refused.headers["retry-after"] == "5"
        refused = other.get(url)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.headers["content-type"] == "application/problem+json"
    wait_until(lambda: streams.total == 0, what="the clients that went are noticed")
    become(api, job_id, "succeeded")
    assert client.get(url).status_code == 200
    wait_until(lambda: streams.total == 0, what="the stream that ended is counted no more")
    assert client.get("/v1/jobs/nosuch/events").status_code == 404
    assert streams.total == 0


# ----------------------------------------------------------------------------- cancelling, retrying


def test_a_job_that_was_not_sent_is_cancelled_at_once(api, client):
    """Its outbox row is gone, the workers are told, and it is in the audit log."""
    job_id = publish(client)
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["outcome"], answer.json()["told"]) == ("cancelled", True)
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
    with api.engine.begin() as connection:
        wanted = select(func.count()).select_from(OutboxRow).where(OutboxRow.job_id == job_id)
        assert connection.execute(wanted).scalar_one() == 0
        entry = connection.execute(
            select(AuditEntry.__table__).where(
                AuditEntry.target == job_id, AuditEntry.action == "job.cancel"
            )
        ).one()
    assert entry.who.startswith("key:")
    assert entry.address == "127.0.0.1"


def test_a_job_that_runs_is_not_cancelled(api, client):
    """It is said why."""
    job_id = publish(client)
    become(api, job_id, "running", worker="w1")
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 409
    assert "w1" in answer.json()["detail"]
    assert client.post("/v1/jobs/nosuch/cancel").status_code == 404


def test_a_cancelled_job_is_retried(client):
    """Under its id, as its next run."""
    job_id = publish(client)
    client.post(f"/v1/jobs/{job_id}/cancel")
    answer = client.post(f"/v1/jobs/{job_id}/retry")
    assert answer.status_code == 202, answer.text
    assert answer.json()["outcome"] == "queued"
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["run"]) == ("queued", 1)
    assert client.post(f"/v1/jobs/{job_id}/retry").status_code == 409
    assert client.post("/v1/jobs/nosuch/retry").status_code == 404


# ------------------------------------------------------------------------------------- dead letters


@pytest.fixture
def dead(api):
    """Store dead letters of two groups, of this test alone; return their fingerprints and ids."""
    names = [f"f-{new_id()}", f"g-{new_id()}"]
    with api.engine.begin() as connection:
        ids = [
            letters.put(
                connection,
                {"order": 1, "to": f"p{number}"},
                actor="order.ship",
                routing_key="any.order.ship",
                fingerprint=names[number % 2],
                dead_at=datetime.now(UTC) - timedelta(seconds=number),
            )
            for number in range(5)
        ]
    return names, ids


def test_dead_letters_are_looked_through(client, dead):
    """By group, in pages, and one with its bytes."""
    names, ids = dead
    first = client.get("/v1/dead-letters", params={"fingerprint": names[0], "limit": 2}).json()
    rest = client.get(
        "/v1/dead-letters", params={"fingerprint": names[0], "cursor": first["next"]}
    ).json()
    found = [letter["id"] for letter in first["dead_letters"] + rest["dead_letters"]]
    assert found == ids[::2]
    assert rest["next"] is None
    groups = client.get("/v1/dead-letters/groups", params={"limit": 200}).json()["groups"]
    assert {g["fingerprint"]: g["open"] for g in groups if g["fingerprint"] in names} == {
        names[0]: 3,
        names[1]: 2,
    }
    letter = client.get(f"/v1/dead-letters/{ids[0]}").json()
    assert letter["arguments"] == {"order": 1, "to": "p0"}
    assert letter["reason"] == "exhausted"
    assert letter["body_base64"]
    assert client.get("/v1/dead-letters/999999999").status_code == 404
    assert client.get("/v1/dead-letters/x").status_code == 422


def test_a_group_is_replayed(client, dead):
    """The replay takes what is open, says how far it is, and can be stopped."""
    names, ids = dead
    answer = client.post("/v1/replays", json={"which": {"fingerprint": names[0]}, "rate": 1.5})
    assert answer.status_code == 202, answer.text
    replay = client.get(answer.headers["Location"]).json()
    assert (replay["state"], replay["total"], replay["left"], replay["rate"]) == (
        "running",
        3,
        3,
        1.5,
    )
    assert replay["requested_by"].startswith("key:")
    assert replay["results"] == {"succeeded": 0, "died_again": 0, "live": 0, "other": 0}
    again = client.post("/v1/replays", json={"which": {"ids": ids[::2]}})
    assert again.status_code == 409
    assert again.json()["errors"][0]["reason"] == "nothing-matches"
    listed = client.get("/v1/replays", params={"limit": 1}).json()
    assert listed["replays"][0]["id"] == replay["id"]
    stopped = client.post(f"/v1/replays/{replay['id']}/cancel")
    assert stopped.json()["state"] == "cancelled"
    assert client.post(f"/v1/replays/{replay['id']}/cancel").status_code == 409
    assert client.post("/v1/replays/999999999/cancel").status_code == 404
    assert client.get("/v1/replays/999999999").status_code == 404


def test_a_replay_with_other_arguments_is_off(client, dead):
    """Unless the server allows it."""
    names, _ = dead
    wanted = {"which": {"fingerprint": names[0]}, "edits": {"to": "Bob"}}
    answer = client.post("/v1/replays", json=wanted)
    assert answer.status_code == 403
    assert answer.json()["errors"][0]["reason"] == "edits-are-off"


@pytest.mark.parametrize("path", ["/v1/replays", "/v1/dead-letters/discard"])
@pytest.mark.parametrize("which", [{}, {"all": True, "actor": "x"}, {"ids": []}, {"state": "open"}])
def test_nothing_is_done_to_all_dead_letters_by_mistake(client, path, which):
    """Who means all of them says so."""
    answer = client.post(path, json={"which": which})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/which")


def test_dead_letters_are_discarded(client, dead):
    """They are kept, and no longer open."""
    names, ids = dead
    answer = client.post(
        "/v1/dead-letters/discard", json={"which": {"fingerprint": names[1]}, "note": "tested"}
    )
    assert answer.json() == {"discarded": 2}
    letter = client.get(f"/v1/dead-letters/{ids[1]}").json()
    assert letter["state"] == "discarded"
    assert letter["resolved_by"].startswith("key:")
    query = {"fingerprint": names[1], "state": "all"}
    assert len(client.get("/v1/dead-letters", params=query).json()["dead_letters"]) == 2


# -------------------------------------------------------------------------- queues, workers, actors


def test_queues_are_shown_as_the_broker_has_them(client, vhost):
    """All work queues, with what waits in them, and the wheel beside them."""
    found = client.get("/v1/queues").json()
    assert [queue["name"] for queue in found["queues"]] == [
        "critical",
        "default",
        "bulk",
        "scheduled",
    ]
    assert all(queue["ready"] >= 0 for queue in found["queues"])
    assert {"delayed", "ledger", "unroutable"} <= found.keys()


def test_workers_are_shown(api, client):
    """Those that are there; those that are gone when asked for."""
    name = f"worker-{new_id()}"
    with api.engine.begin() as connection:
        now = datetime.now(UTC)
        connection.execute(
            WorkerRow.__table__.insert().values(
                id=name,
                queues=["bulk"],
                threads=4,
                running=["j1"],
                first_seen_at=now,
                seen_at=now,
            )
        )
    (found,) = [w for w in client.get("/v1/workers").json()["workers"] if w["id"] == name]
    assert (found["queues"], found["threads"], found["running"]) == (["bulk"], 4, ["j1"])
    with api.engine.begin() as connection:
        connection.execute(update(WorkerRow).where(WorkerRow.id == name).values(gone_at=now))
    assert name not in client.get("/v1/workers").text
    assert name in client.get("/v1/workers", params={"gone": True}).text


def test_actors_are_shown_with_their_schemas(client):
    """One, or all."""
    actor = client.get("/v1/actors/order.ship").json()
    assert actor["queue"] == "critical"
    assert actor["arguments"]["required"] == ["order", "to"]
    assert "order.note" in [a["name"] for a in client.get("/v1/actors").json()["actors"]]
    assert client.get("/v1/actors/nosuch").status_code == 404
