"""`report.generate` on PostgreSQL."""

import csv
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import psycopg
import pyarrow.parquet as pq
import pytest

from actors.error import ActorArgumentError
from actors.report import generate
from actors.storage import storage

ROWS = 25_000


@pytest.fixture
def shop(fresh_database, configure, tmp_path):
    """Fill a database with orders and make it the source `shop`; return a writer of queries."""
    with psycopg.connect(fresh_database) as connection:
        connection.execute(
            "CREATE TABLE orders (id int, name text, price numeric(10, 2), at timestamptz, "
            "day date, tags jsonb, key uuid)"
        )
        connection.execute(
            "INSERT INTO orders SELECT n, CASE WHEN n %% 3 > 0 THEN 'name ' || n END, n / 4.0, "
            "timestamptz '2026-01-01 00:00:00+00' + n * interval '1 s', date '2026-01-01', "
            "jsonb_build_object('n', n), md5(n::text)::uuid FROM generate_series(1, %s) n",
            [ROWS],
        )
    scheme, _, rest = fresh_database.partition("://")
    assert scheme.startswith("postgres")
    configure(SOURCE_SHOP_URL=f"postgresql+psycopg://{rest}", QUERIES=tmp_path / "queries")
    (tmp_path / "queries").mkdir()

    def write(name, sql):
        (tmp_path / "queries" / f"{name}.sql").write_text(sql)

    return write


def test_all_types_come_out_in_every_format(shop):
    """Numbers, times, JSON and UUIDs are there, over several batches."""
    shop("all", "SELECT * FROM orders ORDER BY id")
    for form in ("parquet", "csv", "xlsx"):
        result = generate.fn(query="all", source="shop", format=form)
        assert result["rows"] == ROWS
    last = pq.read_table(storage().path("reports/all/" + names("parquet")[0])).to_pylist()[-1]
    assert last["price"] == float(Decimal(ROWS) / 4)
    assert last["at"] == datetime(2026, 1, 1, 6, 56, 40, tzinfo=UTC)
    assert last["day"] == date(2026, 1, 1)
    assert json.loads(last["tags"]) == {"n": ROWS}
    assert len(last["key"]) == 36
    with open(storage().path("reports/all/" + names("csv")[0]), newline="") as stream:  # noqa: PTH123
        assert len(list(csv.reader(stream))) == ROWS + 1


def names(form):
    """Return the names of the reports of a format."""
    return [
        entry.path.rpartition("/")[2]
        for entry in storage().files("reports/all")
        if entry.path.endswith(form)
    ]


def test_parameters_are_bound_and_casts_are_not_parameters(shop):
    """`::` stays PostgreSQL's, and a value is never SQL."""
    shop(
        "one",
        "SELECT id::text AS id FROM orders WHERE name = :name AND id % 7 = 0 AND day <= :day::date",
    )
    job = {"query": "one", "source": "shop"}
    found = generate.fn(**job, parameters={"name": "name 7", "day": "2026-01-01"})
    assert found["rows"] == 1
    evil = generate.fn(**job, parameters={"name": "' OR true; --", "day": "2026-01-01"})
    assert evil["rows"] == 0


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM orders RETURNING id",
        "DROP TABLE orders",
        "WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone",
        "SELECT 1 AS a; DROP TABLE orders",
        "COMMIT; DROP TABLE orders",
        "SELECT nothing FROM orders",
        "SELECT 1 / (id - id) FROM orders",
    ],
)
def test_nothing_is_written_and_the_job_is_dead(shop, fresh_database, sql):
    """The read-only transaction holds, whatever a query of the catalogue tries."""
    shop("bad", sql)
    with pytest.raises(ActorArgumentError, match="bad"):
        generate.fn(query="bad", source="shop")
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (ROWS,)
