"""What the Dockerfile runs while it builds."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from compose.image import keep_new, sbom

ROOT = Path(__file__).resolve().parents[2]
STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: a library
 Version: of no meaning here

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def test_the_bill_lists_each_distribution_and_each_installed_package(tmp_path):
    """With the addresses by which scanners know them; the same input gives the same bill."""
    (tmp_path / "status").write_text(STATUS)
    bills = [sbom.bill(list(distributions()), tmp_path / "status") for _ in range(2)]
    assert bills[0] == bills[1]
    listed = {one["purl"] for one in bills[0]["components"]}
    debian = [purl for purl in listed if purl.startswith("pkg:deb/")]
    assert len(debian) == 1
    assert debian[0].startswith("pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian")
    assert any(purl.startswith("pkg:pypi/prometheus-client@") for purl in listed)
    assert bills[0]["metadata"]["component"]["name"] == "leveret"
    assert len({one["bom-ref"] for one in bills[0]["components"]}) == len(bills[0]["components"])
    assert json.dumps(bills[0])


def test_a_layer_keeps_only_what_the_one_below_lacks(tmp_path, monkeypatch):
    """What was changed or added stays; what is the same goes, with folders that are empty then."""
    for state, text in (("before", "old"), ("now", "new")):
        (tmp_path / state / "same").mkdir(parents=True)
        (tmp_path / state / "same" / "file").write_text("as it was")
        (tmp_path / state / "changed").write_text(text)
        (tmp_path / state / "link").symlink_to("changed")
    (tmp_path / "now" / "added").mkdir()
    (tmp_path / "now" / "added" / "file").write_text("x")
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "before"), str(tmp_path / "now")])
    keep_new.main()
    left = {str(path.relative_to(tmp_path / "now")) for path in (tmp_path / "now").rglob("*")}
    assert left == {"changed", "added", "added/file"}


@pytest.fixture
def secrets(tmp_path) -> Path:
    """Return a folder that the script has filled."""
    script = ROOT / "compose" / "secrets.sh"
    subprocess.run(["sh", script, tmp_path / "s"], check=True, capture_output=True)
    return tmp_path / "s"


def test_generated_secrets_are_kept_and_their_folder_is_closed(secrets):
    """A second run changes nothing; nobody else enters the folder; URLs carry the passwords."""
    first = {file.name: file.read_text() for file in secrets.iterdir()}
    subprocess.run(
        ["sh", ROOT / "compose" / "secrets.sh", secrets], check=True, capture_output=True
    )
    assert {file.name: file.read_text() for file in secrets.iterdir()} == first
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in secrets.iterdir()} == {0o444}
    passwords = [text for name, text in first.items() if name.endswith(".password")]
    assert len(set(passwords)) == len(passwords)
    assert all(len(text) == 48 for text in passwords)
    assert first["relay.amqp-url"] == (
        f"amqp://leveret-relay:{first['relay.password']}@rabbitmq:5672/leveret\n"
    )


def test_every_secret_of_the_compose_file_is_generated(secrets):
    """And each role of the broker has a password."""
    from leveret.topology import ROLES  # noqa: PLC0415 - the rest needs no broker's table

    text = (ROOT / "compose" / "compose.yaml").read_text()
    wanted = {
        line.rsplit("/", 1)[1].rstrip('"}') for line in text.splitlines() if "{file: " in line
    }
    assert len(wanted) > 15
    assert wanted <= {file.name for file in secrets.iterdir()}
    assert {f"{role}.password" for role in ROLES} <= {file.name for file in secrets.iterdir()}
