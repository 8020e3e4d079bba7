"""Results that are too large for the ledger: files below ``LEVERET_RESULT_STORE``.

The worker writes such a result as JSON before it says that the job has succeeded, under
``<job id>/<run>-<attempt>.json``, and the ledger keeps this path as its reference. It is relative
on purpose: a reference tells nobody a password, leads nowhere but into the store of whoever
follows it, and stays good when the store moves.

Nobody but the store's owner removes the files: a lifecycle rule of the bucket, or a cron job, that
is set to the time for which the ledger keeps its jobs.
"""

from __future__ import annotations

import hashlib
import re
import threading
from typing import Any
from urllib.parse import quote

from leveret.errors import ConfigurationError

__all__ = ["ResultStore"]

_LONGEST_NAME = 200
_REFERENCE = re.compile(r"[A-Za-z0-9_~%-]+/\d+-\d+\.json")


class ResultStore:
    """A folder on any file system that fsspec knows: ``file:///…``, ``s3://…``. Thread-safe.

    Raises `ConfigurationError` when the URL or the packages are wrong; what the file system itself
    raises is passed on by `put` and `get`.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec  # noqa: PLC0415 - only who sets a store needs it

            self._files: Any
            self._files, root = fsspec.url_to_fs(url)
        except ImportError as error:
            raise ConfigurationError(
                f"LEVERET_RESULT_STORE needs the package {error.name or 'fsspec'!r} ({error}); "
                "install fsspec and the package of the file system"
            ) from error
        except ValueError:
            raise ConfigurationError(
                "LEVERET_RESULT_STORE cannot be read; give an fsspec URL such as "
                "file:///var/lib/leveret/results or s3://bucket/results"
            ) from None
        self._root = str(root).rstrip("/")
        self._lock = threading.Lock()

    def put(self, job_id: str, run: int, attempt: int, text: bytes) -> str:
        """Write a result; return its reference."""
        reference = f"{_folder(job_id)}/{run}-{attempt}.json"
        path = f"{self._root}/{reference}"
        try:
            self._files.pipe_file(path, text)
        except FileNotFoundError:  # where folders exist by themselves, unlike in object stores
            with self._lock:
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(path, text)
        return reference

    def get(self, reference: str) -> bytes:
        """Read the result that a reference names; `ValueError` for what is no reference."""
        if _REFERENCE.fullmatch(reference) is None:
            raise ValueError(f"{reference!r} is no reference to a result")
        found: bytes = self._files.cat_file(f"{self._root}/{reference}")
        return found


def _folder(job_id: str) -> str:
    """Name the folder of a job: its id, as far as that may be a file's name anywhere."""
    name = quote(job_id, safe="").replace(".", "%2E")
    if len(name) <= _LONGEST_NAME:
        return name
    return hashlib.sha256(job_id.encode()).hexdigest()
