"""The storage that actors read from and write to: one folder of any fsspec file system.

A *reference* names a file in it: a path relative to the root (``reports/may.csv``), or the full URL
of something below the root, as actors return it. References never leave the root, neither by
``..`` nor by a symbolic link.

Writing is atomic: a file is filled under another name and appears whole or not at all. On a local
file system that is a rename after ``fsync``; elsewhere the finished file is uploaded in one piece,
which object stores make visible when it is complete. A process that is killed while it writes can
leave a ``.part`` file behind (in the target's folder, or in the machine's temporary folder); a
second run of the job is not disturbed by it, and ``storage.cleanup`` removes those in the storage.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from uuid import uuid4

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from actors.error import ActorArgumentError, ActorSettingsError
from actors.settings import StorageSettings, load

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Draft", "Entry", "Storage", "StoredFile", "file_system", "storage"]

_REFERENCE_LENGTH = 900


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file as it was written."""

    url: str
    bytes: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """Return the fields as an actor's result holds them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file as a listing shows it; ``path`` is relative to the storage's root."""

    path: str
    bytes: int
    modified: datetime


@dataclass
class Draft:
    """A file being written: fill ``path``; ``stored`` is there once the writing has ended well."""

    path: Path
    stored: StoredFile | None = field(default=None)

    def result(self) -> StoredFile:
        """Return the stored file. Call it after the ``with`` block."""
        if self.stored is None:
            raise RuntimeError(f"the file at {self.path} has not been published yet")
        return self.stored


def file_system(
    url: str, *, protocols: tuple[str, ...], options: dict[str, Any] | None = None
) -> tuple[AbstractFileSystem, str]:
    """Return the file system of ``url`` and its path there.

    Raises `ActorSettingsError` when the protocol is not one of ``protocols``, or its package is
    not installed.
    """
    protocol = url.split("://", 1)[0] if "://" in url else "file"
    if protocol not in protocols or "::" in url:
        raise ActorSettingsError(
            f"the protocol {protocol!r} may not be used: LEVERET_STORAGE_PROTOCOLS allows "
            f"{', '.join(protocols)}"
        )
    try:
        found, path = fsspec.url_to_fs(url, **(options or {}))
    except ImportError as error:
        raise ActorSettingsError(
            f"the package for {protocol!r} storages is missing: {error}"
        ) from error
    return found, str(path)


class Storage:
    """One folder of a file system, and everything an actor may do in it."""

    def __init__(
        self,
        url: str,
        *,
        protocols: tuple[str, ...] = ("file", "memory", "s3"),
        options: dict[str, Any] | None = None,
    ) -> None:
        self._fs, root = file_system(url, protocols=protocols, options=options)
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        if not self._root:
            raise ActorSettingsError(
                "LEVERET_STORAGE_URL must name a folder below the file system's root"
            )

    def path(self, reference: str) -> str:
        """Return the full path of ``reference``; `ActorArgumentError` if it leaves the root."""
        relative = self._relative(reference)
        full = f"{self._root}/{relative}"
        if self._local:
            root = Path(self._root).resolve()
            if not Path(full).resolve().is_relative_to(root):
                raise ActorArgumentError(f"{reference!r} leaves the storage by a symbolic link")
        return full

    def url(self, reference: str) -> str:
        """Return the URL of ``reference``, which is a reference itself."""
        return str(self._fs.unstrip_protocol(self.path(reference)))

    def size(self, reference: str) -> int:
        """Return the size in bytes; raise `ActorArgumentError` when there is no such file."""
        path = self.path(reference)
        self._fs.invalidate_cache()  # another process may have changed what a listing remembers
        try:
            info = self._fs.info(path)
        except FileNotFoundError as error:
            raise ActorArgumentError(f"there is no {reference!r} in the storage") from error
        if info["type"] != "file":
            raise ActorArgumentError(f"{reference!r} is a folder, not a file")
        return int(info["size"])

    def read(self, reference: str, *, limit: int) -> bytes:
        """Return the bytes of a file; `ActorArgumentError` when it has more than ``limit``."""
        size = self.size(reference)
        if size <= limit:
            with self.open(reference) as stream:
                content = stream.read(limit + 1)
            size = max(size, len(content))
            if size <= limit:
                return content
        raise ActorArgumentError(f"{reference!r} has {size} bytes, and {limit} are allowed")

    def open(self, reference: str) -> BinaryIO:
        """Open a file for reading."""
        return cast("BinaryIO", self._fs.open(self.path(reference), "rb"))

    @contextmanager
    def writing(self, reference: str) -> Iterator[Draft]:
        """Give a draft to fill; it becomes ``reference`` when the block ends without error."""
        target = self.path(reference)
        part = self._part(target)
        draft = Draft(part)
        try:
            yield draft
            with part.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                os.fsync(stream.fileno())
            size = part.stat().st_size
            if self._local:
                part.replace(target)
            else:
                self._fs.put_file(str(part), target)
            draft.stored = StoredFile(url=self.url(reference), bytes=size, sha256=digest)
        finally:
            part.unlink(missing_ok=True)

    def files(self, prefix: str) -> Iterator[Entry]:
        """Yield the files of the folder ``prefix`` and of those below it, folder by folder."""
        folder = self.path(prefix)
        self._fs.invalidate_cache()
        for _, _, found in self._fs.walk(folder, detail=True):
            for info in found.values():
                name = str(info["name"])
                yield Entry(
                    path=name.removeprefix(f"{self._root}/"),
                    bytes=int(info["size"] or 0),
                    modified=self._modified(info),
                )

    def delete(self, reference: str) -> bool:
        """Delete a file; return whether it was there."""
        path = self.path(reference)
        try:
            self._fs.rm_file(path)
        except FileNotFoundError:
            return False
        return True

    def _relative(self, reference: str) -> str:
        relative = reference
        if "://" in reference:
            root_url = str(self._fs.unstrip_protocol(self._root)).rstrip("/") + "/"
            if not reference.startswith(root_url):
                raise ActorArgumentError(f"{reference!r} is outside the storage")
            relative = reference.removeprefix(root_url)
        parts = PurePosixPath(relative).parts
        unusable = (
            not parts
            or relative.startswith("/")
            or ".." in parts
            or "\\" in relative
            or len(relative) > _REFERENCE_LENGTH
            or not relative.isprintable()
        )
        if unusable:
            raise ActorArgumentError(
                f"{reference[:200]!r} is no path inside the storage: use one like reports/may.csv"
            )
        return "/".join(parts)

    def _part(self, target: str) -> Path:
        if not self._local:
            handle, name = tempfile.mkstemp(prefix="leveret-", suffix=".part")
            os.close(handle)
            return Path(name)
        folder = Path(target).parent
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f".{uuid4().hex}.part"

    def _modified(self, info: dict[str, Any]) -> datetime:
        for key in ("mtime", "LastModified", "created"):
            value = info.get(key)
            if isinstance(value, datetime):
                return value if value.tzinfo else value.replace(tzinfo=UTC)
            if isinstance(value, int | float):
                return datetime.fromtimestamp(value, UTC)
        return cast("datetime", self._fs.modified(info["name"]))


def storage() -> Storage:
    """Return the storage of ``LEVERET_STORAGE_URL``; raise `ActorSettingsError` without one."""
    settings = load(StorageSettings)
    if not settings.url:
        raise ActorSettingsError(
            "there is no storage: set LEVERET_STORAGE_URL to a folder or an fsspec URL"
        )
    return _opened(settings.url, settings.protocols, repr(settings.options))


@functools.lru_cache(maxsize=4)
def _opened(url: str, protocols: tuple[str, ...], _options: str) -> Storage:
    return Storage(url, protocols=protocols, options=load(StorageSettings).options)
