"""compose.yaml on a real engine: hardened, least privileged, losing nothing when parts are killed.

`make compose-test` runs this.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import psycopg
import pytest

from actors import aggregate, cleanup, deliver, generate, resize, send
from compose.demo.flights import write_parquet
from compose.engine import bases
from compose.native import docker
from compose.native.paths import Checkout
from compose.native.rabbitmq import Credentials
from leveret.management import Management
from leveret.publisher import Publisher
from tests.containers.deployment import LONG_RUNNING, POOLS, PROCESSES, WATCHING, Deployment
from tests.containers.image import ROOT
from tests.support.pages import blocks
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(1800)

COMPOSE = ROOT / "compose" / "compose.yaml"
ONE_SHOT = ("migrate", "topology")
#: Which secrets a service gets: those of its own role.
SECRETS = {
    "api": {"api.amqp-url", "api.management-url", "database.url"},
    "relay": {"relay.amqp-url", "database.url"},
    "recorder": {"recorder.amqp-url", "database.url"},
    "scheduler": {"database.url"},
    "worker-critical": {"worker.amqp-url", "database.url"},
    "worker-default": {"worker.amqp-url", "database.url"},
    "worker-bulk": {"worker.amqp-url", "database.url"},
    "worker-scheduled": {"worker.amqp-url", "database.url"},
    "postgres": {"postgres.password"},
    "rabbitmq": set(),
}
PER_KILL = 12
QUEUES = ("critical", "default", "bulk", "scheduled")
OVERRIDE = """
x-worker: &worker
  environment: {{LEVERET_SOURCE_FLIGHTS_URL: /input/flights.parquet}}
  volumes: ["{input}:/input:ro"]
services:
  worker-critical: *worker
  worker-default: *worker
  worker-bulk: *worker
  worker-scheduled: *worker
"""


@pytest.fixture(scope="module")
def deployment(images, tmp_path_factory) -> Iterator[Deployment]:
    """Return the profile `core`, started from nothing with one command, and ready."""
    engine = images["leveret"].engine
    bases.ensure(engine, Checkout.here(), bases.RABBITMQ, bases.POSTGRES)
    folder = tmp_path_factory.mktemp("compose")
    data = folder / "input"
    write_parquet(data / "flights.parquet")
    data.chmod(0o755)
    found = Deployment(engine, "leveret-test", folder, OVERRIDE.format(input=data))
    begin = time.monotonic()
    found.up()
    print(f"\nthe profile core is up in {time.monotonic() - begin:.0f} s", end="")
    yield found
    found.down()
    left = engine.docker("ps", "--all", "--quiet").stdout.split()
    volumes = engine.docker("volume", "ls", "--quiet").stdout.split()
    assert (left, volumes) == ([], [])


def test_the_file_is_valid_without_secrets_and_without_an_engine():
    """`docker compose config -q` says nothing, in every profile."""
    compose = Path(sys.executable).with_name("docker-compose")
    profiles = ("--profile", "core", "--profile", "observability", "--profile", "tools")
    answer = subprocess.run(
        [compose, "--file", COMPOSE, *profiles, "config", "--quiet"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_every_service_is_hardened_and_published_on_this_machine_alone(deployment):
    """As the file says, for every service of every profile, and as the engine does it."""
    config = deployment.compose(
        "--profile", "observability", "--profile", "tools", "config", "--format", "json"
    )
    services = json.loads(config.stdout)["services"]
    assert {*LONG_RUNNING, *ONE_SHOT, "leveret", "prometheus", "alertmanager", "grafana"} == set(
        services
    )
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert "privileged" not in service, name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        if name in LONG_RUNNING:
            assert service["restart"] == "unless-stopped"
    for name in (*LONG_RUNNING, *ONE_SHOT):
        for container in deployment.containers(name):
            found = deployment.inspect(container)
            host = found["HostConfig"]
            assert host["ReadonlyRootfs"], name
            assert host["CapDrop"] == ["ALL"], name
            assert host["Memory"] > 0, name
            user = found["Config"]["User"].partition(":")[0]
            assert user not in ("", "0", "root"), name


def test_a_pool_has_as_long_to_end_as_its_jobs_may_take(deployment):
    """The longest time limit among the actors of its queue, and Docker waits a little longer."""
    limits: dict[str, float] = dict.fromkeys(QUEUES, 600.0)  # of an actor that names none
    for actor in (aggregate, cleanup, deliver, generate, resize, send):
        limit = actor.options["time_limit"].total_seconds()
        limits[actor.queue_name] = max(limits[actor.queue_name], limit)
    services = deployment.config()["services"]
    for queue in QUEUES:
        command = services[f"worker-{queue}"]["command"]
        assert command[command.index("--queues") + 1] == queue
        grace = float(command[command.index("--grace") + 1])
        assert grace >= limits[queue], queue
        assert _seconds(services[f"worker-{queue}"]["stop_grace_period"]) > grace + 5


def _seconds(text: str) -> float:
    """Read a duration of Compose's, such as 10m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(n) * units[u] for n, u in re.findall(r"([\d.]+)([hms])", text))


def test_a_password_is_in_files_of_those_who_need_it_and_nowhere_else(deployment):
    """Neither in a container's settings nor in its processes, its logs or another's files."""
    passwords = deployment.secrets()
    assert len(set(passwords.values())) == len(passwords) > 9
    for name in (*LONG_RUNNING, *ONE_SHOT):
        for container in deployment.containers(name):
            told = json.dumps(deployment.inspect(container))
            logs = deployment.engine.docker("logs", container)
            told += logs.stdout + logs.stderr
            if name in LONG_RUNNING:
                told += deployment.engine.docker(
                    *("exec", container, "sh", "-c"),
                    "for p in /proc/[0-9]*; do cat $p/environ $p/cmdline 2>/dev/null; done | "
                    "tr '\\0' '\\n'; true",
                ).stdout
            leaked = [file for file, secret in passwords.items() if secret in told]
            assert leaked == [], name
    for name, wanted in SECRETS.items():
        container = deployment.containers(name)[0]
        listed = deployment.engine.docker(
            "exec", container, "sh", "-c", "ls /run/secrets 2>/dev/null; true"
        )
        assert set(listed.stdout.split()) == wanted, name


def test_each_process_has_a_user_of_its_own_in_the_broker(deployment):
    """And nobody but the owner administers it."""
    rabbit = deployment.containers("rabbitmq")[0]
    listed = deployment.engine.docker(
        "exec", rabbit, "rabbitmqctl", "--quiet", "list_users", "--formatter", "json"
    )
    users = {user["user"]: set(user["tags"]) for user in json.loads(listed.stdout)}
    roles = ("admin", "publisher", "relay", "worker", "recorder", "api", "monitor")
    assert set(users) == {"leveret-owner", *(f"leveret-{role}" for role in roles)}
    assert [user for user, tags in users.items() if "administrator" in tags] == ["leveret-owner"]
    checked = deployment.leveret("topology", "check")
    assert "as the table wants it" in checked.stdout


def test_one_scheduler_leads_and_another_takes_over(deployment):
    """When the leader is killed, the other one has the lease within its term."""
    first, second = deployment.containers("scheduler")

    def leaders() -> list[str]:
        return [
            container
            for container in (first, second)
            if "\nleveret_scheduler_is_leader 1.0" in deployment.get(container, "/metrics")[1]
        ]

    wait_until(lambda: len(leaders()) == 1, timeout=60, every=0.3)
    (leader,) = leaders()
    other = second if leader == first else first
    deployment.engine.docker("kill", leader)
    try:
        wait_until(lambda: leaders() == [other], timeout=60, every=0.3)
    finally:
        deployment.engine.docker("start", leader)
    wait_until(lambda: deployment.get(leader, "/readyz")[0] == 200, timeout=60, every=0.3)
    assert leaders() == [other]


def ask(port: int, path: str) -> Any:
    """Return the JSON that a server on this machine answers."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        client.request("GET", path)
        return json.loads(client.getresponse().read())
    finally:
        client.close()


@pytest.fixture
def watching(deployment) -> Iterator[Deployment]:
    """Return the deployment with Prometheus and Alertmanager beside it.

    Grafana comes in its own image alone, so here it is not started.
    """
    engine = deployment.engine
    bases.ensure(engine, Checkout.here(), bases.PROMETHEUS, bases.ALERTMANAGER)
    deployment.up(*WATCHING)
    yield deployment
    deployment.compose("rm", "--force", "--stop", "--volumes", *WATCHING)


def test_prometheus_scrapes_every_container_and_its_alerts_reach_alertmanager(watching):
    """With the files of the checkout: all targets answer, all rules are evaluated, one fires."""
    prometheus = watching.ports["prometheus_web"]
    containers = sum(len(watching.containers(name)) for name in PROCESSES)

    def healthy() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for target in ask(prometheus, "/api/v1/targets?state=active")["data"]["activeTargets"]:
            found.setdefault(target["labels"]["job"], []).append(target["health"])
        return found

    wanted = {job: ["up"] for job in ("rabbitmq", "rabbitmq-alarms", "prometheus")}
    wanted["leveret"] = ["up"] * containers
    wait_until(lambda: healthy() == wanted, timeout=120, every=1, what="every target answers")

    def rules() -> list[dict[str, Any]]:
        groups = ask(prometheus, "/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    files = sorted((ROOT / "compose" / "prometheus" / "rules").glob("*.yaml"))
    names = {name for file in files for name in re.findall(r"- alert: (\w+)", file.read_text())}
    wait_until(
        lambda: {rule["health"] for rule in rules()} == {"ok"},
        timeout=120,
        every=1,
        what="every rule is evaluated",
    )
    assert {rule["name"] for rule in rules() if rule["type"] == "alerting"} == names
    watching.compose("stop", "scheduler")
    try:
        alerts = wait_until(
            lambda: [
                alert
                for alert in ask(watching.ports["alertmanager"], "/api/v2/alerts")
                if alert["labels"]["alertname"] == "LeveretSchedulerNoLeader"
            ],
            timeout=240,
            every=1,
            what="the alert is with Alertmanager",
        )
    finally:
        watching.compose("start", "scheduler")
    page = alerts[0]["annotations"]["runbook_url"]
    assert page.endswith("docs/runbooks/scheduler.md#leveretschedulernoleader")


class Customer:
    """Publishes jobs by SDK and by HTTP, and holds on to each until it is accepted."""

    def __init__(self, deployment: Deployment, key: str) -> None:
        self.accepted: list[str] = []
        self.tries = 0
        self._port, self._key = deployment.ports["api"], key
        self._publisher = Publisher(deployment.client_url, app_id="compose-test", timeout=120)
        self._day = 0

    def close(self) -> None:
        """Close the connection to the broker."""
        self._publisher.close()

    def publish(self, count: int) -> None:
        """Publish so many jobs by each way; return when all are accepted."""
        receipts = []
        for at in range(count):
            job = f"sdk-{uuid.uuid4()}"
            delay = 3.0 if at % 4 == 3 else None
            receipts.append(
                self._publisher.publish(
                    "data.aggregate",
                    self._arguments(),
                    queue=QUEUES[at % 4],
                    job_id=job,
                    delay=delay,
                )
            )
        for at in range(count):
            self.accepted.append(self._post(QUEUES[at % 4]))
        self.accepted += [receipt.wait() for receipt in receipts]

    def _arguments(self) -> dict[str, Any]:
        self._day += 1
        return {
            "source": "flights",
            "group_by": ["carrier"],
            "measures": ["count", "mean:dep_delay"],
            "filter": {"month": self._day % 12 + 1, "day": self._day % 28 + 1},
            "path": f"days/{uuid.uuid4()}.parquet",
        }

    def _post(self, queue: str) -> str:
        body = json.dumps(
            {"actor": "data.aggregate", "arguments": self._arguments(), "queue": queue}
        )
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid.uuid4()),
        }
        deadline = time.monotonic() + 120
        while True:
            self.tries += 1
            client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            try:
                client.request("POST", "/v1/jobs", body, headers)
                answer = client.getresponse()
                text = answer.read().decode()
                if answer.status == http.client.ACCEPTED:
                    return str(json.loads(text)["id"])
                assert answer.status >= 500, text
            except (OSError, http.client.HTTPException):
                pass
            finally:
                client.close()
            assert time.monotonic() < deadline, "the API does not come back"
            time.sleep(0.1)


def test_nothing_is_lost_when_one_container_of_each_kind_is_killed(deployment):
    """Jobs by SDK and HTTP, now and later, to every pool, while everything is killed in turn.

    Docker starts again what was killed; every job that was accepted ends as succeeded, and the
    audit finds the ledger, the outbox and the broker's counts to agree.
    """
    made = deployment.leveret(
        "keys", "create", "compose-test", "--scope", "publish", "--scope", "read", "--json"
    )
    key = json.loads(made.stdout)["token"]
    customer = Customer(deployment, key)
    report = []
    try:
        customer.publish(PER_KILL)
        for service in ("api", "relay", "recorder", "scheduler", *POOLS, "rabbitmq", "postgres"):
            container = deployment.containers(service)[0]
            before = deployment.restarts(container)
            publishing = threading.Thread(target=customer.publish, args=(PER_KILL,))
            publishing.start()
            enough = len(customer.accepted) + 4
            wait_until(lambda n=enough: len(customer.accepted) > n, timeout=60)
            begin = time.monotonic()
            deployment.crash(container)
            wait_until(
                lambda c=container, b=before: (
                    deployment.restarts(c) > b and deployment.health(c) == "healthy"
                ),
                timeout=180,
                every=0.5,
                what=f"{service} is healthy again",
            )
            report.append(f"{service} {time.monotonic() - begin:.0f} s")
            publishing.join(180)
            assert not publishing.is_alive()
    finally:
        customer.close()
    print(f"\nkilled, and healthy again after: {', '.join(report)}", end="")
    url = (deployment.folder / "secrets" / "database.url").read_text().strip()
    reachable = url.replace("@postgres:5432", f"@127.0.0.1:{deployment.ports['postgres']}")
    accepted = customer.accepted

    def states() -> dict[str, int]:
        with psycopg.connect(reachable) as connection:
            return dict(
                connection.execute(
                    "SELECT state, count(*) FROM jobs WHERE id = ANY(%s) GROUP BY state", [accepted]
                ).fetchall()
            )

    wait_until(
        lambda: states().get("succeeded") == len(accepted),
        timeout=240,
        every=1.0,
        what=f"{len(accepted)} jobs have succeeded",
    )
    audit = deployment.leveret("audit", "--wait", "60")
    assert "every job is accounted for" in audit.stdout
    print(
        f"\n{len(accepted)} jobs accepted ({customer.tries} HTTP tries for {len(accepted) // 2}), "
        f"{len(accepted)} succeeded; {audit.stdout.splitlines()[0]}",
        end="",
    )


def test_the_commands_of_the_page_work_as_they_stand(deployment):
    """The last test, since it ends with everything removed, data and all."""
    page = blocks("docs/how-to/run-with-compose.md")
    start = page["start"].replace("compose/secrets ", "$LEVERET_SECRETS ")
    assert "leveret-actors" in deployment.shell(start)
    said = deployment.shell(page["look"])
    assert "lv_" in said
    assert "every job is accounted for" in said
    job = deployment.shell(page["publish"].replace("compose/secrets/", "$LEVERET_SECRETS/"))
    assert re.search(r"[0-9a-f-]{36}", job)
    deployment.shell(page["stop"])
    assert deployment.engine.docker("ps", "--all", "--quiet").stdout.split() == []
    assert deployment.engine.docker("volume", "ls", "--quiet").stdout.split() == []


def test_make_up_starts_the_two_servers_alone(engine, tmp_path, monkeypatch):
    """With the owner's and the superuser's passwords, on ports of its own; `clean` removes both."""
    bases.ensure(engine, Checkout.here(), bases.RABBITMQ, bases.POSTGRES)
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "compose").symlink_to(ROOT / "compose")
    checkout = Checkout(tmp_path)
    checkout.stack.mkdir()
    docker.engine_runs.cache_clear()
    docker._up.cache_clear()
    try:
        found = docker.up(checkout, Credentials("leveret-owner", "rabbits"), "postgres-too")
        assert [name for name, _ in docker.status(checkout)] == [
            "container postgres",
            "container rabbitmq",
        ]
        url = f"amqp://leveret-owner:rabbits@127.0.0.1:{found['amqp']}/leveret"
        pika.BlockingConnection(pika.URLParameters(url)).close()
        with Management(
            f"http://leveret-owner:rabbits@127.0.0.1:{found['management']}"
        ) as management:
            assert "administrator" in management.tags()
        login = f"postgresql://postgres:postgres-too@127.0.0.1:{found['postgres']}/postgres"
        with psycopg.connect(login) as connection:
            assert connection.info.server_version >= 170_000
    finally:
        docker.remove_data(checkout)
        docker.engine_runs.cache_clear()
        docker._up.cache_clear()
    assert engine.docker("volume", "ls", "--quiet").stdout.split() == []
