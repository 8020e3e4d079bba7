"""The programs of `docs/reference/wire-contract.md`, run as they stand there, with real clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pika
import pytest

from leveret import names
from tests.support import clients
from tests.support.observed import Observed, observing_worker
from tests.support.pages import blocks
from tests.support.processes import bare_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PAGE = blocks("docs/reference/wire-contract.md")
#: The wait that every program asks for, for its second job.
DELAY_SECONDS = 2.5
#: A client may have to be installed first.
pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def clients_vhost(shared_broker):
    """Return a virtual host for the programs, in which `any.email.send` is bound."""
    vhost = shared_broker.create_vhost("clients").declare({"email.send": "default"})
    yield vhost
    vhost.management.delete_vhost(vhost.name)
    vhost.management.close()


@pytest.fixture(scope="module")
def observed(clients_vhost) -> Iterator[Observed]:
    """Run a worker that takes notes."""
    with observing_worker(clients_vhost) as found:
        yield found


@pytest.fixture
def run(clients_vhost, tmp_path):
    """Return a function that writes a program of the page down, and runs it."""

    def run_program(name: str, command: list[str], extra: Mapping[str, str] | None = None) -> str:
        (tmp_path / name).write_text(PAGE[name])
        kept = bare_environment()
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={
                **kept,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
                "LEVERET_AMQP_URL": clients_vhost.url("publisher"),
                **(extra or {}),
            },
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stdout}\n{done.stderr}"
        return done.stdout

    return run_program


def check(observed: Observed, printed: str, text: str, began: float) -> None:
    """Find both jobs that a program has published, run under their ids, the second not early."""
    ids = dict(line.split() for line in printed.splitlines())
    assert ids.keys() == {"now", "later"}
    runs = {run["job"].id: run for run in observed.runs(text, 2)}
    assert runs.keys() == set(ids.values())
    for run in runs.values():
        assert (run["to"], run["subject"]) == ("ada@example.com", "Hi")
        assert run["job"].attempt == 1
    later = runs[ids["later"]]
    assert later["at"] >= began + DELAY_SECONDS
    assert runs[ids["now"]]["at"] < later["at"]
    for job_id in ids.values():
        record = observed.outcome(job_id)
        assert record["event"] == "succeeded"
        assert (record["actor"], record["queue"]) == ("email.send", "default")
        assert record["result"] == text


def test_the_sdk_publishes_jobs_that_run(run, observed):
    """Python, with `leveret` alone."""
    began = time.time()
    check(observed, run("sdk.py", [sys.executable, "sdk.py"]), "From the SDK", began)


def test_plain_pika_publishes_jobs_that_run(run, observed):
    """Python, with nothing of ours; a typed header and the sender's name arrive."""
    began = time.time()
    printed = run("plain_pika.py", [sys.executable, "plain_pika.py"])
    check(observed, printed, "From pika", began)
    job = observed.runs("From pika", 2)[0]["job"]
    assert (job.max_retries, job.app_id) == (3, "shop")


def test_node_publishes_jobs_that_run(run, observed):
    """Node, with amqplib's confirm channel."""
    modules = clients.npm("amqplib@2")
    began = time.time()
    printed = run("publish.js", ["node", "publish.js"], {"NODE_PATH": str(modules)})
    check(observed, printed, "From Node", began)
    assert observed.runs("From Node", 2)[0]["job"].max_retries == 3


def test_go_publishes_jobs_that_run(run, observed):
    """Go, with deferred confirms."""
    environment = clients.go_environment()
    began = time.time()
    printed = run("publish.go", ["go", "run", "publish.go"], environment)
    check(observed, printed, "From Go", began)
    assert observed.runs("From Go", 2)[0]["job"].max_retries == 3


def test_java_publishes_jobs_that_run(run, observed):
    """Java, with `waitForConfirmsOrDie`."""
    class_path = clients.java_class_path()
    began = time.time()
    printed = run("Publish.java", ["java", "-cp", class_path, "Publish.java"])
    check(observed, printed, "From Java", began)
    assert observed.runs("From Java", 2)[0]["job"].max_retries == 3


def test_the_leveret_command_publishes_jobs_that_run(run, observed):
    """The shell, with our own command."""
    began = time.time()
    check(observed, run("leveret.sh", ["sh", "-eu", "leveret.sh"]), "From the command", began)


def test_amqp_publish_publishes_jobs_that_run(run, observed, clients_vhost, tmp_path):
    """The shell, with `amqp-tools`: no id, no type, and the routing key names the actor."""
    clients.need(["amqp-publish"], ["amqp-tools"], "the shell example")
    url = urlsplit(clients_vhost.url("publisher"))
    login = tmp_path / "amqp.login"
    login.touch(mode=0o600)
    login.write_text(f"username:{url.username}\npassword:{unquote(url.password)}\n")
    began = time.time()
    run(
        "amqp-publish.sh",
        ["sh", "-eu", "amqp-publish.sh"],
        {
            "BROKER_HOST": url.hostname,
            "BROKER_PORT": str(url.port),
            "BROKER_VHOST": unquote(url.path[1:]),
        },
    )
    first, second = observed.runs("From amqp-publish", 2)
    assert first["at"] < second["at"]
    assert second["at"] >= began + DELAY_SECONDS
    assert first["job"].id_assigned
    for each in (first, second):
        assert observed.outcome(each["job"].id)["event"] == "succeeded"


def test_every_program_of_the_page_is_run():
    """A block that is added to the page is run by a test, too."""
    source = Path(__file__).read_text()
    assert [name for name in PAGE if not re.search(rf'run\(\s*"{re.escape(name)}"', source)] == []


def test_a_publisher_cannot_name_a_queue_that_does_not_exist(clients_vhost):
    """The page says so: the channel is closed with 403, and the job is not accepted."""
    parameters = pika.URLParameters(clients_vhost.url("publisher"))
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.basic_publish(names.JOBS, "nowhere.email.send", b"{}")


def test_a_job_for_an_unknown_actor_is_kept_as_unroutable(clients_vhost):
    """The page says so: the confirm comes, and the message is in `leveret.unroutable`."""
    parameters = pika.URLParameters(clients_vhost.url("publisher"))
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(names.JOBS, "any.nobody.knows", b'{"a": 1}', mandatory=True)
    with pika.BlockingConnection(pika.URLParameters(clients_vhost.amqp_url)) as connection:
        method, _, body = connection.channel().basic_get(names.UNROUTABLE, auto_ack=True)
    assert method is not None
    assert (method.routing_key, body) == ("any.nobody.knows", b'{"a": 1}')


def test_an_expiration_never_makes_a_delayed_job_run_early(clients_vhost, observed):
    """The page says so: it comes out of the wheel early, and is dead as `expired`."""
    with pika.BlockingConnection(pika.URLParameters(clients_vhost.url("publisher"))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(
            names.DELAY,
            "0.0.0.0.2.0.0.any.email.send",
            b'{"to": "a", "subject": "b", "text": "too early"}',
            pika.BasicProperties(message_id="early", type="email.send", expiration="100"),
        )
    record = observed.outcome("early")
    assert (record["event"], record["reason"]) == ("expired", "expired")


def test_an_expiration_in_a_work_queue_leaves_a_dead_letter(vhost):
    """The page says so: it is the broker's own, with `x-death` in place of our headers."""
    with pika.BlockingConnection(pika.URLParameters(vhost.amqp_url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(message_id="late", expiration="50")
        channel.basic_publish(names.JOBS, "scheduled.email.send", b'{"a": 1}', properties)

        def dead_letter():
            method, found, body = channel.basic_get(names.dead_queue("scheduled"), auto_ack=True)
            return None if method is None else (found, body)

        found, body = wait_until(dead_letter, what="a dead letter")
    assert (found.message_id, body) == ("late", b'{"a": 1}')
    assert found.headers["x-death"][0]["reason"] == "expired"
    assert not [name for name in found.headers if name.startswith("x-leveret-")]
