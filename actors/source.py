"""Data sources: what ``LEVERET_SOURCE_<NAME>_URL`` names, opened for reading only.

=============================================  =================================================
URL                                            what it is
=============================================  =================================================
``/data/flights.parquet``, ``s3://b/x.csv``    one view, named like the source, over files of
(``*`` may stand in the file's name)           Parquet or CSV (also ``.csv.gz``)
``/data/warehouse/`` (ends with ``/``)         one view for each such file in the folder, named
                                               like the file
``postgresql+psycopg://…``, ``sqlite:///…``    a database, through SQLAlchemy
=============================================  =================================================

``?null=NA`` behind a CSV's URL names the text that means "no value" there, beside nothing.

Files are read by DuckDB in memory, which may open exactly the source's files, nothing else, and
write nothing. Databases are read in a read-only transaction.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from fsspec.implementations.local import LocalFileSystem

from actors.error import ActorArgumentError, UnavailableError
from actors.library import library
from actors.settings import ReportSettings, StorageSettings, load, source_url
from actors.storage import file_system

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb
else:
    duckdb = library("duckdb")

__all__ = ["is_database", "open_files", "quoted"]

_READERS = {".parquet": "read_parquet", ".csv": "read_csv", ".csv.gz": "read_csv"}
_SCHEME = re.compile(r"([a-z][a-z0-9]*)(\+[a-z0-9_]+)?:/")


def is_database(url: str) -> bool:
    """Return whether ``url`` is one for SQLAlchemy rather than one of files."""
    scheme = _SCHEME.match(url)
    return scheme is not None and scheme[1] not in {*load(StorageSettings).protocols, "file"}


def quoted(identifier: str) -> str:
    """Return ``identifier`` as SQL writes it, whatever characters it has."""
    return '"' + identifier.replace('"', '""') + '"'


@contextmanager
def open_files(name: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a DuckDB connection that has the views of the source ``name`` and can reach only them.

    A missing file is an `ActorArgumentError` for a job, since a partition may simply not be there.
    """
    url, _, query = source_url(name).partition("?")
    settings, allowed = load(ReportSettings), load(StorageSettings).protocols
    found, root = file_system(url, protocols=allowed, options=settings.source_options)
    pattern = f"{root.rstrip('/')}/*" if url.endswith("/") else root
    paths = sorted(str(path) for path in found.glob(pattern) if _reader(str(path)) is not None)
    if not paths:
        raise ActorArgumentError(
            f"the data source {name!r} has no .parquet, .csv or .csv.gz file where it points"
        )
    reachable = (
        paths
        if isinstance(found, LocalFileSystem)
        else [str(found.unstrip_protocol(path)) for path in paths]
    )
    views = {_stem(path): [path] for path in reachable} if url.endswith("/") else {name: reachable}
    with tempfile.TemporaryDirectory(prefix="leveret-duckdb-") as spill:
        connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": settings.duckdb_memory,
                "threads": settings.duckdb_threads,
                "temp_directory": spill,
            },
        )
        try:
            # A long query would draw one on the worker's standard output.
            connection.execute("SET enable_progress_bar = false")
            if not isinstance(found, LocalFileSystem):
                connection.register_filesystem(found)
            try:
                for view, files in views.items():
                    connection.execute(_view(view, files, parse_qs(query).get("null", [])))
            except (duckdb.DataError, duckdb.ProgrammingError) as error:
                raise ActorArgumentError(
                    f"the data source {name!r} has a file that is broken: {error}"
                ) from error
            connection.execute(f"SET allowed_paths = {_texts(reachable)}")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            yield connection
        except duckdb.IOException as error:
            raise UnavailableError(f"the data source {name!r} cannot be read: {error}") from error
        finally:
            connection.close()


def _view(name: str, files: list[str], nulls: list[str]) -> str:
    reader = _reader(files[0])
    options = ""
    if reader == "read_csv":
        options = f", nullstr = {_texts(['', *nulls])}"
    selected = f"SELECT * FROM {reader}({_texts(files)}{options})"  # noqa: S608 - quoted texts
    return f"CREATE VIEW {quoted(name)} AS {selected}"


def _reader(path: str) -> str | None:
    return next((reader for end, reader in _READERS.items() if path.endswith(end)), None)


def _stem(path: str) -> str:
    return PurePosixPath(path).name.partition(".")[0]


def _texts(values: list[str]) -> str:
    """Write a list of SQL texts; these places of DuckDB's grammar take no parameters."""
    return "[" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + "]"
