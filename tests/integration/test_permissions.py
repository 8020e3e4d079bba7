"""Each kind of process has a RabbitMQ user that can do its work, and not more (P8)."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from leveret.errors import ManagementError
from leveret.management import Management, grant
from leveret.topology import ROLES
from leveret.topology.roles import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pika.adapters.blocking_connection import BlockingChannel

    from tests.support.brokers import Vhost

    Deed = Callable[[BlockingChannel], object]

IN_A_WHILE = "0.0.0.0.0.0.a"


@contextmanager
def channel_of(vhost: Vhost, role: str) -> Iterator[BlockingChannel]:
    """Open a channel as the role's user, with confirms: a refusal then shows at once."""
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url(role)))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel
    finally:
        if connection.is_open:
            connection.close()


def publish(exchange: str, key: str) -> Deed:
    """Return the deed of publishing a message."""

    def deed(channel: BlockingChannel) -> None:
        channel.basic_publish(exchange, key, b"{}")

    deed.__name__ = f"publish {key!r} to {exchange or 'the default exchange'}"
    return deed


def consume(queue: str) -> Deed:
    """Return the deed of consuming from a queue."""

    def deed(channel: BlockingChannel) -> None:
        channel.basic_consume(queue, lambda *_: None)

    deed.__name__ = f"consume {queue}"
    return deed


def declare(queue: str, **options: bool) -> Deed:
    """Return the deed of declaring a queue."""

    def deed(channel: BlockingChannel) -> None:
        channel.queue_declare(queue, **options)

    deed.__name__ = f"declare {queue}"
    return deed


def control(channel: BlockingChannel) -> None:
    """Bind a control queue of one's own and consume from it, as each worker does."""
    queue = "leveret.control.permissions-test"
    channel.queue_declare(queue, exclusive=True)
    channel.queue_bind(queue, "leveret.control")
    channel.basic_consume(queue, lambda *_: None)


def delete(queue: str) -> Deed:
    """Return the deed of deleting a queue."""

    def deed(channel: BlockingChannel) -> None:
        channel.queue_delete(queue)

    deed.__name__ = f"delete {queue}"
    return deed


ENTRIES = [
    publish("leveret.jobs", "default.email.send"),
    publish("leveret.jobs", "any.email.send"),
    publish("leveret.delay", f"{IN_A_WHILE}.default.email.send"),
]
WORKER_WORK = [
    consume("leveret.critical"),
    consume("leveret.bulk"),
    consume("leveret.quarantine.default"),
    publish("leveret.retry", f"{IN_A_WHILE}.bulk.data.aggregate"),
    publish("leveret.outcomes", "succeeded"),
    publish("leveret.dead", "default"),
    control,
]
RECORDER_WORK = [
    consume("leveret.ledger"),
    consume("leveret.dead.default"),
    consume("leveret.unroutable"),
]
WORK: dict[str, list[Deed]] = {
    "publisher": ENTRIES,
    "relay": ENTRIES,
    "worker": [*ENTRIES, *WORKER_WORK],
    "recorder": RECORDER_WORK,
    "api": [publish("leveret.control", "")],
    "admin": [
        declare("leveret.permissions-test", durable=True),
        delete("leveret.permissions-test"),
    ],
    "monitor": [],
}
OUTSIDE: list[Deed] = [
    publish("", "leveret.default"),
    publish("amq.topic", "default.email.send"),
    declare("somebody-elses", exclusive=True),
    delete("leveret.default"),
]
KEYS_OUTSIDE = [
    publish("leveret.jobs", "elsewhere.email.send"),
    publish("leveret.jobs", "leveret.default"),
    publish("leveret.delay", "default.email.send"),
    publish("leveret.delay", f"{IN_A_WHILE}.elsewhere.email.send"),
    publish("leveret.delay", "0.0.0.0.0.0.g.default.email.send"),
    publish("leveret.delay", "0.0.0.0.0.a.default.email.send"),
    publish("leveret.delay", f"0.{IN_A_WHILE}.default.email.send"),
]
FORBIDDEN: dict[str, list[Deed]] = {
    "publisher": [*OUTSIDE, *KEYS_OUTSIDE, *WORKER_WORK, *RECORDER_WORK],
    "relay": [*OUTSIDE, *KEYS_OUTSIDE, *WORKER_WORK, *RECORDER_WORK],
    "worker": [
        *OUTSIDE,
        *KEYS_OUTSIDE,
        *RECORDER_WORK,
        publish("leveret.retry", "bulk.data.aggregate"),
        publish("leveret.control", ""),
        publish("leveret.due", "default.email.send"),
        declare("leveret.default-2", durable=True),
    ],
    "recorder": [*OUTSIDE, *ENTRIES, *WORKER_WORK],
    "api": [*OUTSIDE, *ENTRIES, *WORKER_WORK, *RECORDER_WORK],
    "monitor": [*OUTSIDE, *ENTRIES, *WORKER_WORK, *RECORDER_WORK],
    "admin": [declare("somebody-elses", durable=True), publish("", "somebody-elses")],
}


def pairs(table: dict[str, list[Deed]]) -> list[object]:
    """Return each role with each of its deeds, named."""
    return [
        pytest.param(role, deed, id=f"{role}: {deed.__name__}")
        for role, deeds in table.items()
        for deed in deeds
    ]


def test_every_role_is_covered() -> None:
    """A new role needs its work and its limits written down here."""
    assert set(WORK) == set(ROLES) == set(FORBIDDEN)


@pytest.mark.parametrize(("role", "deed"), pairs(WORK))
def test_a_role_may_do_its_work(vhost: Vhost, role: str, deed: Deed) -> None:
    """The broker lets the role's user do what its process does."""
    with channel_of(vhost, role) as channel:
        deed(channel)


@pytest.mark.parametrize(("role", "deed"), pairs(FORBIDDEN))
def test_a_role_may_not_do_more(vhost: Vhost, role: str, deed: Deed) -> None:
    """The broker refuses the role's user what another process does, or nobody."""
    with channel_of(vhost, role) as channel, pytest.raises(ChannelClosedByBroker) as refusal:
        deed(channel)
    assert refusal.value.reply_code == 403
    assert "refused" in refusal.value.reply_text


@pytest.mark.parametrize("role", ["api", "monitor", "admin"])
def test_a_watching_role_sees_the_queues(vhost: Vhost, role: str) -> None:
    """The roles with a tag may use the management API."""
    with Management(vhost.management_url_for(role)) as management:
        assert management.queue(vhost.name, "leveret.default") is not None


@pytest.mark.parametrize("role", ["publisher", "relay", "worker", "recorder"])
def test_a_working_role_has_no_management_api(vhost: Vhost, role: str) -> None:
    """The roles without a tag may not even look."""
    with (
        Management(vhost.management_url_for(role)) as management,
        pytest.raises(ManagementError, match="401"),
    ):
        management.overview()


@pytest.mark.parametrize("role", sorted(ROLES))
def test_no_role_administers(vhost: Vhost, role: str) -> None:
    """Users and virtual hosts are the owner's business, whom no process is."""
    with Management(vhost.management_url_for(role)) as management:
        with pytest.raises(ManagementError, match=r"401|403"):
            management.put_user("intruder", password="intruder", tags=["administrator"])
        with pytest.raises(ManagementError, match=r"401|403"):
            management.create_vhost("intruder")


def test_granting_again_takes_away_what_was_added(fresh_vhost: Vhost) -> None:
    """Permissions that a role's user should not have are gone after the next `make up`."""
    user, name = ROLES["recorder"].user, fresh_vhost.declare().name
    management = fresh_vhost.management
    management.put_permissions(name, user, configure=".*", write=".*", read=".*")
    management.put_topic_permission(name, user, "leveret.jobs", write=".*")
    grant(management, name)
    role = ROLES["recorder"]
    found = management.get("permissions", name, user)
    assert (found["configure"], found["write"], found["read"]) == (
        role.configure,
        role.write,
        role.read,
    )
    assert management.topic_permissions(name, user) == {}


def test_nobody_publishes_before_the_exchanges_restrict_it(fresh_vhost: Vhost) -> None:
    """Where an exchange is missing, a role is restricted already, or may do nothing at all."""
    fresh_vhost.declare()
    user, name, management = ROLES["publisher"].user, fresh_vhost.name, fresh_vhost.management
    management.delete("exchanges", name, "leveret.jobs")
    withheld = grant(management, name)
    may_write = management.get("permissions", name, user)["write"] != NOTHING
    assert may_write is ("publisher" not in withheld)
    assert may_write is ("leveret.jobs" in management.topic_permissions(name, user))
    fresh_vhost.declare()
    assert grant(management, name) == ()
    assert sorted(management.topic_permissions(name, user)) == ["leveret.delay", "leveret.jobs"]


def topology(
    vhost: Vhost, management_url: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a `leveret topology` command, as the broker's admin."""
    return subprocess.run(
        [sys.executable, "-m", "leveret", "topology", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "LEVERET_AMQP_URL": vhost.url("admin"),
            "LEVERET_MANAGEMENT_URL": management_url,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def write_passwords(vhost: Vhost, folder: Path) -> None:
    """Write the file of each role's password, as an operator does."""
    for role in ROLES:
        (folder / f"{role}.password").write_text(f"{vhost.passwords[role]}\n")


def apply_with(folder: Path, vhost: Vhost, management_url: str) -> subprocess.CompletedProcess[str]:
    """Run the command that makes users and topology, as a container's first step does."""
    return topology(vhost, management_url, "apply", "--passwords", str(folder))


def test_one_command_makes_the_users_and_what_they_use(fresh_vhost: Vhost, tmp_path: Path) -> None:
    """An administrator's command brings each role to its password and permissions."""
    management, name = fresh_vhost.management, fresh_vhost.name
    management.put_permissions(name, "leveret-relay", configure=".*", write=NOTHING, read=".*")
    write_passwords(fresh_vhost, tmp_path)
    answer = apply_with(tmp_path, fresh_vhost, fresh_vhost.management_url)
    assert answer.returncode == 0, answer.stderr
    found = management.get("permissions", name, "leveret-relay")
    role = ROLES["relay"]
    assert (found["configure"], found["write"], found["read"]) == (
        role.configure,
        role.write,
        role.read,
    )
    assert management.topic_permissions(name, "leveret-relay").keys() == role.topics.keys()
    with channel_of(fresh_vhost, "relay") as channel:
        publish("leveret.jobs", "default.email.send")(channel)


def test_without_a_password_for_each_role_nothing_is_changed(
    fresh_vhost: Vhost, tmp_path: Path
) -> None:
    """The operator learns which file is missing or empty."""
    answer = apply_with(tmp_path, fresh_vhost, fresh_vhost.management_url)
    assert answer.returncode == 2
    assert "admin.password cannot be read" in answer.stderr
    for role in ROLES:
        (tmp_path / f"{role}.password").write_text("\n" if role == "worker" else "x")
    answer = apply_with(tmp_path, fresh_vhost, fresh_vhost.management_url)
    assert answer.returncode == 2
    assert "worker.password is empty" in answer.stderr
    assert fresh_vhost.management.queues(fresh_vhost.name) == []


def test_a_lost_topic_permission_is_reported_and_comes_back(
    fresh_vhost: Vhost, tmp_path: Path
) -> None:
    """RabbitMQ 4.3 loses those of an exchange that is deleted, and its users publish any key."""
    url = fresh_vhost.management_url
    write_passwords(fresh_vhost, tmp_path)
    assert apply_with(tmp_path, fresh_vhost, url).returncode == 0
    found = topology(fresh_vhost, url, "check")
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    fresh_vhost.management.delete_topic_permissions(fresh_vhost.name, ROLES["publisher"].user)
    found = topology(fresh_vhost, url, "check")
    assert found.returncode == 1
    assert found.stdout.splitlines() == [
        f"missing: topic permission of leveret-publisher on {exchange} "
        "(it may publish any routing key)"
        for exchange in ("leveret.delay", "leveret.jobs")
    ]
    assert apply_with(tmp_path, fresh_vhost, url).returncode == 0
    assert topology(fresh_vhost, url, "check").returncode == 0


def test_who_may_not_see_permissions_is_told_that_they_were_not_looked_at(
    fresh_vhost: Vhost, tmp_path: Path
) -> None:
    """The rest is compared all the same."""
    write_passwords(fresh_vhost, tmp_path)
    assert apply_with(tmp_path, fresh_vhost, fresh_vhost.management_url).returncode == 0
    found = topology(fresh_vhost, fresh_vhost.management_url_for("monitor"), "check")
    assert found.returncode == 0, found.stdout
    assert found.stderr == (
        "the users' permissions were not looked at: leveret-monitor is no administrator\n"
    )
