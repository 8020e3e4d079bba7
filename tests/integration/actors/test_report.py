"""`report.generate` on files and on databases, in all three formats."""

import csv
import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import date, datetime

import openpyxl
import pyarrow.parquet as pq
import pytest

from actors.error import ActorArgumentError, ActorSettingsError, UnavailableError
from actors.report import generate
from actors.storage import storage


@pytest.fixture
def queries(configure, tmp_path):
    """Return a function that puts a query into a catalogue of the test's own."""
    folder = tmp_path / "queries"
    folder.mkdir()
    configure(QUERIES=folder)

    def write(name, sql):
        (folder / f"{name}.sql").write_text(sql)

    return write


@pytest.fixture
def flights_source(configure, flights_parquet):
    """Set the flights up as a data source."""
    configure(SOURCE_FLIGHTS_URL=flights_parquet)


@pytest.fixture
def database(configure, tmp_path):
    """Return a SQLite database that is the source `shop`."""
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER, name TEXT, price REAL, at TEXT)")
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?)",
            [(at, f"name {at}" if at % 3 else None, at / 4, "2026-01-01") for at in range(25_000)],
        )
    connection.close()
    configure(SOURCE_SHOP_URL=f"sqlite:///{path}")
    return path


def sheet_rows(path):
    """Return the rows of a report's sheet."""
    with closing(openpyxl.load_workbook(path, read_only=True)) as book:
        return list(book.active.iter_rows(values_only=True))


def test_a_month_of_carriers_is_right(flights_source, flights):
    """The shipped query gives the figures that the rows themselves give."""
    result = generate.fn(
        query="flights/carriers_of_month", source="flights", parameters={"month": 2}
    )
    path = storage().path(result["url"])
    with open(path, newline="") as stream:  # noqa: PTH123 - a path of the storage
        rows = list(csv.DictReader(stream))
    month = [row for row in flights if row["month"] == "2"]
    assert result["rows"] == len(rows) == len({row["carrier"] for row in month})
    assert sum(int(row["flights"]) for row in rows) == len(month)
    assert sum(int(row["miles"]) for row in rows) == sum(int(row["distance"]) for row in month)
    assert {row["carrier"]: int(row["cancelled"]) for row in rows} == {
        carrier: sum(1 for row in month if row["carrier"] == carrier and not row["dep_time"])
        for carrier in {row["carrier"] for row in month}
    }


@pytest.mark.parametrize("form", ["csv", "parquet", "xlsx"])
def test_every_format_holds_the_same_rows(flights_source, flights, form):
    """The result names url, rows, bytes and digest of the file that is there."""
    result = generate.fn(
        query="flights/departures",
        source="flights",
        parameters={"origin": "LGA", "first": "2013-03-01", "last": "2013-03-02"},
        format=form,
    )
    content = storage().read(result["url"], limit=10_000_000)
    assert result["bytes"] == len(content)
    assert result["sha256"] == hashlib.sha256(content).hexdigest()
    assert result["url"].endswith(f".{form}")
    path = storage().path(result["url"])
    if form == "csv":
        with open(path, newline="") as stream:  # noqa: PTH123
            rows = [row["departs_on"] for row in csv.DictReader(stream)]
        first = "2013-03-01"
    elif form == "parquet":
        rows = pq.read_table(path)["departs_on"].to_pylist()
        first = date(2013, 3, 1)
    else:
        rows = [row[0] for row in sheet_rows(path)[1:]]
        first = datetime(2013, 3, 1)  # noqa: DTZ001 - a sheet knows no zones
    assert (result["rows"], rows[0]) == (len(rows), first)
    assert result["rows"] == sum(
        1
        for row in flights
        if row["origin"] == "LGA" and row["month"] == "3" and row["day"] in {"1", "2"}
    )


def test_the_same_job_writes_the_same_path_and_others_another(flights_source):
    """A repeated delivery replaces its own report."""
    february = {"query": "flights/days_of_month", "source": "flights", "parameters": {"month": 2}}
    first, again = generate.fn(**february), generate.fn(**february)
    assert first == again
    other = generate.fn(**{**february, "parameters": {"month": 3}})
    assert (first["rows"], other["rows"]) == (28, 31)
    assert first["url"] != other["url"]
    assert len(list(storage().files("reports"))) == 2


def test_a_path_of_ones_own_is_used_and_cannot_leave(flights_source):
    """The job may name the file, inside the storage."""
    job = {"query": "flights/days_of_month", "source": "flights", "parameters": {"month": 2}}
    assert generate.fn(**job, path="mine/feb.csv")["url"].endswith("/storage/mine/feb.csv")
    with pytest.raises(ActorArgumentError, match="storage"):
        generate.fn(**job, path="../feb.csv")


def test_values_are_bound_and_never_become_sql(flights_source, queries, database):
    """What looks like SQL in a parameter is compared as text, by both engines."""
    evil = "x' OR '1'='1"
    queries("air", "SELECT carrier FROM flights WHERE carrier = :carrier")
    queries("shop", "SELECT id FROM orders WHERE name = :name")
    assert generate.fn(query="air", source="flights", parameters={"carrier": evil})["rows"] == 0
    assert generate.fn(query="shop", source="shop", parameters={"name": evil})["rows"] == 0
    assert generate.fn(query="shop", source="shop", parameters={"name": "name 1"})["rows"] == 1


@pytest.mark.parametrize("form", ["csv", "parquet", "xlsx"])
def test_a_database_is_read_in_batches(queries, database, form):
    """Several batches come out whole, with missing values where they are missing."""
    queries("all", "SELECT id, name, price, at FROM orders ORDER BY id")
    result = generate.fn(query="all", source="shop", format=form)
    assert result["rows"] == 25_000
    path = storage().path(result["url"])
    if form == "parquet":
        table = pq.read_table(path).to_pylist()
        assert table[24_999] == {"id": 24_999, "name": None, "price": 6249.75, "at": "2026-01-01"}
    elif form == "xlsx":
        assert sheet_rows(path)[-1] == (24_999, None, 6249.75, "2026-01-01")
    else:
        with open(path, newline="") as stream:  # noqa: PTH123
            assert list(csv.reader(stream))[25_000] == ["24999", "", "6249.75", "2026-01-01"]


def test_a_database_cannot_be_written(queries, database):
    """A query of the catalogue that writes is refused by the database itself."""
    for name, sql in (
        ("drop", "DROP TABLE orders"),
        ("delete", "DELETE FROM orders RETURNING id"),
        ("insert", "INSERT INTO orders VALUES (1, 'x', 1, 'y')"),
    ):
        queries(name, sql)
        with pytest.raises(ActorArgumentError, match=name):
            generate.fn(query=name, source="shop")
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (25_000,)
    connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{out}'",
        "SELECT 1; SELECT 2",
        "CREATE TABLE t AS SELECT 1",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT nothing FROM flights",
        "SELECT",
        "SELECT CAST(carrier AS INTEGER) FROM flights",
    ],
)
def test_files_are_only_read_by_a_single_select(flights_source, queries, sql, tmp_path):
    """Anything else is dead with a reason, and leaves no file."""
    queries("q", sql.format(out=tmp_path / "out.csv"))
    with pytest.raises(ActorArgumentError, match="'q'"):
        generate.fn(query="q", source="flights")
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "storage" / "reports" / "q").exists() or not list(
        (tmp_path / "storage" / "reports" / "q").iterdir()
    )


@pytest.mark.parametrize("parameters", [{}, {"month": 1, "more": 2}, {"Month": 1}])
def test_parameters_must_be_those_of_the_query(flights_source, parameters):
    """Missing and surplus parameters are named before anything runs."""
    with pytest.raises(ActorArgumentError, match="month"):
        generate.fn(query="flights/days_of_month", source="flights", parameters=parameters)


def test_a_text_in_a_sheet_is_never_a_formula(flights_source, queries):
    """A cell that begins with = is shown, not computed; odd values do not break the sheet."""
    queries(
        "odd",
        "SELECT '=1+1' AS formula, 'a' || chr(1) AS control, 'nan'::DOUBLE AS nan, "
        "[1, 2] AS list, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS at",
    )
    result = generate.fn(query="odd", source="flights", format="xlsx")
    sheet = openpyxl.load_workbook(storage().path(result["url"])).active
    cells = list(sheet[2])
    assert (cells[0].value, cells[0].data_type) == ("=1+1", "s")
    assert [cell.value for cell in cells[1:]] == [
        "a\N{REPLACEMENT CHARACTER}",
        "nan",
        "[1, 2]",
        datetime(2026, 1, 1),  # noqa: DTZ001 - a sheet knows no zones
    ]


def test_more_rows_than_a_sheet_holds_is_dead_and_leaves_nothing(
    flights_source, queries, monkeypatch
):
    """The limit of the format is said, with the remedy."""
    monkeypatch.setattr("actors.table._SHEET_ROWS", 100)
    queries("many", "SELECT * FROM range(1000)")
    with pytest.raises(ActorArgumentError, match="csv or parquet"):
        generate.fn(query="many", source="flights", format="xlsx")
    assert list(storage().files("reports")) == []


def test_mixed_types_ask_for_a_cast(queries, database):
    """SQLite lets a column change its type between rows; the remedy is named."""
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO orders VALUES (99999, 'x', 'free', 'y')")
    connection.close()
    queries("mixed", "SELECT price FROM orders ORDER BY id")
    with pytest.raises(ActorArgumentError, match="cast it in the query"):
        generate.fn(query="mixed", source="shop")


def test_a_database_that_is_down_is_retried_and_its_password_not_shown(configure, queries):
    """A lost database is no reason to give a report up."""
    queries("one", "SELECT 1 AS one")
    configure(SOURCE_PG_URL="postgresql+psycopg://u:hunter2@127.0.0.1:9/db?connect_timeout=2")
    with pytest.raises(UnavailableError) as caught:
        generate.fn(query="one", source="pg")
    assert "hunter2" not in str(caught.value)
    configure(SOURCE_ODD_URL="nosuchdb://u:hunter2@h/db")
    with pytest.raises(ActorSettingsError) as caught:
        generate.fn(query="one", source="odd")
    assert "hunter2" not in str(caught.value)


def test_memory_does_not_grow_with_the_result(configure, flights_parquet, tmp_path):
    """Four million rows take hardly more memory than forty thousand."""
    queries = tmp_path / "queries"
    queries.mkdir()
    (queries / "big.sql").write_text(
        "SELECT range AS id, md5(range::VARCHAR) AS text FROM range(CAST(:rows AS BIGINT))"
    )
    script = (
        "import resource, sys\n"
        "from actors.report import generate\n"
        "rows = int(sys.argv[1])\n"
        "result = generate.fn(query='big', source='flights', parameters={'rows': rows})\n"
        "assert result['rows'] == rows\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    configure(QUERIES=queries, SOURCE_FLIGHTS_URL=flights_parquet)
    small, large = (
        int(
            subprocess.run(
                [sys.executable, "-c", script, str(rows)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for rows in (40_000, 4_000_000)
    )
    assert large - small < 120, f"{small} MB for 40,000 rows, {large} MB for 4,000,000"
