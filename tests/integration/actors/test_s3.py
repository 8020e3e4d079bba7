"""The actors on a storage that speaks S3."""

from datetime import timedelta
from io import BytesIO

import boto3
import httpx
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from actors.cleanup import cleanup
from actors.data import aggregate
from actors.error import ActorArgumentError
from actors.report import generate
from actors.storage import storage

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def bucket(configure, monkeypatch):
    """Run an S3 server with an empty bucket, and make a folder of it the storage."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    options = f'{{"client_kwargs": {{"endpoint_url": "{endpoint}"}}}}'
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="leveret")
    configure(STORAGE_URL="s3://leveret/data", STORAGE_OPTIONS=options, SOURCE_OPTIONS=options)
    yield client
    client.close()
    httpx.post(f"{endpoint}/moto-api/reset")
    server.stop()


def keys(client):
    """Return the keys of the bucket."""
    return [each["Key"] for each in client.list_objects_v2(Bucket="leveret").get("Contents", [])]


def test_files_are_written_whole_read_listed_and_deleted(bucket, put):
    """Atomic writes, references by path and URL, containment, and deletion work on S3."""
    url = put("reports/a.csv", b"hello")
    assert url == "s3://leveret/data/reports/a.csv"
    assert keys(bucket) == ["data/reports/a.csv"]
    assert storage().read(url, limit=5) == b"hello"
    assert [entry.path for entry in storage().files("reports")] == ["reports/a.csv"]
    with pytest.raises(ZeroDivisionError):
        fail_to_put("reports/b.csv")
    assert keys(bucket) == ["data/reports/a.csv"]
    bucket.put_object(Bucket="leveret", Key="other/secret", Body=b"x")
    for reference in ("s3://leveret/other/secret", "s3://else/x", "../other/secret"):
        with pytest.raises(ActorArgumentError):
            storage().read(reference, limit=10)


def fail_to_put(reference):
    """Fail in the middle of writing a file."""
    with storage().writing(reference) as draft:
        draft.path.write_bytes(b"half")
        raise ZeroDivisionError


def test_a_source_on_s3_is_aggregated_and_reported_into_s3(bucket, configure, flights_parquet):
    """DuckDB reads the data set where it lies, and both actors write beside it."""
    bucket.upload_file(flights_parquet, "leveret", "sets/flights.parquet")
    configure(SOURCE_FLIGHTS_URL="s3://leveret/sets/flights.parquet")
    result = aggregate.fn(
        source="flights", filter={"month": 1, "day": 1}, group_by=["carrier"], measures=["count"]
    )
    assert (result["rows"], result["groups"]) == (842, 14)
    content = storage().read(result["url"], limit=1_000_000)
    assert sum(pq.read_table(BytesIO(content))["count"].to_pylist()) == 842
    report = generate.fn(
        query="flights/days_of_month", source="flights", parameters={"month": 1}, format="xlsx"
    )
    assert report["rows"] == 31
    assert storage().size(report["url"]) == report["bytes"]


def test_cleaning_up_sees_the_age_of_objects(bucket, put):
    """Objects have an age as files have."""
    put("reports/a.csv", b"hello")
    assert cleanup.fn(prefix="reports", older_than=timedelta(hours=1))["matched"] == 0
    result = cleanup.fn(prefix="reports", older_than=timedelta(seconds=-60))
    assert (result["deleted"], result["bytes"]) == (1, 5)
    assert keys(bucket) == []
