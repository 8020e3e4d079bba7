"""``data.aggregate``: a partition of a data set, summed up in a small file."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

import leveret
from actors.error import DEAD_ON, RETRY_ON, ActorArgumentError
from actors.library import library
from actors.query import BATCH_ROWS, Rows, Scalar
from actors.report import Reference, SourceName
from actors.settings import source_url
from actors.source import is_database, open_files, quoted
from actors.storage import storage
from actors.table import write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb
    import pyarrow as pa
else:
    duckdb, pa = library("duckdb"), library("pyarrow")

__all__ = ["aggregate", "default_path", "statement"]

#: What a measure may be, and the SQL that it stands for.
MEASURES = {
    "sum": "sum({0})",
    "min": "min({0})",
    "max": "max({0})",
    "mean": "avg({0})",
    "median": "median({0})",
    "p95": "quantile_cont({0}, 0.95)",
    "p99": "quantile_cont({0}, 0.99)",
    "distinct": "count(DISTINCT {0})",
}

Column = Annotated[str, Field(min_length=1, max_length=200)]
Measure = Annotated[str, Field(max_length=220, pattern=r"^(count|[a-z0-9]+:.+)$")]


@leveret.actor(
    "data.aggregate",
    queue="bulk",
    time_limit=timedelta(minutes=10),
    max_retries=5,
    backoff=leveret.Backoff(base=timedelta(seconds=15), cap=timedelta(minutes=30)),
    retry_on=RETRY_ON,
    dead_on=DEAD_ON,
)
def aggregate(
    *,
    source: SourceName,
    group_by: Annotated[list[Column], Field(max_length=20)],
    measures: Annotated[list[Measure], Field(min_length=1, max_length=50)],
    filter: dict[Column, Scalar] | None = None,  # noqa: A002 - the argument's name in the job
    table: Column | None = None,
    format: Literal["csv", "parquet"] = "parquet",  # noqa: A002 - the argument's name in the job
    path: Reference | None = None,
) -> dict[str, Any]:
    """Aggregate the rows of ``source`` whose columns equal ``filter``, by ``group_by``.

    A measure is ``count`` or ``<function>:<column>`` with one of `MEASURES`; its column in the
    result is called ``<function>_<column>``. ``table`` is needed where a source has several.
    Without ``path`` the file is ``aggregates/<source>/<filter>/<digest>.<format>``, the digest
    being that of the arguments. Returns its url, the rows that were aggregated, and the groups.
    """
    if is_database(source_url(source)):
        raise ActorArgumentError(
            f"the data source {source!r} is a database: data.aggregate works on files, "
            "report.generate on both"
        )
    wanted, name = filter or {}, table or source
    target = path or default_path(
        source, table=name, group_by=group_by, measures=measures, filters=wanted, form=format
    )
    with open_files(source) as connection:
        try:
            columns = _columns(connection, name)
            sql = statement(name, columns, group_by, measures, wanted)
            values = [value for value in wanted.values() if value is not None]
            counting = statement(name, columns, [], ["count"], wanted)
            (rows,) = connection.execute(counting, values).fetchall()[0]
            reader = connection.sql(sql, params=values).to_arrow_reader(BATCH_ROWS)
            with storage().writing(target) as draft:
                groups = write(Rows(reader.schema, iter(reader)), draft.path, format)
        except (duckdb.DataError, duckdb.ProgrammingError, pa.ArrowException) as error:
            raise ActorArgumentError(f"{source!r} cannot be aggregated so: {error}") from error
    return {"url": draft.result().url, "rows": rows, "groups": groups}


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    tables = [row[0] for row in connection.execute("SHOW TABLES").fetchall()]
    if table not in tables:
        raise ActorArgumentError(f"the source has no table {table!r}, only {tables}")
    return [row[0] for row in connection.execute(f"DESCRIBE {quoted(table)}").fetchall()]


def statement(
    table: str,
    columns: Sequence[str],
    group_by: Sequence[str],
    measures: Sequence[str],
    filters: Mapping[str, Scalar],
) -> str:
    """Return the SELECT, with a ``?`` for each filter value that is not None.

    Identifiers are those of ``columns``, quoted; any other is an `ActorArgumentError`.
    """

    def column(name: str) -> str:
        if name not in columns:
            raise ActorArgumentError(f"there is no column {name!r} in {table!r}: {list(columns)}")
        return quoted(name)

    def measure(text: str) -> str:
        if text == "count":
            return 'count(*) AS "count"'
        function, _, name = text.partition(":")
        if function not in MEASURES:
            raise ActorArgumentError(
                f"{text!r} is no measure: say count, or column behind one of {', '.join(MEASURES)}"
            )
        return f"{MEASURES[function].format(column(name))} AS {quoted(f'{function}_{name}')}"

    groups = [column(name) for name in group_by]
    conditions = [
        f"{column(name)} IS NULL" if value is None else f"{column(name)} = ?"
        for name, value in filters.items()
    ]
    selected = ", ".join([*groups, *map(measure, measures)])
    sql = f"SELECT {selected} FROM {quoted(table)}"  # noqa: S608 - quoted names of the schema
    if conditions:
        sql += f" WHERE {' AND '.join(conditions)}"
    if groups:
        sql += f" GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}"
    return sql


def default_path(
    source: str,
    *,
    table: str,
    group_by: Sequence[str],
    measures: Sequence[str],
    filters: Mapping[str, Scalar],
    form: str,
) -> str:
    """Return the path of a summary by what it is made from, with a plain filter readable."""
    made_from = json.dumps(
        [source, table, list(group_by), list(measures), dict(filters)], sort_keys=True
    )
    digest = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    parts = [f"{name}={value}" for name, value in filters.items()]
    plain = all(
        part.replace("=", "").replace("-", "").replace("_", "").isalnum() and len(part) < 60
        for part in parts
    )
    folder = (
        ",".join(parts) if parts and plain and len(parts) < 6 else "all" if not parts else "some"
    )
    return f"aggregates/{source}/{folder}/{digest}.{form}"
