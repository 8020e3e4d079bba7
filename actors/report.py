"""``report.generate``: a query of the catalogue, run on a data source, as a file in the storage."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

import leveret
from actors import query as catalogue
from actors.error import DEAD_ON, RETRY_ON
from actors.query import Scalar
from actors.storage import storage
from actors.table import Format, write

__all__ = ["generate"]

SourceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Reference = Annotated[str, Field(min_length=1, max_length=900)]


@leveret.actor(
    "report.generate",
    queue="bulk",
    time_limit=timedelta(minutes=15),
    max_retries=5,
    backoff=leveret.Backoff(base=timedelta(seconds=30), cap=timedelta(hours=1)),
    retry_on=RETRY_ON,
    dead_on=DEAD_ON,
)
def generate(
    *,
    query: Annotated[str, Field(max_length=200)],
    source: SourceName,
    parameters: dict[str, Scalar] | None = None,
    format: Format = "csv",  # noqa: A002 - the argument's name in the job
    path: Reference | None = None,
) -> dict[str, Any]:
    """Run ``query`` with ``parameters`` on ``source`` and write what it returns.

    Without ``path`` the file is ``reports/<query>/<digest of the arguments>.<format>``, so the same
    job always writes the same file, and replaces it whole. Returns its url, rows, bytes and sha256.
    """
    wanted = catalogue.find(query)
    values = parameters or {}
    target = path or default_path(query, source, values, format)
    with catalogue.run(wanted, source, values) as rows, storage().writing(target) as draft:
        count = write(rows, draft.path, format)
    return {**draft.result().as_json(), "rows": count}


def default_path(query: str, source: str, parameters: dict[str, Scalar], form: Format) -> str:
    """Return the path of a report by what it is made from."""
    made_from = json.dumps([query, source, parameters], sort_keys=True)
    return f"reports/{query}/{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.{form}"
