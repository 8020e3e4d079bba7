"""How long `POST /v1/jobs` takes, from the request to its 202, on an idle system.

One client on one kept connection publishes one job at a time with a random pause. The answer stands
for a commit: the ledger's row, the outbox's row and the audit log's are on disk by then.

It has no peer: nobody else's jobs are published over HTTP.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compose.native import ports
from leveret.store import api_keys, engine
from tests.benchmarks.arena import ROOT, Arena
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.error import BenchmarkError
from tests.benchmarks.figures import percentile
from tests.benchmarks.scenarios import Repeated, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

_ACTORS = "tests.support.apijobs"
_WARM_UP = 50
_PATIENCE_SECONDS = 60.0
#: The API runs in the environment of its own lock; that of the benchmarks has no uvicorn.
_PYTHON = ROOT / ".venv" / "bin" / "python"


class ApiPublish(Repeated):
    """Time from the request to the answer that the job is kept."""

    name = "api"
    needs = Ability.OUTBOX

    def __init__(self, *, jobs: int = 500) -> None:
        self._jobs = jobs

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Publish one by one to a warm API."""
        database = arena.new_database(contestant)
        with _api(database) as port:
            took = _publish(port, _key(database), _WARM_UP + self._jobs)[_WARM_UP:]
        return {"publish_p50_ms": percentile(took, 0.5), "publish_p99_ms": percentile(took, 0.99)}


def _key(database: str) -> str:
    owner = engine(database, pool_size=1)
    try:
        with owner.begin() as connection:
            _, token = api_keys.create(
                connection, name="benchmark", scopes=["publish"], created_by="benchmark"
            )
            return token
    finally:
        owner.dispose()


@contextmanager
def _api(database: str) -> Iterator[int]:
    port = ports.choose()
    kept = {name: text for name, text in os.environ.items() if not name.startswith("LEVERET_")}
    process = subprocess.Popen(
        [_PYTHON if _PYTHON.exists() else sys.executable, "-m", "services.api"],
        cwd=ROOT,
        env={
            **kept,
            "LEVERET_DATABASE_URL": database,
            "LEVERET_ACTORS": _ACTORS,
            "LEVERET_HTTP_HOST": ports.HOST,
            "LEVERET_HTTP_PORT": str(port),
            "LEVERET_LOG_FORMAT": "json",
        },
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_ready(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < end:
        client = http.client.HTTPConnection(ports.HOST, port, timeout=5)
        try:
            client.request("GET", "/readyz")
            if client.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            client.close()
    raise BenchmarkError(f"the API is not ready after {_PATIENCE_SECONDS:.0f} s")


def _publish(port: int, token: str, jobs: int) -> list[float]:
    """Publish jobs one by one; return how long each took, in milliseconds."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    pause = random.Random(jobs)
    took = []
    client = http.client.HTTPConnection(ports.HOST, port, timeout=30)
    client.connect()
    for number in range(jobs):
        body = json.dumps({"actor": "order.note", "arguments": {"text": str(number)}})
        began = time.monotonic_ns()
        client.request("POST", "/v1/jobs", body, headers)
        answer = client.getresponse()
        answer.read()
        took.append((time.monotonic_ns() - began) / 1e6)
        if answer.status != http.HTTPStatus.ACCEPTED:
            raise BenchmarkError(f"the API has answered {answer.status} to job {number}")
        time.sleep(pause.uniform(0.002, 0.01))
    client.close()
    return took
