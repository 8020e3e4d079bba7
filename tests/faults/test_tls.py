"""Everything over TLS, and every secret changed while jobs run: the page about security, shown."""

from __future__ import annotations

import http
import json

import psycopg
import pytest

from leveret import Publisher
from leveret.amqp.address import parse_urls
from leveret.errors import ConfigurationError, PublishTimeout
from tests.support.pages import blocks
from tests.support.processes import ask
from tests.support.tls import (
    NAME,
    Certificates,
    SecureSystem,
    secure_broker,
    secure_postgres,
)
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def system(checkout, tmp_path_factory):
    """Return a system whose broker, database and management are reached over TLS alone."""
    files = Certificates.make(checkout)
    broker = secure_broker(checkout, files)
    postgres = secure_postgres(checkout, files)
    folder = tmp_path_factory.mktemp("tls")
    made = SecureSystem(broker, postgres, files, folder, ["tests.support.echojobs"])
    try:
        for command in ("leveret migrate", "leveret topology apply"):
            made.shell(command)
        broker[0].vhost.granted()
        made.start_all()
        yield made
    finally:
        made.stop()
        broker[0].destroy()
        postgres.destroy()
        files.remove()


def published(system, count, text=""):
    """Publish jobs, half of them for a little later, and return their ids."""
    with Publisher(system.amqp_url("publisher")) as publisher:
        jobs = [("echo.say", {"n": n, "text": text}) for n in range(count // 2)]
        return publisher.publish_many(jobs) + publisher.publish_many(jobs, delay=1)


def wait_until_all_have_succeeded(system, jobs):
    """Return when the ledger has each of them as succeeded."""
    query = "SELECT count(*) FROM jobs WHERE id = ANY(%s) AND state = 'succeeded'"

    def found():
        with psycopg.connect(system.environment("admin")["LEVERET_DATABASE_URL"]) as connection:
            return connection.execute(query, (jobs,)).fetchone()[0]

    wait_until(
        lambda: found() == len(jobs),
        timeout=60,
        every=0.3,
        what=f"{len(jobs)} jobs have succeeded; worker: {system.said('worker')}",
    )


def test_jobs_run_and_are_accounted_for_over_tls(system):
    """Many small jobs and large ones, now and later; the audit asks the broker over https."""
    jobs = published(system, 2000) + published(system, 20, "ü" * 300_000)
    wait_until_all_have_succeeded(system, jobs)
    assert json.loads(system.shell("leveret audit --json"))["holds"]
    system.shell("leveret topology check")


def refusal(url):
    """Return why a publisher cannot connect."""
    with Publisher(url, timeout=1) as publisher, pytest.raises(PublishTimeout) as caught:
        publisher.send("echo.say", {"n": 1})
    return str(caught.value)


def test_a_server_that_cannot_show_who_it_is_gets_no_job(system, caplog, monkeypatch):
    """Neither one of another authority, nor one of another name; the log says what is wrong."""
    for url in (
        system.amqp_url("publisher", cacertfile=str(system.files.stranger)),
        system.amqp_url("publisher", cacertfile=""),  # what the system trusts
    ):
        caplog.clear()
        refusal(url)
        assert "certificate verify failed" in caplog.text
    monkeypatch.setenv("SSL_CERT_FILE", str(system.files.authority))
    with Publisher(system.amqp_url("publisher", cacertfile="")) as publisher:
        publisher.send("echo.say", {"n": 1})
    caplog.clear()
    refusal(system.amqp_url("publisher", host="localhost"))
    assert "Hostname mismatch" in caplog.text
    assert system.passwords["publisher"] not in caplog.text
    with Publisher(
        system.amqp_url("publisher", host="localhost", server_name_indication=NAME)
    ) as publisher:
        publisher.send("echo.say", {"n": 1})


def test_a_file_that_cannot_be_used_is_named(system, tmp_path):
    """Before anything is tried, so that a process ends with status 2 and this line."""
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for changes, words in (
        ({"cacertfile": "/no/such/file"}, "cacertfile '/no/such/file'.*No such file"),
        ({"cacertfile": str(nothing)}, "cacertfile '.*nothing.pem' cannot be used"),
        ({"keyfile": str(nothing)}, "certfile '.*client.pem' and keyfile '.*nothing.pem'"),
        ({"verify": "verify_none"}, "not to verify"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            parse_urls(system.amqp_url("publisher", **changes), "test")
    plain = system.amqp_url("publisher").replace("amqps:", "amqp:")
    with pytest.raises(ConfigurationError, match="cacertfile, and is not amqps://"):
        parse_urls(plain, "test")


def test_every_secret_can_be_changed_while_jobs_run(system, tmp_path):
    """Old connections go on; a process that is started again with the new secret loses nothing."""
    jobs = published(system, 500)

    # The broker: new passwords for all roles, as `leveret topology apply --passwords` sets them.
    old = system.amqp_url("publisher")
    fresh = {role: f"second-{role}-{'x' * 12}" for role in system.passwords if role != "owner"}
    for role, password in fresh.items():
        (tmp_path / f"{role}.password").write_text(password)
    system.shell(
        blocks("docs/how-to/secure.md")["rotate"],
        PASSWORDS=str(tmp_path),
        LEVERET_MANAGEMENT_URL=system.broker.vhost.management_url,
        LEVERET_AMQP_URL=old.replace(
            f"publisher:{system.passwords['publisher']}", f"admin:{fresh['admin']}"
        ),
    )
    system.passwords.update(fresh)
    refusal(old)
    jobs += published(system, 500)  # the worker still has its old connection

    # The database, in the same way.
    with psycopg.connect(system.environment("admin")["LEVERET_DATABASE_URL"]) as connection:
        connection.execute("ALTER ROLE postgres PASSWORD 'second'")
    system.database_password = "second"

    # A worker that loses its connections now waits, and does not end.
    management = system.broker.vhost.management

    def cut_off():
        for found in management.get("connections"):  # a list that can be behind
            management.delete("connections", found["name"])
        return ask(system.ports["worker"], "/readyz")[0] != http.HTTPStatus.OK

    wait_until(cut_off, timeout=60, every=0.2, what="the worker notices")
    jobs += published(system, 200)
    assert ask(system.ports["worker"], "/livez")[0] == http.HTTPStatus.OK

    system.restart_all()
    wait_until_all_have_succeeded(system, jobs)
    assert json.loads(system.shell("leveret audit --json"))["holds"]
