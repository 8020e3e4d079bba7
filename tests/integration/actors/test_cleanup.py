"""`storage.cleanup` in a local storage."""

import os
import time
from datetime import timedelta

import pytest

from actors.cleanup import cleanup
from actors.error import ActorArgumentError
from actors.storage import storage

DAY = timedelta(days=1)


@pytest.fixture
def aged(put):
    """Return a function that puts a file of a given age into the storage."""

    def write(reference, age, content=b"12345"):
        put(reference, content)
        moment = time.time() - age.total_seconds()
        os.utime(storage().path(reference), (moment, moment))

    return write


def left(prefix):
    """Return the paths that are still there."""
    return sorted(entry.path for entry in storage().files(prefix))


def test_old_files_go_and_young_ones_and_neighbours_stay(aged):
    """Only what is old and below the prefix is deleted, in folders too."""
    aged("reports/old.csv", 40 * DAY)
    aged("reports/deep/er/old.csv", 31 * DAY)
    aged("reports/young.csv", 29 * DAY)
    aged("reports2/old.csv", 40 * DAY)
    result = cleanup.fn(prefix="reports", older_than=30 * DAY)
    assert result == {
        "examined": 3,
        "matched": 2,
        "deleted": 2,
        "bytes": 10,
        "dry_run": False,
        "complete": True,
    }
    assert left("reports") == ["reports/young.csv"]
    assert left("reports2") == ["reports2/old.csv"]
    assert cleanup.fn(prefix="reports", older_than=30 * DAY)["deleted"] == 0


def test_a_dry_run_counts_and_deletes_nothing(aged):
    """What would go can be seen first."""
    aged("reports/old.csv", 40 * DAY)
    result = cleanup.fn(prefix="reports", older_than=DAY, dry_run=True)
    assert (result["matched"], result["deleted"], result["dry_run"]) == (1, 0, True)
    assert left("reports") == ["reports/old.csv"]


def test_a_job_deletes_no_more_than_its_limit_and_says_so(aged):
    """A slip in the prefix cannot empty a storage at once; the next run goes on."""
    for number in range(5):
        aged(f"reports/{number}", 2 * DAY)
    first = cleanup.fn(prefix="reports", older_than=DAY, max_count=3)
    assert (first["deleted"], first["complete"]) == (3, False)
    assert len(left("reports")) == 2
    second = cleanup.fn(prefix="reports", older_than=DAY, max_count=3)
    assert (second["deleted"], second["complete"]) == (2, True)


@pytest.mark.parametrize(
    "prefix", ["", "/", ".", "./", " ", "..", "reports/..", "/etc", "file:///"]
)
def test_the_whole_storage_is_never_a_prefix(aged, prefix):
    """Empty, root and climbing prefixes are dead, and nothing is deleted."""
    aged("reports/old.csv", 40 * DAY)
    with pytest.raises(ActorArgumentError):
        cleanup.fn(prefix=prefix, older_than=DAY)
    assert left("reports") == ["reports/old.csv"]


def test_the_storages_own_url_is_no_prefix(aged):
    """The root is refused when it is written as a URL, too."""
    aged("reports/old.csv", 40 * DAY)
    root = storage().url("reports").removesuffix("/reports")
    for prefix in (root, root + "/"):
        with pytest.raises(ActorArgumentError):
            cleanup.fn(prefix=prefix, older_than=DAY)
    assert cleanup.fn(prefix=root + "/reports", older_than=DAY)["deleted"] == 1


def test_a_link_that_leads_out_of_the_storage_is_not_followed(aged, tmp_path):
    """Files elsewhere are safe from a link in the storage."""
    aged("reports/old.csv", 40 * DAY)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    os.utime(outside / "precious", (0, 0))
    (tmp_path / "storage" / "reports" / "link").symlink_to(outside)
    result = cleanup.fn(prefix="reports", older_than=DAY)
    assert (outside / "precious").exists()
    assert result["deleted"] == 1


def test_what_a_killed_writer_left_behind_goes_too(aged):
    """An abandoned part of a file is old one day."""
    aged("reports/.0123.part", 2 * DAY)
    assert cleanup.fn(prefix="reports", older_than=DAY)["deleted"] == 1


def test_a_prefix_that_is_not_there_has_nothing_to_delete():
    """The first run of a schedule may come before the first report."""
    assert cleanup.fn(prefix="reports", older_than=DAY)["examined"] == 0
