"""What users name stays, messages of older releases are understood, and all is frozen in time."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.releases import corpus, frozen, surface
from tests.releases.frozen import FOLDER, Release
from tests.releases.http import broken
from tests.support.pages import ROOT

RELEASES = [pytest.param(release, id=release.version) for release in frozen.releases()]
OUT = [release for release in frozen.releases() if release.is_out]


def taken_away(release):
    """Return what this tree took from the users of a release."""
    return surface.vanished(release.surface, surface.collect()) | {
        f"http: {line}" for line in broken(release.openapi, surface.openapi())
    }


@pytest.mark.parametrize("release", RELEASES)
def test_nothing_that_a_user_names_has_vanished_without_a_word(release):
    """Settings, options, HTTP calls, metrics, headers, public names: taken away only knowingly."""
    known = frozen.removed().get(release.version, {})
    gone = taken_away(release)
    assert gone <= known.keys(), (
        f"{release.version} had {sorted(gone - known.keys())}. Bring it back, or say in "
        f"tests/releases/removed.json under {release.version!r} what to do instead, and in "
        "CHANGELOG.md under Removed"
        + ("" if release.is_out else "; or run `make freeze`, since it is not out yet")
    )


def test_what_was_taken_away_is_told_to_users_and_really_gone():
    """Each entry of removed.json is true, says what to do instead, and is in the changelog."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    for release in frozen.releases():
        known = frozen.removed().get(release.version, {})
        assert known.keys() <= taken_away(release)
        for name, instead in known.items():
            assert instead.strip()
            assert name.split(": ", 1)[1].split(" ")[0] in changelog, name
    assert frozen.removed().keys() <= {release.version for release in frozen.releases()}


def test_a_name_that_vanishes_is_noticed():
    """The comparison can fail: a setting, an option of a command, a label, a parameter."""
    now = surface.collect()
    without = json.loads(json.dumps(now))
    del without["settings"]["LEVERET_AMQP_URL"]
    without["commands"]["leveret publish"].remove("--queue")
    without["metrics"]["leveret_jobs_total"].remove("actor")
    without["names"]["leveret.outbox.enqueue"].remove("delay")
    without["settings"]["LEVERET_NEW"] = None
    assert surface.vanished(now, without) == {
        "settings: LEVERET_AMQP_URL",
        "commands: leveret publish --queue",
        "metrics: leveret_jobs_total actor",
        "names: leveret.outbox.enqueue delay",
    }


@pytest.mark.parametrize("release", RELEASES)
def test_every_message_of_an_older_release_is_read_as_it_was(release):
    """Whatever waits in the broker while a new release starts leads to what it led to."""
    for posted, read in release.messages:
        found = corpus.read(posted)
        assert corpus.covers(found, read), f"{posted.name}: {read} is now {found}"
    for row, read in release.outbox:
        assert corpus.covers(corpus.read_row(row), read), row


def test_a_message_that_is_read_otherwise_is_noticed():
    """The comparison can fail, and lets a reader find more than before."""
    old = {"job": {"attempt": 2, "queue": "default"}, "events": [{"kind": "dead"}]}
    more = {"job": {"attempt": 2, "queue": "default", "new": 1}, "events": [{"kind": "dead"}]}
    assert corpus.covers(more, old)
    for other in (
        {**more, "job": {"attempt": 1, "queue": "default"}},
        {**more, "job": {"attempt": 2}},
        {**more, "events": []},
        {**more, "events": [{"kind": "expired"}]},
    ):
        assert not corpus.covers(other, old)


def test_the_corpus_has_every_kind_of_message():
    """Every exchange that a message enters, every event of a record, every way to be refused."""
    written = corpus.messages()
    read = [corpus.read(posted) for posted in written]
    assert {posted.exchange for posted in written} >= {
        "leveret.jobs",
        "leveret.delay",
        "leveret.retry",
        "leveret.quarantine",
        "leveret.outcomes",
        "leveret.dead",
        "leveret.control",
    }
    events = {event.get("kind", "beat") for found in read for event in found.get("events", ())}
    assert events == {
        "beat", "started", "progress", "succeeded", "retrying", "snoozed", "quarantined", "dead",
        "expired", "cancelled",
    }  # fmt: skip
    assert {found.get("refused") for found in read} == {None, "not-json", "bad-header"}
    headers = {name for posted in written for name in posted.properties.headers or ()}
    assert surface.collect()["headers"].keys() <= headers


def test_this_version_is_frozen_as_it_is():
    """Until it is out, its folder follows the tree: `make freeze` writes it anew."""
    version = frozen.this_version()
    release = Release(version)
    assert release.folder.is_dir(), f"{version} is not frozen; run `make freeze`"
    if release.is_out:
        pytest.skip(f"{version} is out, so its folder stays as it is")
    stale = [
        name
        for name, text in frozen.texts().items()
        if not (release.folder / name).exists() or (release.folder / name).read_text() != text
    ]
    assert not stale, (
        f"tests/releases/{version} is not what this tree would release ({', '.join(stale)}); run "
        "`make freeze` and look at what changes"
    )


@pytest.mark.skipif(not OUT, reason="no release is out yet")
def test_what_a_release_was_never_changes():
    """The folder of a release that is out is as it was in the commit that has its tag."""
    for release in OUT:
        done = subprocess.run(
            ["git", "diff", "--stat", f"v{release.version}", "--", release.folder],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"the tag v{release.version} is not here: {done.stderr.strip()}")
        assert not done.stdout, done.stdout


def test_the_pages_import_nothing_that_is_not_held_stable():
    """What a page tells its readers to import is in the frozen public names."""
    for page in [*(ROOT / "docs" / "how-to").glob("*.md"), ROOT / "README.md"]:
        for module, words in re.findall(
            r"^from (leveret[\w.]*) import ([\w, ]+)", page.read_text(), re.MULTILINE
        ):
            for word in words.split(","):
                known = module in surface.PUBLIC or f"{module}.{word.strip()}" in surface.PUBLIC
                assert known, f"{page.name}: from {module} import {word}"


def test_every_folder_is_a_release():
    """Nothing lies about here that no gate looks at."""
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == {release.version for release in frozen.releases()}
