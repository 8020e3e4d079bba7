"""The HTTP API loses nothing that it has accepted, and comes back by itself."""

from __future__ import annotations

import signal

import httpx
import pytest
from sqlalchemy import func, select

from leveret.store import api_keys, engine
from leveret.store.schema import JobRow, OutboxRow
from tests.support.apis import ACTORS, FOLDER, Api, ApiProcess
from tests.support.proxies import TcpProxy
from tests.support.waiting import wait_until

JOB = {"actor": "order.ship", "arguments": {"order": 1, "to": "Ada"}, "correlation_id": "kill"}


def make_key(database: str) -> str:
    """Make a key with every scope."""
    owner = engine(database, pool_size=1)
    try:
        with owner.begin() as connection:
            return api_keys.create(
                connection, name="faults", scopes=["publish", "admin"], created_by="test"
            )[1]
    finally:
        owner.dispose()


def count(database: str, column, *conditions) -> int:
    """Count rows."""
    owner = engine(database, pool_size=1)
    try:
        with owner.begin() as connection:
            return connection.execute(select(func.count(column)).where(*conditions)).scalar_one()
    finally:
        owner.dispose()


@pytest.mark.faults
def test_a_job_is_published_once_when_the_api_dies_before_its_answer(ledger_database, tmp_path):
    """The client gets no answer, sends the request again, and is told of the one job there is."""
    token = make_key(ledger_database)
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "after-the-kill"}
    killers = (ACTORS, "tests.support.apikill")
    variables = {FOLDER: str(tmp_path)}
    with ApiProcess(ledger_database, tmp_path, actors=killers, variables=variables) as dying:
        dying.wait_ready("/livez")
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{dying.url}/v1/jobs", json=JOB, headers=headers, timeout=60)
        assert dying.process.wait(30) == -signal.SIGKILL
    with ApiProcess(ledger_database, tmp_path) as fresh:
        fresh.wait_ready("/livez")
        answer = httpx.post(f"{fresh.url}/v1/jobs", json=JOB, headers=headers, timeout=60)
        assert answer.status_code == 202, answer.text
        assert answer.headers["Idempotency-Replayed"] == "true"
        job_id = answer.json()["id"]
        found = httpx.get(f"{fresh.url}/v1/jobs/{job_id}", headers=headers, timeout=60)
        assert found.json()["state"] == "queued"
        fresh.process.terminate()
        assert fresh.process.wait(30) == 0
    assert count(ledger_database, JobRow.id, JobRow.correlation_id == "kill") == 1
    assert count(ledger_database, OutboxRow.id, OutboxRow.job_id == job_id) == 1


@pytest.mark.faults
def test_without_its_database_the_api_says_so_and_recovers(ledger_database):
    """503 with a problem document and when to come back, alive all the time; then as before."""
    with TcpProxy.before(ledger_database) as proxy, Api(proxy.through(ledger_database)) as api:
        token = make_key(ledger_database)
        with api.client(token=token) as client:
            assert client.post("/v1/jobs", json=JOB).status_code == 202
            assert client.get("/readyz").status_code == 200
            proxy.refuse()
            wait_until(
                lambda: client.get("/readyz").status_code == 503, timeout=30, what="it is not ready"
            )
            for request in (("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", "/v1/workers")):
                answer = client.request(*request, json=JOB if request[0] == "POST" else None)
                assert answer.status_code == 503, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
                assert int(answer.headers["retry-after"]) > 0
            assert client.get("/livez").status_code == 200
            proxy.resume()
            wait_until(
                lambda: client.get("/readyz").status_code == 200, timeout=30, what="it is ready"
            )
            assert client.post("/v1/jobs", json=JOB).status_code == 202


@pytest.mark.faults
def test_a_database_without_tables_is_a_problem_and_not_a_defect(fresh_database, tmp_path):
    """It says what to do; misconfigured, the process ends with one line."""
    with Api(fresh_database) as api, api.client(token=f"lv_{'0' * 12}_{'0' * 64}") as client:
        answer = client.get("/v1/jobs")
        assert answer.status_code == 503
        assert "leveret migrate" in answer.json()["detail"]
        assert client.get("/readyz").status_code == 503
    for variables, word in (
        ({"LEVERET_HTTP_PORT": "0"}, "LEVERET_HTTP_PORT"),
        ({"LEVERET_DATABASE_URL": ""}, "LEVERET_DATABASE_URL"),
        ({"LEVERET_ACTORS": "nosuch"}, "LEVERET_ACTORS"),
    ):
        with ApiProcess(fresh_database, tmp_path, variables=variables) as wrong:
            assert wrong.process.wait(60) == 2
            assert word in wrong.log
            assert wrong.log.count("\n") == 1


@pytest.mark.faults
def test_who_follows_a_job_is_let_go_when_the_api_stops(ledger_database, tmp_path):
    """SIGTERM ends the process within seconds, with a stream open."""
    token = make_key(ledger_database)
    headers = {"Authorization": f"Bearer {token}"}
    with ApiProcess(ledger_database, tmp_path) as api:
        api.wait_ready("/livez")
        job_id = httpx.post(f"{api.url}/v1/jobs", json=JOB, headers=headers, timeout=60).json()[
            "id"
        ]
        url = f"{api.url}/v1/jobs/{job_id}/events"
        with httpx.stream("GET", url, headers=headers, timeout=60) as stream:
            lines = stream.iter_lines()
            assert any(line == "event: state" for line in lines)
            api.process.terminate()
            assert "event: cut" in list(lines)
        assert api.process.wait(30) == 0
        assert token.split("_")[2] not in api.log
        assert "Ada" not in api.log
