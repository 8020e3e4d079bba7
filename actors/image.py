"""``image.resize``: one picture of the storage in several sizes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import Field

import leveret
from actors.error import DEAD_ON, RETRY_ON
from actors.picture import SUFFIXES, Format, decode, encode, parse_size, shrink
from actors.report import Reference
from actors.settings import ImageSettings, load
from actors.storage import storage

__all__ = ["resize"]

SizeText = Annotated[str, Field(pattern=r"^[1-9]\d{0,4}x[1-9]\d{0,4}$")]


@leveret.actor(
    "image.resize",
    queue="bulk",
    time_limit=timedelta(minutes=3),
    max_retries=5,
    backoff=leveret.Backoff(base=timedelta(seconds=15), cap=timedelta(minutes=30)),
    retry_on=RETRY_ON,
    dead_on=DEAD_ON,
)
def resize(
    *,
    image: Reference,
    sizes: Annotated[list[SizeText], Field(min_length=1, max_length=20)],
    folder: Reference = "images",
    format: Format | None = None,  # noqa: A002 - the argument's name in the job
) -> dict[str, Any]:
    """Fit ``image`` into each box of ``sizes`` (``640x480``) and write ``<folder>/<name>-<size>``.

    Proportions are kept and nothing is enlarged; the orientation is applied and all metadata
    dropped. Without ``format`` the picture keeps its own (JPEG, PNG or WebP). A second run writes
    the same files again. Returns the url, width, height, bytes and sha256 of each.
    """
    settings, files = load(ImageSettings), storage()
    boxes = [parse_size(size) for size in dict.fromkeys(sizes)]
    content = files.read(image, limit=settings.max_bytes)
    picture, original = decode(content, max_pixels=settings.max_pixels)
    form = format or original
    written = []
    for box in boxes:
        small = shrink(picture, box)
        name = f"{folder}/{PurePosixPath(image).stem}-{box}{SUFFIXES[form]}"
        with files.writing(name) as draft:
            draft.path.write_bytes(encode(small, form))
        written.append({**draft.result().as_json(), "width": small.width, "height": small.height})
    return {"images": written}
