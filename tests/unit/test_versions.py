"""One version everywhere, and the Pythons that are promised."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import metadata

import pytest

from tests.releases import checklist, frozen
from tests.support.gates import GATES, gate_of
from tests.support.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: How a file names the version of Leveret.
NAMED = re.compile(
    r"(?:\bleveret(?:-actors)?:|\bnewTag: |\bARG VERSION=|\bleveret==)(\d+\.\d+\.\d+[\w.+-]*)"
)


def tracked(*patterns):
    """Return the files of the tree."""
    done = subprocess.run(
        ["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in done.stdout.splitlines()]


def test_every_file_names_the_same_version():
    """Image tags in Compose, Kubernetes, Dockerfiles and pages, and the installed package."""
    found = {
        (path.relative_to(ROOT).as_posix(), version)
        for path in tracked("compose", "k8s", "docs", "Dockerfile", "README.md")
        if path.suffix in ("", ".yaml", ".md", ".sh")
        for version in NAMED.findall(path.read_text())
    }
    named = {path for path, _ in found}
    assert named >= {"Dockerfile", "compose/compose.yaml", "k8s/overlays/prod/kustomization.yaml"}
    assert {version for _, version in found} == {PROJECT["version"]}, found
    assert metadata.version("leveret") == PROJECT["version"]


def test_the_changelog_has_a_place_for_what_is_new_and_then_the_releases_in_order():
    """`Unreleased` first; below it each release with its date, the newest first."""
    sections = re.findall(
        r"^## \[(.+?)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert sections[0] == ("Unreleased", "")
    out = [[int(part) for part in version.split(".")] for version, _ in sections[1:]]
    assert out == sorted(out, reverse=True)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in sections[1:])
    ours = [int(part) for part in PROJECT["version"].split(".")]
    assert all(version <= ours for version in out)
    assert {version for version, _ in sections[1:]} <= {one.version for one in frozen.releases()}


def test_the_pythons_that_are_promised_are_those_that_are_named():
    """From the lower bound to the newest classifier there is none missing."""
    named = [
        int(classifier.rpartition(".")[2])
        for classifier in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", classifier)
    ]
    lowest = int(PROJECT["requires-python"].rpartition(".")[2])
    assert named == list(range(lowest, lowest + len(named)))


def test_every_gate_has_tests():
    """A gate without tests would hold whatever happens."""
    there = {gate_of(path.relative_to(ROOT).as_posix()) for path in tracked("tests")}
    assert there >= GATES.keys()


@pytest.mark.parametrize(
    ("section", "mark"),
    [
        ("- A thing.\n", "[ ]"),
        (f"- A thing.\n\n## [{PROJECT['version']}] - 2026-01-31\n", "[ ]"),
        (f"\n## [{PROJECT['version']}] - 2026-01-31\n\n- A thing.\n", "[x]"),
    ],
)
def test_the_checklist_says_what_is_to_be_done(capsys, monkeypatch, section, mark):
    """The changelog has the version's date, and nothing is left under `Unreleased`."""
    text = f"# Changelog\n\n## [Unreleased]\n\n{section}"
    monkeypatch.setattr(frozen, "changelog", lambda: text)
    monkeypatch.setattr(checklist, "_frozen_is_stale", lambda: ["wire.json"])
    assert checklist.main() == 1
    said = capsys.readouterr().out
    assert f"{mark} CHANGELOG.md" in said
    assert "wire.json is not" in said
    assert f"git tag --sign v{PROJECT['version']}" in said
