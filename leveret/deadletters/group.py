"""Keeping the counts of the groups: in the transaction that changes the dead letters.

A group's ``open`` counts the dead letters that nothing has been done about, those that a replay
has claimed among them; each of the other counts is a state of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.engine import Connection

from leveret.deadletters.state import LetterState

__all__ = ["resolved"]

_LOCK = text(
    "SELECT 1 FROM dead_letter_groups WHERE fingerprint = ANY(:fingerprints)"
    " ORDER BY fingerprint FOR UPDATE"
)
_MOVE = {
    state: text(
        f"UPDATE dead_letter_groups AS g SET open = g.open - n.count,"  # noqa: S608 - a word of ours
        f" {state} = g.{state} + n.count"
        " FROM unnest(CAST(:fingerprints AS text[]), CAST(:counts AS bigint[]))"
        " AS n(fingerprint, count) WHERE g.fingerprint = n.fingerprint"
    )
    for state in (LetterState.REPLAYED, LetterState.DISCARDED, LetterState.SUPERSEDED)
}


def resolved(connection: Connection, state: LetterState, counts: Mapping[str, int]) -> None:
    """Take note that so many open dead letters of each fingerprint are now in ``state``."""
    if not counts:
        return
    # In one order, so that two of them do not wait for each other.
    fingerprints = sorted(counts)
    connection.execute(_LOCK, {"fingerprints": fingerprints})
    connection.execute(
        _MOVE[state],
        {"fingerprints": fingerprints, "counts": [counts[name] for name in fingerprints]},
    )
