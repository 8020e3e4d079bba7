"""The SELECT of `data.aggregate`."""

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.data import default_path, statement
from actors.error import ActorArgumentError
from actors.source import quoted

COLUMNS = ["carrier", "origin", "delay", 'odd "name"']


def test_columns_are_quoted_and_values_are_left_to_the_database():
    """No value appears in the text, and an odd name cannot break out of its quotes."""
    sql = statement(
        "flights",
        COLUMNS,
        ["carrier"],
        ["count", "p95:delay", 'sum:odd "name"'],
        {"origin": "EWR'; DROP", "delay": None},
    )
    assert sql == (
        'SELECT "carrier", count(*) AS "count", quantile_cont("delay", 0.95) AS "p95_delay", '
        'sum("odd ""name""") AS "sum_odd ""name""" FROM "flights" '
        'WHERE "origin" = ? AND "delay" IS NULL GROUP BY "carrier" ORDER BY "carrier"'
    )


@pytest.mark.parametrize(
    ("group_by", "measures", "filters"),
    [
        (["nothing"], ["count"], {}),
        (["carrier"], ["mean:nothing"], {}),
        (["carrier"], ["count"], {"nothing": 1}),
        (['carrier"; DROP TABLE flights; --'], ["count"], {}),
        (["carrier"], ["system:delay"], {}),
        (["carrier"], ["mean"], {}),
    ],
)
def test_what_the_schema_lacks_is_refused(group_by, measures, filters):
    """Columns come from the schema, functions from a list."""
    with pytest.raises(ActorArgumentError):
        statement("flights", COLUMNS, group_by, measures, filters)


@given(st.text(min_size=1, max_size=20).filter(lambda name: "\x00" not in name))
def test_any_name_survives_quoting(name):
    """DuckDB reads back exactly the name that was quoted."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    with duckdb.connect(":memory:") as connection:
        described = connection.execute(f"SELECT 1 AS {quoted(name)}").description
    assert described[0][0] == name


def test_the_same_arguments_lead_to_the_same_path_and_others_to_another():
    """A repeated job replaces its own file only."""

    def path(**changed):
        given = {
            "table": "f",
            "group_by": ["a"],
            "measures": ["count"],
            "filters": {},
            "form": "csv",
        }
        return default_path("f", **{**given, **changed})

    assert path() == path()
    assert path(filters={"month": 1, "day": 2}).startswith("aggregates/f/month=1,day=2/")
    assert path(filters={"x": "../../etc"}).startswith("aggregates/f/some/")
    assert (
        len({path(), path(group_by=["b"]), path(filters={"a": 1}), path(filters={"a": "1"})}) == 4
    )
