"""The storage: containment, atomic writes, listings; on a local folder and in memory."""

import hashlib
import os
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.error import ActorArgumentError, ActorSettingsError
from actors.storage import Storage, storage


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    """Give an empty storage of each kind."""
    if request.param == "file":
        return Storage(str(tmp_path / "root"))
    return Storage(f"memory://{uuid.uuid4().hex}/root")


def put(store, reference, content=b"content"):
    """Write one file."""
    with store.writing(reference) as draft:
        draft.path.write_bytes(content)
    return draft.result()


def fail_to_put(store, reference):
    """Fail in the middle of writing a file."""
    with store.writing(reference) as draft:
        draft.path.write_bytes(b"half of the n")
        raise ZeroDivisionError


def test_what_is_written_is_read_back_by_path_and_by_url(store):
    """The URL that an actor returns is a reference that another actor can use."""
    stored = put(store, "a/b.txt", b"hello")
    assert (stored.bytes, stored.sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    assert store.read("a/b.txt", limit=5) == b"hello"
    assert store.read(stored.url, limit=5) == b"hello"


def test_a_file_over_the_limit_is_refused(store):
    """The limit is checked before the bytes are read."""
    put(store, "big", b"123456")
    with pytest.raises(ActorArgumentError, match="6 bytes"):
        store.read("big", limit=5)


def test_a_write_that_fails_leaves_the_old_file(store):
    """Readers see the old file or the new one, never a part."""
    put(store, "a.txt", b"old")
    with pytest.raises(ZeroDivisionError):
        fail_to_put(store, "a.txt")
    assert store.read("a.txt", limit=10) == b"old"


def test_a_failed_write_leaves_no_part_behind(tmp_path):
    """The unfinished file is removed from the target's folder."""
    store = Storage(str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        fail_to_put(store, "sub/a.txt")
    assert list((tmp_path / "sub").iterdir()) == []


@pytest.mark.parametrize(
    "reference",
    [
        "",
        ".",
        "/",
        "/etc/passwd",
        "..",
        "../secret",
        "a/../../secret",
        "a/..",
        "a\\..\\b",
        "a\x00b",
        "a\nb",
        "file:///etc/passwd",
        "memory://elsewhere/x",
        "s3://bucket/key",
        "http://localhost/x",
        "simplecache::file:///etc/passwd",
        "x" * 1000,
    ],
)
def test_a_reference_cannot_leave_the_storage(store, reference):
    """Neither paths nor URLs reach anything outside the root."""
    with pytest.raises(ActorArgumentError, match="storage"):
        store.path(reference)


@given(st.text(max_size=40))
def test_any_text_stays_inside_or_is_refused(text):
    """Whatever a job names, its path has the root in front and no way up."""
    store = Storage("memory://base/folder")
    try:
        path = store.path(text)
    except ActorArgumentError:
        return
    assert path.startswith("/base/folder/")
    assert ".." not in path.split("/")


def test_a_symbolic_link_cannot_lead_out(tmp_path):
    """A link inside the storage to a folder outside is refused."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("s")
    (root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(ActorArgumentError, match="symbolic link"):
        Storage(str(root)).read("link/secret", limit=10)


def test_a_neighbour_whose_name_begins_alike_is_outside(tmp_path):
    """`/data/root2` is not inside `/data/root`."""
    store = Storage(str(tmp_path / "root"))
    (tmp_path / "root2").mkdir()
    with pytest.raises(ActorArgumentError, match="outside"):
        store.path(f"file://{tmp_path}/root2/x")


def test_missing_files_and_folders_are_named(store):
    """The error says which reference is wrong."""
    put(store, "folder/file")
    with pytest.raises(ActorArgumentError, match="there is no 'nothing'"):
        store.size("nothing")
    with pytest.raises(ActorArgumentError, match="folder"):
        store.size("folder")


def test_files_are_listed_with_size_and_age(store):
    """A listing goes into folders and stays below the prefix."""
    put(store, "a/one", b"1")
    put(store, "a/deep/two", b"22")
    put(store, "b/three")
    found = {entry.path: entry.bytes for entry in store.files("a")}
    assert found == {"a/one": 1, "a/deep/two": 2}
    assert all(entry.modified.tzinfo for entry in store.files("a"))


def test_deleting_says_whether_there_was_something(store):
    """A second delete of the same file is no error."""
    put(store, "a")
    assert store.delete("a") is True
    assert store.delete("a") is False


def test_only_configured_protocols_open(tmp_path):
    """A storage of another protocol is refused, and chained URLs too."""
    for url in ("http://example.com/x", "simplecache::file:///tmp/x", "zip://x::file:///x.zip"):
        with pytest.raises(ActorSettingsError, match="LEVERET_STORAGE_PROTOCOLS"):
            Storage(url)
    with pytest.raises(ActorSettingsError, match="LEVERET_STORAGE_PROTOCOLS"):
        Storage(str(tmp_path), protocols=("s3",))


def test_the_root_of_a_file_system_is_no_storage():
    """A slip in the setting must not open the whole disk."""
    with pytest.raises(ActorSettingsError, match="below"):
        Storage("file:///")


def test_without_a_setting_the_variable_is_named(monkeypatch):
    """The remedy is in the message."""
    monkeypatch.delenv("LEVERET_STORAGE_URL", raising=False)
    with pytest.raises(ActorSettingsError, match="LEVERET_STORAGE_URL"):
        storage()


def test_a_written_file_is_readable_like_any_other(tmp_path):
    """The mode follows the umask; a private temporary mode would lock other processes out."""
    store = Storage(str(tmp_path))
    put(store, "a")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask
