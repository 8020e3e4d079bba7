"""The catalogue of queries and how their parameters are written for each database."""

import pytest

from actors.error import ActorArgumentError
from actors.query import _for_duckdb, _for_sqlalchemy, find


def test_shipped_queries_are_found_with_their_parameters():
    """A name is the path of its file; the comment in front is no parameter."""
    assert find("flights/carriers_of_month").parameters == {"month"}
    assert find("flights/departures").parameters == {"origin", "first", "last"}


def test_a_folder_of_queries_comes_before_the_box(tmp_path, monkeypatch):
    """A team's own query of the same name wins."""
    (tmp_path / "flights").mkdir()
    (tmp_path / "flights" / "departures.sql").write_text("SELECT :mine;")
    monkeypatch.setenv("LEVERET_QUERIES", str(tmp_path))
    assert find("flights/departures").parameters == {"mine"}
    assert find("flights/departures").sql == "SELECT :mine"
    assert find("flights/days_of_month").parameters == {"month"}


@pytest.mark.parametrize(
    "name",
    ["", "nothing", "../queries/flights/departures", "/etc/x", "flights/", "A", "a//b", "a.b"],
)
def test_a_name_outside_the_catalogue_is_refused(name):
    """Names are not paths."""
    with pytest.raises(ActorArgumentError, match="quer"):
        find(name)


def test_only_real_parameters_are_parameters():
    """Quoted text, comments, casts and times hold colons that mean something else."""
    sql = (
        "SELECT ':a', \":b\", x::int, '12:30' /* :c */ FROM t -- :d\n"
        "WHERE y = :e::date AND z='it''s :f'"
    )
    assert _for_duckdb(sql) == (
        "SELECT ':a', \":b\", x::int, '12:30'   FROM t  \nWHERE y = $e::date AND z='it''s :f'"
    )
    assert _for_sqlalchemy(sql) == (
        "SELECT '\\:a', \"\\:b\", x\\:\\:int, '12\\:30'   FROM t  \n"
        "WHERE y = :e\\:\\:date AND z='it''s \\:f'"
    )
