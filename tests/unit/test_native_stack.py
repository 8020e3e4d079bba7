"""The parts of the native stack that need no server."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compose.native import (
    docker,
    envfile,
    install,
    passwords,
    paths,
    ports,
    postgres,
    processes,
    rabbitmq,
    releases,
)
from compose.native.accounts import Account, write_private
from compose.native.errors import StackError
from compose.native.install import ensure_apt
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def mode(path: Path) -> int:
    """Return the permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_an_environment_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """Values with spaces, quotes and dollars survive, for us and for a shell."""
    file = tmp_path / "env"
    variables = {"LEVERET_A": "amqp://u:p%2F@h:1/v", "LEVERET_B": "a 'b' \"c\" $HOME #d"}
    envfile.write(file, variables)
    assert envfile.read(file) == variables
    script = f'. {file} && printf "%s" "$LEVERET_B"'
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stdout == variables["LEVERET_B"]


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    """A file with secrets has mode 600, even where it was open to all before."""
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o666)
    write_private(file, "new")
    assert mode(file) == 0o600
    assert file.read_text() == "new"


def test_passwords_are_generated_once(tmp_path: Path) -> None:
    """A second run keeps the passwords, and only adds those of new names."""
    file = tmp_path / "passwords.json"
    first = passwords.ensure(file, ["worker", "relay"])
    second = passwords.ensure(file, ["worker", "relay", "api"])
    assert {name: second[name] for name in first} == first
    assert len(set(second.values())) == 3
    assert min(map(len, second.values())) >= 32
    assert mode(file) == 0o600


def test_ports_are_remembered_until_somebody_takes_one(tmp_path: Path) -> None:
    """A port stays the same from run to run; one that is taken is replaced, alone."""
    file = tmp_path / "ports.json"
    first = ports.remembered(file, ["amqp", "http"])
    assert ports.remembered(file, ["amqp", "http"]) == first
    with socket.create_server((ports.HOST, first["amqp"])):
        moved = ports.remembered(file, ["amqp", "http"])
    assert moved["amqp"] != first["amqp"]
    assert moved["http"] == first["http"]


def test_two_checkouts_have_different_keys(tmp_path: Path) -> None:
    """What is named after a checkout is its own."""
    assert paths.Checkout(tmp_path / "a").key != paths.Checkout(tmp_path / "b").key


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own what is somebody else's")
def test_a_directory_that_is_somebody_elses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that another user has put in our place is not used."""
    there = tmp_path / "planted"
    there.mkdir()
    os.chown(there, 12345, 12345)
    with pytest.raises(StackError, match="does not belong to uid"):
        paths.private_directory(there)


def test_a_link_in_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    """Data is not written where a link leads."""
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(StackError, match="move it away"):
        paths.private_directory(tmp_path / "link")


def test_a_process_is_found_by_its_mark_and_ended(tmp_path: Path) -> None:
    """A process and its children are found, and none is left, though they ignore SIGTERM."""
    mark = f"test:{tmp_path}"
    processes.spawn(
        ["sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"],
        mark=mark,
        env={"PATH": os.defpath},
        log=tmp_path / "log",
        account=Account.current(),
        cwd=tmp_path,
    )
    wait_until(lambda: sorted(processes.marked(mark).values()) == ["sh", "sleep"])
    processes.end(mark, grace_seconds=0.2)
    assert processes.marked(mark) == {}


def test_a_process_is_found_while_it_replaces_its_program(tmp_path: Path) -> None:
    """In the midst of that it shows no environment; but it has not ended."""
    mark = f"test:{tmp_path}"
    restless = tmp_path / "restless"
    restless.write_text(f"#!/bin/sh\nexec {restless}\n")
    restless.chmod(0o700)
    processes.spawn(
        [str(restless)],
        mark=mark,
        env={"PATH": os.defpath},
        log=tmp_path / "log",
        account=Account.current(),
        cwd=tmp_path,
    )
    wait_until(lambda: processes.marked(mark))
    looks = [len(processes.marked(mark)) for _ in range(200)]
    processes.kill(mark)
    assert looks == [1] * 200


def helpless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make this a machine of a user without rights, on which nothing is installed."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rabbitmq, "_DEBIAN_SCRIPTS", tmp_path)
    monkeypatch.setattr(postgres, "_ELSEWHERE", ())
    monkeypatch.setattr(install, "is_installed", lambda _: False)


def test_without_a_broker_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The three ways out are named: install, Docker, an URL."""
    helpless(monkeypatch, tmp_path)
    with pytest.raises(StackError) as refusal:
        rabbitmq.find_scripts()
    for remedy in ("rabbitmq-server", "Docker", "LEVERET_AMQP_URL"):
        assert remedy in str(refusal.value)


def test_without_a_database_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The three ways out are named: install, Docker, an URL."""
    helpless(monkeypatch, tmp_path)
    monkeypatch.setattr(paths.Checkout, "here", lambda: paths.Checkout(tmp_path))
    with pytest.raises(StackError) as refusal:
        postgres.find_binaries()
    for remedy in ("postgresql", "Docker", "LEVERET_DATABASE_URL"):
        assert remedy in str(refusal.value)


def test_without_rights_the_command_for_a_person_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where apt exists but we may not use it, the message is a command to run."""
    helpless(monkeypatch, tmp_path)
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "apt-get").chmod(0o755)
    with pytest.raises(StackError, match=r"Run: sudo apt-get install .*rabbitmq-server"):
        ensure_apt(["rabbitmq-server"], "a test")


def test_what_apt_says_is_shown_when_it_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed installation is reported with apt's own words, and was announced before."""
    helpless(monkeypatch, tmp_path)
    monkeypatch.setattr(install, "_POLICY", tmp_path)
    monkeypatch.setattr(install, "_as_root", list)
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho E: no such package >&2; exit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    with pytest.raises(StackError, match="E: no such package"):
        ensure_apt(["no-such"], "a test")
    assert "installing no-such with apt-get, for a test" in capsys.readouterr().out


def test_an_installation_starts_no_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While apt runs, a policy forbids services to start; afterwards it is gone again."""
    policy, seen = tmp_path / "policy-rc.d", tmp_path / "seen"
    monkeypatch.setattr(install, "_POLICY", policy)
    monkeypatch.setattr(install, "_as_root", list)
    monkeypatch.setattr(install, "is_installed", lambda _: False)
    (tmp_path / "apt-get").write_text(f"#!/bin/sh\n{policy}; echo $? >> {seen}\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    ensure_apt(["anything"], "a test")
    assert seen.read_text().split() == ["101", "101"]
    assert not policy.exists()


def test_python_that_is_too_old_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """Without a Python of at least 3.11 the message says how to name one."""
    script = Path(rabbitmq.__file__).with_name("find-python.sh")
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    (tmp_path / "sh").symlink_to("/bin/sh")
    answer = subprocess.run(
        ["/bin/sh", str(script)],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert "set PYTHON=" in answer.stderr


def test_python_may_be_named(tmp_path: Path) -> None:
    """`PYTHON` goes before what is on PATH."""
    script = Path(rabbitmq.__file__).with_name("find-python.sh")
    answer = subprocess.run(
        ["/bin/sh", str(script)],
        env={"PATH": str(tmp_path), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == sys.executable


ENGINE = """#!/bin/sh
echo "$*" >> {said}
case "$*" in *" up "*) sleep 0.2;; esac
"""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Put a program in Docker's place; return the file in which it notes its arguments."""
    said = tmp_path / "said"
    (tmp_path / "docker").write_text(ENGINE.format(said=said))
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    docker.engine_runs.cache_clear()
    docker._up.cache_clear()
    yield said
    docker.engine_runs.cache_clear()
    docker._up.cache_clear()


def test_the_broker_and_the_database_are_started_by_one_command(
    engine: Path, tmp_path: Path
) -> None:
    """Two threads ask for the containers; one command starts them, and both get the same ports."""
    checkout = paths.Checkout(tmp_path)
    checkout.stack.mkdir()
    owner = rabbitmq.Credentials("owner", "secret")
    with ThreadPoolExecutor(max_workers=2) as pool:
        asked = [pool.submit(docker.up, checkout, owner, "secret") for _ in range(2)]
        ports_of = [each.result() for each in asked]
    assert ports_of[0] is not None
    assert ports_of[0] == ports_of[1]
    assert sum(" up " in line for line in engine.read_text().splitlines()) == 1
    assert "secret" not in engine.read_text()


def test_only_the_two_servers_are_started_with_their_secrets_in_files(
    engine: Path, tmp_path: Path
) -> None:
    """The rest of compose.yaml is for another use; nobody else may enter the secrets' folder."""
    checkout = paths.Checkout(tmp_path)
    checkout.stack.mkdir()
    for _ in range(2):  # files that are there already are replaced
        docker._up.cache_clear()
        docker.up(checkout, rabbitmq.Credentials("owner", "hidden"), "secret")
    line = next(line for line in engine.read_text().splitlines() if " up " in line)
    assert line.endswith(" up --detach --wait rabbitmq postgres")
    folder = checkout.stack / "secrets"
    assert mode(folder) == 0o700
    assert (folder / "owner.conf").read_text().splitlines() == [
        "default_user = owner",
        "default_pass = hidden",
        "default_vhost = leveret",
    ]
    assert (folder / "postgres.password").read_text() == "secret\n"
    assert "hidden" not in (checkout.stack / "compose.env").read_text()


def test_the_data_of_containers_goes_with_their_passwords(engine: Path, tmp_path: Path) -> None:
    """Volumes survive `down`, and are removed on demand."""
    checkout = paths.Checkout(tmp_path)
    checkout.stack.mkdir()
    docker.up(checkout, rabbitmq.Credentials("owner", "secret"), "secret")
    docker.down(checkout)
    assert engine.read_text().splitlines()[-1].endswith(" down")
    docker.remove_data(checkout)
    assert engine.read_text().splitlines()[-1].endswith(" down --volumes")


def test_a_release_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names what can be asked for."""
    monkeypatch.setenv(releases.VARIABLE, "2.8")
    with pytest.raises(StackError, match=r"'2\.8': set it to 4\.0 or 4\.3"):
        releases.wanted()


def test_without_a_wish_the_installed_release_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable is none: `make` always exports it."""
    monkeypatch.setenv(releases.VARIABLE, "")
    assert releases.wanted() is None


def test_a_release_that_its_suite_has_left_behind_is_refused(tmp_path: Path) -> None:
    """Debian's moving release may have a later RabbitMQ than the one that was asked for."""
    with pytest.raises(StackError, match=r"sid has rabbitmq-server_4\.5\.1-1_all\.deb by now"):
        releases._check_version("4.3", [tmp_path / "rabbitmq-server_4.5.1-1_all.deb"])
