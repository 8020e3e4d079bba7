"""What is done about dead letters: replays are created and cancelled, letters are discarded.

**The protocol of a replay.** `create_replay` takes open dead letters for itself, in one
transaction: their state becomes ``replaying``, and no other replay and no discard can have them.
From then on the runner (`leveret.deadletters.runner`) takes them in batches, at the replay's rate.
For each batch one transaction writes the copies into the outbox, marks the dead letters
``replayed``, sets the jobs back to ``queued`` and counts. So a process that is killed at any point
leaves each dead letter either still to be replayed or in the outbox, never both, never neither;
any runner goes on from there. The relay publishes from the outbox, at least once, under the job's
own id.

A replayed job keeps its id; its run is one higher, and in the ledger a higher run wins against
anything that is still said of the run before. A replay with ``edits`` makes new jobs instead.

These functions are for a connection of SQLAlchemy's, in the caller's transaction; on one of its
asyncio kind use ``await connection.run_sync(create_replay, selection, …)``. Each of them writes
into ``audit_log``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.engine import Connection

from leveret.deadletters import group, query
from leveret.deadletters.copy import Unfit, edited
from leveret.deadletters.query import Replay
from leveret.deadletters.selection import Selection
from leveret.deadletters.state import LetterState, ReplayState
from leveret.errors import InvalidJob, ReplayRefused
from leveret.store import audit_log
from leveret.store.schema import DeadLetter
from leveret.store.schema import Replay as ReplayRow

__all__ = ["MAX_EDITED", "cancel_replay", "create_replay", "discard"]

#: Dead letters that one edited replay may take: each is read, and checked, before it is accepted.
MAX_EDITED = 1000
#: Dead letters that one statement takes.
_BATCH = 5000
_LONGEST_NOTE = 500

#: Checks an actor's arguments; raises `InvalidJob`.
Check = Callable[[str, Mapping[str, Any]], object]


def create_replay(
    connection: Connection,
    selection: Selection,
    *,
    requested_by: str,
    rate: float | None = None,
    edits: Mapping[str, Any] | None = None,
    edits_allowed: bool = False,
    check: Check | None = None,
    address: str | None = None,
) -> Replay:
    """Take the open dead letters of a selection, to be replayed at ``rate`` jobs per second.

    ``edits`` is a JSON merge patch (RFC 7396) of the arguments; it makes each letter a new job, and
    is refused unless ``edits_allowed`` (the setting ``LEVERET_EDITED_REPLAY``). ``check`` is asked
    about each new job's arguments. Raises `ReplayRefused`; roll back then.
    """
    if rate is not None and not (math.isfinite(rate) and 0.001 <= rate <= 1e6):
        raise ReplayRefused(
            "bad-rate", f"a rate is from 0.001 to 1,000,000 jobs per second, not {rate}"
        )
    if edits is not None and not edits_allowed:
        raise ReplayRefused(
            "edits-are-off",
            "replays with other arguments are off here; LEVERET_EDITED_REPLAY=true allows them",
        )
    replay_id = connection.execute(
        insert(ReplayRow)
        .values(
            requested_by=requested_by,
            selection=replace(selection, state=None).to_dict(),
            rate=rate,
            edits=None if edits is None else dict(edits),
        )
        .returning(ReplayRow.id)
    ).scalar_one()
    total = 0
    for ids, _ in _open_letters(connection, selection):
        total += len(ids)
        if edits is not None:
            _check_edits(connection, ids, edits, check, total)
        connection.execute(
            update(DeadLetter)
            .where(DeadLetter.id == func.any(ids))
            .values(state=LetterState.REPLAYING, replay_id=replay_id, refusal=None)
        )
    if not total:
        raise ReplayRefused("nothing-matches", "no open dead letter matches")
    connection.execute(update(ReplayRow).where(ReplayRow.id == replay_id).values(total=total))
    audit_log.record(
        connection,
        who=requested_by,
        action="replay.create",
        target=str(replay_id),
        outcome="done",
        detail={
            "selection": selection.to_dict(),
            "total": total,
            "rate": rate,
            "edited": None if edits is None else sorted(edits),
        },
        address=address,
    )
    connection.execute(text("SELECT pg_notify('leveret_outbox', '')"))  # the runner sits there
    return _read(connection, replay_id)


def _read(connection: Connection, replay_id: int) -> Replay:
    found = query.replay(connection, replay_id)
    if found is None:
        raise ReplayRefused("unknown-replay", f"there is no replay {replay_id}")
    return found


def _open_letters(
    connection: Connection, selection: Selection
) -> Iterator[tuple[list[int], list[str]]]:
    """Lock the open dead letters of a selection, a batch after the other: ids, fingerprints."""
    conditions = replace(selection, state=LetterState.OPEN).conditions()
    last = 0
    while True:
        rows = connection.execute(
            select(DeadLetter.id, DeadLetter.fingerprint)
            .where(*conditions, DeadLetter.id > last)
            .order_by(DeadLetter.id)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        ).all()
        if not rows:
            return
        last = rows[-1].id
        yield [row.id for row in rows], [row.fingerprint for row in rows]


def _check_edits(
    connection: Connection,
    ids: list[int],
    edits: Mapping[str, Any],
    check: Check | None,
    total: int,
) -> None:
    if total > MAX_EDITED:
        raise ReplayRefused(
            "too-many",
            f"a replay with other arguments takes at most {MAX_EDITED} dead letters; narrow it",
        )
    for letter_id in ids:
        letter = query.letter(connection, letter_id)
        if letter is None:
            continue
        try:
            actor, arguments, _ = edited(letter, edits, "")
            if check is not None:
                check(actor, arguments)
        except (Unfit, InvalidJob) as error:
            raise ReplayRefused("bad-arguments", f"dead letter {letter_id}: {error}") from None


def cancel_replay(
    connection: Connection, replay_id: int, *, by: str, address: str | None = None
) -> Replay:
    """Stop a running replay: what it has not come to is open again. Raises `ReplayRefused`."""
    connection.execute(select(ReplayRow.id).where(ReplayRow.id == replay_id).with_for_update())
    found = _read(connection, replay_id)
    if found.state is not ReplayState.RUNNING:
        raise ReplayRefused("not-running", f"replay {replay_id} is {found.state} already")
    connection.execute(
        update(DeadLetter)
        .where(DeadLetter.replay_id == replay_id, DeadLetter.state == LetterState.REPLAYING)
        .values(state=LetterState.OPEN, replay_id=None)
    )
    connection.execute(
        update(ReplayRow)
        .where(ReplayRow.id == replay_id)
        .values(state=ReplayState.CANCELLED, finished_at=func.clock_timestamp())
    )
    audit_log.record(
        connection,
        who=by,
        action="replay.cancel",
        target=str(replay_id),
        outcome="done",
        detail={"published": found.published, "total": found.total},
        address=address,
    )
    return _read(connection, replay_id)


def discard(
    connection: Connection,
    selection: Selection,
    *,
    by: str,
    note: str | None = None,
    address: str | None = None,
) -> int:
    """Set open dead letters aside for good; return how many. Raises `ReplayRefused` if none is.

    They stay in the table, and their jobs stay dead. ``note`` says why, in the audit log.
    """
    total = 0
    counts: Counter[str] = Counter()
    for ids, fingerprints in _open_letters(connection, selection):
        connection.execute(
            update(DeadLetter)
            .where(DeadLetter.id == func.any(ids))
            .values(state=LetterState.DISCARDED, resolved_at=func.clock_timestamp(), resolved_by=by)
        )
        total += len(ids)
        counts.update(fingerprints)
    if not total:
        raise ReplayRefused("nothing-matches", "no open dead letter matches")
    group.resolved(connection, LetterState.DISCARDED, counts)
    audit_log.record(
        connection,
        who=by,
        action="dead-letters.discard",
        outcome="done",
        detail={"selection": selection.to_dict(), "total": total}
        | ({} if note is None else {"note": note[:_LONGEST_NOTE].replace("\x00", "\ufffd")}),
        address=address,
    )
    return total
