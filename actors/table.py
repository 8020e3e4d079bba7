"""Writing record batches to a file as CSV, Parquet or XLSX, one batch in memory at a time."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from actors.error import ActorArgumentError
from actors.library import library

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import openpyxl
    from openpyxl.cell import cell as cells
    from openpyxl.worksheet._write_only import WriteOnlyWorksheet
    from pyarrow import csv, parquet

    from actors.query import Rows
else:
    openpyxl, cells = library("openpyxl"), library("openpyxl.cell.cell")
    csv, parquet = library("pyarrow.csv"), library("pyarrow.parquet")

__all__ = ["Format", "write"]

Format = Literal["csv", "parquet", "xlsx"]

_SHEET_ROWS = 1_048_576
_CELL_CHARACTERS = 32_767


def write(rows: Rows, path: Path, form: Format) -> int:
    """Write ``rows`` to ``path`` and return how many there were. Column names come first."""
    match form:
        case "csv":
            return _write_csv(rows, path)
        case "parquet":
            return _write_parquet(rows, path)
        case "xlsx":
            return _write_xlsx(rows, path)


def _write_csv(rows: Rows, path: Path) -> int:
    count = 0
    with csv.CSVWriter(path, rows.schema) as writer:
        for batch in rows.batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _write_parquet(rows: Rows, path: Path) -> int:
    count = 0
    with parquet.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for batch in rows.batches:
            if batch.num_rows:
                writer.write_batch(batch)
                count += batch.num_rows
    return count


def _write_xlsx(rows: Rows, path: Path) -> int:
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("report")
    sheet.append([_cell(sheet, name) for name in rows.schema.names])
    count = 0
    try:
        for values in _fitting(rows):
            sheet.append([_cell(sheet, value) for value in values])
            count += 1
        workbook.save(path)
    except BaseException:
        sheet.close()
        raise
    return count


def _fitting(rows: Rows) -> Iterator[tuple[Any, ...]]:
    """Yield the rows one by one; raise `ActorArgumentError` for the first that has no room."""
    count = 1  # the names of the columns
    for batch in rows.batches:
        count += batch.num_rows
        if count > _SHEET_ROWS:
            raise ActorArgumentError(
                f"the report has more rows than a sheet can hold ({_SHEET_ROWS - 1}): "
                "ask for csv or parquet"
            )
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _cell(sheet: WriteOnlyWorksheet, value: Any) -> Any:
    """Return what openpyxl writes for ``value``; a text is never taken for a formula."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | Decimal | date | time | timedelta):
        return value
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    cell = cells.WriteOnlyCell(sheet)
    cell.value = cells.ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", text)[
        :_CELL_CHARACTERS
    ]
    cell.data_type = "s"
    return cell
