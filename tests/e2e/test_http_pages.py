"""The pages about HTTP, run as they stand there."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.apis import Api
from tests.support.observed import observing_worker
from tests.support.pages import blocks
from tests.support.processes import bare_environment

API = blocks("docs/how-to/use-the-http-api.md")
FASTAPI = blocks("docs/how-to/publish-from-fastapi.md")


def run(text: str, **variables: str) -> str:
    """Run a block of shell and return what it prints."""
    kept = bare_environment()
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    done = subprocess.run(
        ["sh", "-euc", text],
        env={**kept, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{text}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_calls_of_the_page_do_what_it_says(ledger_database):
    """A key, a job that is published once, a list that finds it, and an error that points."""
    with Api(ledger_database, actors=("actors.email",)) as api:
        key = run(API["key"], LEVERET_DATABASE_URL=ledger_database).strip()
        variables = {"LEVERET_API": api.url, "LEVERET_KEY": key}
        first, again = (json.loads(run(API["publish"], **variables)) for _ in range(2))
        assert first == again
        assert first["state"] == "scheduled"
        (job,) = json.loads(run(API["look"], **variables))["jobs"]
        assert job["id"] == first["id"]
        problem = json.loads(run(API["wrong"], **variables))
        assert problem["type"] == "urn:leveret:problem:invalid-job"
        assert problem["errors"][0]["pointer"] == "/arguments/subject"


def test_the_page_makes_a_schedule_and_looks_ahead(ledger_database):
    """Its next fires, a preview over the change of the clocks, and what a backfill would do."""
    with Api(ledger_database, actors=("actors.email",)) as api:
        variables = {"LEVERET_API": api.url, "LEVERET_KEY": api.key("operate")}
        made = json.loads(run(API["schedule"], **variables))
        assert made["state"] == "active"
        assert len(made["next"]) == 5
        entries = json.loads(run(API["preview"], **variables))["entries"]
        assert [entry["mark"] for entry in entries] == [None, "moved", None]
        shown = json.loads(run(API["backfill"], **variables))
        assert len(shown["slots"]) == 5
        assert shown["dry_run"]
        with api.client("operate") as client:
            assert client.delete(f"/v1/schedules/{made['name']}").status_code == 200


def test_a_fastapi_service_publishes(fresh_vhost, tmp_path, monkeypatch):
    """The program of the page, asked as its clients would; the same order is the same job."""
    (tmp_path / "shop.py").write_text(FASTAPI["shop.py"])
    found = importlib.util.spec_from_file_location("shop", tmp_path / "shop.py")
    shop = importlib.util.module_from_spec(found)
    found.loader.exec_module(shop)
    fresh_vhost.declare({"email.send": "default"})
    monkeypatch.setenv("LEVERET_AMQP_URL", fresh_vhost.url("publisher"))

    async def order() -> list[httpx.Response]:
        transport = httpx.ASGITransport(shop.app)
        async with (
            shop.app.router.lifespan_context(shop.app),
            httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
        ):
            return [await client.post("/orders/7", params={"email": "a@b.cd"}) for _ in range(2)]

    with observing_worker(fresh_vhost) as observed:
        answers = asyncio.run(order())
        assert [answer.status_code for answer in answers] == [202, 202]
        assert [answer.json() for answer in answers] == [{"job": "order-7-confirmation"}] * 2
        run_ = observed.runs("From FastAPI", 1)[0]
    assert run_["job"].id == "order-7-confirmation"
    assert run_["to"] == "a@b.cd"
