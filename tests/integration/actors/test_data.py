"""`data.aggregate` on the flights of 2013, compared with the same sums in plain Python."""

import statistics

import duckdb
import pyarrow.parquet as pq
import pytest

from actors.data import aggregate
from actors.error import ActorArgumentError, ActorSettingsError
from actors.storage import storage

MEASURES = ["count", "mean:dep_delay", "median:arr_delay", "p95:arr_delay", "sum:distance"]


@pytest.fixture(params=["csv", "parquet"])
def source(request, configure):
    """Set the flights up as a data source, as CSV and as Parquet."""
    path = request.getfixturevalue(f"flights_{request.param}")
    configure(SOURCE_FLIGHTS_URL=f"{path}?null=NA")
    return request.param


def summary(result):
    """Read the written summary."""
    return pq.read_table(storage().path(result["url"])).to_pylist()


def test_a_day_is_summed_up_by_carrier_and_origin(source, flights):
    """Every group's figures equal those reckoned from the rows themselves."""
    result = aggregate.fn(
        source="flights",
        filter={"month": 5, "day": 17},
        group_by=["carrier", "origin"],
        measures=MEASURES,
    )
    day = [row for row in flights if (row["month"], row["day"]) == ("5", "17")]
    groups = {}
    for row in day:
        groups.setdefault((row["carrier"], row["origin"]), []).append(row)
    assert (result["rows"], result["groups"]) == (len(day), len(groups))
    rows = summary(result)
    assert [(row["carrier"], row["origin"]) for row in rows] == sorted(groups)
    for row in rows:
        members = groups[row["carrier"], row["origin"]]
        departed = [int(each["dep_delay"]) for each in members if each["dep_delay"]]
        arrived = [int(each["arr_delay"]) for each in members if each["arr_delay"]]
        assert row["count"] == len(members)
        assert row["mean_dep_delay"] == pytest.approx(statistics.fmean(departed))
        assert row["median_arr_delay"] == statistics.median(arrived)
        assert row["sum_distance"] == sum(int(each["distance"]) for each in members)
        if len(arrived) > 1:
            p95 = statistics.quantiles(arrived, n=100, method="inclusive")[94]
            assert row["p95_arr_delay"] == pytest.approx(p95)


def test_the_days_of_a_year_add_up_to_all_flights(configure, flights_parquet):
    """No row is lost or counted twice by the partitions (here the twelve months)."""
    configure(SOURCE_FLIGHTS_URL=flights_parquet)
    results = [
        aggregate.fn(
            source="flights", filter={"month": month}, group_by=["day"], measures=["count"]
        )
        for month in range(1, 13)
    ]
    assert sum(result["rows"] for result in results) == 336_776
    assert sum(result["groups"] for result in results) == 365
    assert len({result["url"] for result in results}) == 12


def test_a_second_run_writes_the_same_file(configure, flights_parquet):
    """A repeated delivery replaces the summary by an equal one."""
    configure(SOURCE_FLIGHTS_URL=flights_parquet)
    job = {
        "source": "flights",
        "filter": {"month": 1},
        "group_by": ["carrier"],
        "measures": ["count", "max:dep_delay"],
    }
    first = aggregate.fn(**job)
    content = storage().read(first["url"], limit=1_000_000)
    assert aggregate.fn(**job) == first
    assert storage().read(first["url"], limit=1_000_000) == content


def test_an_empty_partition_has_an_empty_summary(configure, flights_parquet):
    """A day without rows is a fact, not a failure."""
    configure(SOURCE_FLIGHTS_URL=flights_parquet)
    result = aggregate.fn(
        source="flights", filter={"month": 13}, group_by=["carrier"], measures=["count"]
    )
    assert (result["rows"], result["groups"]) == (0, 0)
    assert summary(result) == []


def test_without_groups_there_is_one_row_and_csv_can_be_had(configure, flights_parquet):
    """The whole partition is one group."""
    configure(SOURCE_FLIGHTS_URL=flights_parquet)
    result = aggregate.fn(
        source="flights",
        filter={"dep_time": None},
        group_by=[],
        measures=["count"],
        format="csv",
        path="sums/cancelled.csv",
    )
    assert result["rows"] == 8255
    assert storage().read("sums/cancelled.csv", limit=100) == b'"count"\n8255\n'


def test_a_folder_is_a_source_of_several_tables(configure, tmp_path, flights_parquet):
    """Each file of the folder is a table; the job says which."""
    (tmp_path / "carriers.csv").write_text("code,name\nUA,United\nAA,NA\n")
    (tmp_path / "notes.txt").write_text("not a table")
    (tmp_path / "trips.csv").write_text("code\nUA\n")
    configure(SOURCE_AIR_URL=f"{tmp_path}/?null=NA")
    result = aggregate.fn(
        source="air", table="carriers", filter={"name": None}, group_by=["code"], measures=["count"]
    )
    assert [row["code"] for row in summary(result)] == ["AA"]
    with pytest.raises(ActorArgumentError, match="carriers"):
        aggregate.fn(source="air", group_by=[], measures=["count"])


@pytest.mark.parametrize(
    "changed",
    [
        {"group_by": ["nothing"]},
        {"group_by": ['carrier" FROM flights; DROP VIEW flights; --']},
        {"measures": ["sum:carrier"]},
        {"measures": ["read_text:carrier"]},
        {"filter": {"month": "not a number"}},
        {"table": "duckdb_settings()"},
        {"path": "../outside.parquet"},
        {"group_by": ["carrier", "carrier"]},
    ],
)
def test_what_can_never_work_is_dead_and_writes_nothing(
    configure, flights_parquet, tmp_path, changed
):
    """Wrong columns, functions, values and paths are refused with a reason."""
    configure(SOURCE_FLIGHTS_URL=flights_parquet)
    job = {"source": "flights", "group_by": ["carrier"], "measures": ["count"], **changed}
    if changed == {"group_by": ["carrier", "carrier"]}:
        assert aggregate.fn(**job)["groups"] == 16
        return
    with pytest.raises(ActorArgumentError):
        aggregate.fn(**job)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_source_that_is_not_there_or_not_set_is_named(configure, tmp_path):
    """A missing file is the job's fault, a missing variable the operator's."""
    configure(SOURCE_GONE_URL=tmp_path / "gone.parquet")
    with pytest.raises(ActorArgumentError, match="'gone'"):
        aggregate.fn(source="gone", group_by=[], measures=["count"])
    with pytest.raises(ActorSettingsError, match="LEVERET_SOURCE_OTHER_URL"):
        aggregate.fn(source="other", group_by=[], measures=["count"])


def test_a_broken_file_ends_with_a_reason(configure, tmp_path):
    """Bytes that are no Parquet do not crash the worker."""
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense")
    configure(SOURCE_BROKEN_URL=tmp_path / "broken.parquet")
    with pytest.raises(ActorArgumentError, match="magic bytes"):
        aggregate.fn(source="broken", group_by=[], measures=["count"])


def test_the_source_connection_can_read_its_files_and_nothing_else(configure, flights_parquet):
    """Even SQL that got this far could not read another file, write one or change the setting."""
    from actors.source import open_files  # noqa: PLC0415

    configure(SOURCE_FLIGHTS_URL=flights_parquet)
    with open_files("flights") as connection:
        assert connection.execute("SELECT count(*) FROM flights").fetchall() == [(336_776,)]
        for sql in (
            "SELECT * FROM read_text('/etc/passwd')",
            "COPY (SELECT 1) TO '/tmp/leveret-test-out.csv'",
            "ATTACH '/tmp/leveret-test-out.db'",
            "SET enable_external_access = true",
            "INSTALL httpfs",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)
