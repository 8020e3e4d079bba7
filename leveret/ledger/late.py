"""Jobs that ended a while ago, and of which the ledger hears only now.

Roll-ups count the last minutes anew each time (`leveret.housekeeping.rollup`); what they would not
look at again has to be said. So whoever writes such an end leaves a mark, in the same transaction:
a row of its own for each bucket, which collides with nobody's. The next roll-up takes the marks
that it sees and counts their buckets anew; a mark that commits later is for the roll-up after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["BUCKET", "LATE", "bucket_of", "buckets_of", "mark"]

#: What roll-ups count together.
BUCKET = timedelta(minutes=5)
#: An end that is older than this when it is written is marked. The time that a transaction takes,
#: and the difference of two clocks, come on top: roll-ups look back four times as far.
LATE = timedelta(minutes=5)

_MARK = "INSERT INTO rollup_marks (bucket) VALUES (%s)"
_SECONDS = BUCKET.total_seconds()


class _Cursor(Protocol):
    def executemany(self, query: str, params_seq: Sequence[Sequence[object]], /) -> object: ...


def bucket_of(moment: datetime) -> datetime:
    """Return where the bucket of a moment begins, in UTC."""
    return datetime.fromtimestamp(moment.timestamp() // _SECONDS * _SECONDS, UTC)


def buckets_of(ends: Iterable[float | None], now: float) -> set[float]:
    """Return the buckets, by their beginning, of ends that are late at ``now``; all in seconds."""
    latest = now - LATE.total_seconds()
    return {end // _SECONDS * _SECONDS for end in ends if end is not None and end < latest}


def mark(cursor: _Cursor, buckets: Iterable[float]) -> None:
    """Have buckets counted anew, in the caller's transaction."""
    rows = [(datetime.fromtimestamp(bucket, UTC),) for bucket in sorted(buckets)]
    if rows:
        cursor.executemany(_MARK, rows)
