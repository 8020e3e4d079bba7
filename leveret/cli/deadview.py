"""What ``leveret dead`` does: read, ask, act, print."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine

from leveret.cli.common import confirm, load_actors, print_json, print_table
from leveret.deadletters import query, text
from leveret.deadletters.query import Letter, Replay, Results
from leveret.deadletters.replay import Check, cancel_replay, create_replay
from leveret.deadletters.replay import discard as discard_letters
from leveret.deadletters.selection import Selection
from leveret.deadletters.state import LetterState, ReplayState
from leveret.errors import ConfigurationError, ReplayRefused
from leveret.settings import Settings
from leveret.store import audit_log
from leveret.store.engine import engine as make_engine

__all__ = ["cancel", "discard", "follow", "groups", "letters", "replay", "replays", "show"]

_POLL_SECONDS = 0.25
#: Seconds between two counts of what became of the jobs: each reads all of them.
_FIRST_RESULTS_SECONDS = 0.25
_LAST_RESULTS_SECONDS = 5.0
#: Seconds without progress after which a running relay is asked for.
_PATIENCE_SECONDS = 15.0
_LONGEST_ERROR = 100
#: As much of a fingerprint as a table shows; a group is named by how its fingerprint begins.
_FINGERPRINT = 8
_INTERRUPTED = 130


@contextmanager
def _database(settings: Settings | None = None) -> Iterator[Engine]:
    found = make_engine(
        (settings or Settings.from_env()).require_database_url(), pool_size=1, application="cli"
    )
    try:
        yield found
    finally:
        found.dispose()


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _line(words: str | None, length: int = _LONGEST_ERROR) -> str:
    """Write a text in one line, cut."""
    shown = " ".join(text.visible((words or "")[: length * 4]).split())
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def _error(of: Any) -> str:
    kind = f"{of.error_type}: " if of.error_type else ""
    return _line(f"{kind}{of.error or ''}")


def _say(words: str) -> None:
    """Tell people, not programs."""
    print(words, file=sys.stderr)


# ------------------------------------------------------------------------------------------ looking


def groups(
    *,
    order: Literal["latest", "open"],
    only_open: bool,
    actor: str | None,
    reason: str | None,
    since: datetime | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """Print the groups."""
    with _database() as engine, engine.connect() as connection:
        page = query.groups(
            connection,
            order=order,
            only_open=only_open,
            actor=actor,
            reason=reason,
            since=since,
            limit=limit,
            after=after,
        )
    if as_json:
        print_json({"items": [asdict(group) for group in page.items], "next": page.next})
        return
    print_table(
        ("group", "actor", "reason", "open", "replayed", "again", "first", "latest", "error"),
        [
            (
                group.fingerprint[:_FINGERPRINT],
                _line(group.actor) or "-",
                group.reason,
                group.open,
                group.replayed,
                group.died_again,
                _time(group.first_at),
                _time(group.last_at),
                _error(group),
            )
            for group in page.items
        ],
    )
    _more(page.next)


def letters(
    selection: Selection, *, state: str, limit: int, after: str | None, as_json: bool
) -> None:
    """Print dead letters."""
    if state != "any":
        try:
            selection = replace(selection, state=LetterState(state))
        except ValueError:
            raise ConfigurationError(
                f"--state is any, or one of {', '.join(LetterState)}, not {state!r}"
            ) from None
    with _database() as engine, engine.connect() as connection:
        selection = _resolve(connection, selection)
        page = query.letters(connection, selection, limit=limit, after=after)
    if as_json:
        print_json({"items": [asdict(letter) for letter in page.items], "next": page.next})
        return
    print_table(
        ("id", "dead", "job", "run", "actor", "queue", "reason", "state", "error"),
        [
            (
                letter.id,
                _time(letter.dead_at),
                _line(letter.job_id) or "-",
                letter.run,
                _line(letter.actor) or "-",
                letter.queue or "-",
                letter.reason,
                letter.state,
                _error(letter),
            )
            for letter in page.items
        ],
    )
    _more(page.next)


def _more(cursor: str | None) -> None:
    if cursor is not None:
        _say(f"there are more: --after {cursor}")


def _resolve(connection: Any, selection: Selection) -> Selection:
    """Complete the fingerprint of a group."""
    if selection.fingerprint is None:
        return selection
    found = query.fingerprints(connection, selection.fingerprint)
    if len(found) != 1:
        raise ReplayRefused(
            "nothing-matches",
            f"{'more than one group begins' if found else 'no group begins'} with "
            f"{selection.fingerprint!r}",
        )
    return replace(selection, fingerprint=found[0])


def show(letter_id: int, *, body: bool, as_json: bool) -> None:
    """Print one dead letter."""
    with _database() as engine, engine.connect() as connection:
        letter = query.letter(connection, letter_id)
        if letter is None:
            raise ReplayRefused("nothing-matches", f"there is no dead letter {letter_id}")
        if body:
            sys.stdout.buffer.write(letter.body)
            sys.stdout.buffer.flush()
            return
        history = query.history(connection, letter)
    if as_json:
        print_json(text.document(letter, history))
        return
    _show_letter(letter)
    if history.attempts:
        print("\nattempts")
        print_table(
            ("run", "attempt", "started", "ended", "outcome", "worker", "error"),
            [
                (
                    a.run,
                    a.attempt,
                    _time(a.started_at),
                    _time(a.ended_at),
                    a.outcome,
                    a.worker or "-",
                    _error(a),
                )
                for a in history.attempts
            ],
        )
    if len(history.letters) > 1:
        print("\ndead letters of this job")
        print_table(
            ("id", "run", "dead", "reason", "state", "replay", "error"),
            [
                (x.id, x.run, _time(x.dead_at), x.reason, x.state, x.replay_id or "-", _error(x))
                for x in history.letters
            ],
        )
    if history.replays:
        print("\nreplays")
        _print_replays(history.replays)
    if letter.new_job_id is not None:
        new = history.new_job
        print(f"\nnew job    {letter.new_job_id}: {'not known yet' if new is None else new.state}")
    elif history.job is not None:
        print(f"\njob        {history.job.state}, run {history.job.run}")


def _show_letter(letter: Letter) -> None:
    state = str(letter.state)
    if letter.resolved_by is not None:
        state += f" by {_line(letter.resolved_by)} at {_time(letter.resolved_at)}"
    fields: dict[str, object] = {
        "dead letter": letter.id,
        "state": state,
        "refused": letter.refusal,
        "job": letter.job_id or "- (the message says none)",
        "run": f"{letter.run} (it has been replayed, and died again)" if letter.run else "0",
        "attempt": letter.attempt,
        "actor": letter.actor,
        "queue": letter.queue or "- (no queue wanted it)",
        "routing key": letter.routing_key,
        "dead at": _time(letter.dead_at),
        "group": letter.fingerprint,
        "reason": letter.reason,
        "error": f"{letter.error_type or ''}: {letter.error or ''}".strip(": "),
    }
    for name, value in fields.items():
        if value is not None:
            print(f"{name:<11} {text.visible(str(value))}")
    if letter.traceback:
        print(f"\ntraceback\n{text.visible(letter.traceback).rstrip()}")
    properties = text.properties_document(letter.properties)
    headers = properties.pop("headers", {})
    for title, table in (("properties", properties), ("headers", headers)):
        if table:
            print(f"\n{title}")
            for name, value in table.items():
                print(f"  {text.visible(name)}: {_line(str(value), 500)}")
    print(f"\nbody ({len(letter.body):,} bytes)\n{text.body_text(letter.body)}")


# ------------------------------------------------------------------------------------------- acting


def _count(engine: Engine, selection: Selection) -> tuple[Selection, int]:
    with engine.connect() as connection:
        selection = _resolve(connection, selection)
        total = query.count(connection, replace(selection, state=LetterState.OPEN))
    if not total:
        raise ReplayRefused("nothing-matches", "no open dead letter matches")
    return selection, total


def _letters(count: int) -> str:
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


@contextmanager
def _refusals_audited(engine: Engine, action: str, target: str | None = None) -> Iterator[None]:
    try:
        yield
    except ReplayRefused as error:
        with engine.begin() as connection:
            audit_log.record(
                connection,
                who=audit_log.operator(),
                action=action,
                target=target,
                outcome="refused",
                detail={"reason": error.reason},
            )
        raise


def _checker(settings: Settings) -> Check | None:
    """Return what checks new arguments, if the actors can be loaded here."""
    try:
        broker = load_actors(settings)
    except ConfigurationError as error:
        _say(f"the new arguments are not checked: {error}")
        return None

    def check(actor: str, arguments: Mapping[str, Any]) -> None:
        if actor in broker.actors:
            broker.signature(actor).check((), arguments)

    return check


def replay(
    selection: Selection,
    *,
    rate: float | None,
    edits: dict[str, Any] | None,
    yes: bool,
    detach: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Create a replay, and follow it."""
    settings = Settings.from_env()
    check = None
    if edits is not None and settings.edited_replay:
        check = _checker(settings)
    with _database(settings) as engine:
        selection, total = _count(engine, selection)
        at = "" if rate is None else f" at {rate:g} per second"
        how = "as new jobs, with other arguments" if edits is not None else "under their own ids"
        confirm(f"Replay {_letters(total)} {how}{at}?", yes=yes)
        with _refusals_audited(engine, "replay.create"), engine.begin() as connection:
            made = create_replay(
                connection,
                selection,
                requested_by=audit_log.operator(),
                rate=rate,
                edits=edits,
                edits_allowed=settings.edited_replay,
                check=check,
            )
        if detach:
            if as_json:
                print_json(_replay_document(made, None))
            else:
                print(f"replay {made.id} of {_letters(made.total)} is under way")
                _say(f"follow it with: leveret dead replay --follow {made.id}")
            return
        _follow(engine, made, wait=wait, as_json=as_json)


def follow(replay_id: int, *, wait: bool, as_json: bool) -> None:
    """Follow a replay."""
    with _database() as engine:
        with engine.connect() as connection:
            found = query.replay(connection, replay_id)
        if found is None:
            raise ReplayRefused("unknown-replay", f"there is no replay {replay_id}")
        _follow(engine, found, wait=wait, as_json=as_json)


def cancel(replay_id: int, *, as_json: bool) -> None:
    """Stop a replay."""
    with (
        _database() as engine,
        _refusals_audited(engine, "replay.cancel", str(replay_id)),
        engine.begin() as connection,
    ):
        found = cancel_replay(connection, replay_id, by=audit_log.operator())
    if as_json:
        print_json(_replay_document(found, None))
    else:
        print(
            f"replay {found.id} is cancelled: {found.published:,} of {found.total:,} were "
            "published, the others are open again"
        )


def discard(selection: Selection, *, note: str | None, yes: bool, as_json: bool) -> None:
    """Discard dead letters."""
    with _database() as engine:
        selection, total = _count(engine, selection)
        confirm(f"Discard {_letters(total)}?", yes=yes)
        with _refusals_audited(engine, "dead-letters.discard"), engine.begin() as connection:
            done = discard_letters(connection, selection, by=audit_log.operator(), note=note)
    if as_json:
        print_json({"discarded": done})
    else:
        print(f"{_letters(done)} discarded")


def replays(*, limit: int, after: str | None, as_json: bool) -> None:
    """Print the replays."""
    with _database() as engine, engine.connect() as connection:
        page = query.replays(connection, limit=limit, after=after)
    if as_json:
        items = [_replay_document(found, None) for found in page.items]
        print_json({"items": items, "next": page.next})
        return
    _print_replays(page.items)
    _more(page.next)


def _print_replays(found: tuple[Replay, ...]) -> None:
    print_table(
        ("replay", "created", "by", "which", "rate", "state", "published", "refused", "of"),
        [
            (
                r.id,
                _time(r.created_at),
                _line(r.requested_by),
                _line(", ".join(f"{k}={v}" for k, v in r.selection.to_dict().items())) or "all",
                "-" if r.rate is None else f"{r.rate:g}/s",
                r.state,
                r.published,
                r.refused,
                r.total,
            )
            for r in found
        ],
    )


# ---------------------------------------------------------------------------------------- following


def _replay_document(found: Replay, results: Results | None) -> dict[str, Any]:
    shown = {**asdict(found), "selection": found.selection.to_dict()}
    if results is not None:
        shown["results"] = asdict(results)
    return shown


def _follow(engine: Engine, found: Replay, *, wait: bool, as_json: bool) -> None:
    """Show the progress of a replay until its end; Ctrl-C leaves it running."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    try:
        if found.state is ReplayState.RUNNING and not as_json:
            _say(f"replay {found.id} of {_letters(found.total)}; Ctrl-C leaves it running")
        with Progress(*columns, console=console, disable=as_json or not console.is_terminal) as bar:
            found = _until_published(engine, found, bar)
            results = _results(engine, found.id)
            if wait:
                results = _until_ended(engine, found, results, bar)
    except KeyboardInterrupt:
        _say(
            f"\nreplay {found.id} goes on without you\n"
            f"follow it with: leveret dead replay --follow {found.id}\n"
            f"stop it with:   leveret dead replay --cancel {found.id}"
        )
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        print_json(_replay_document(found, results))
    else:
        print(
            f"replay {found.id} is {found.state}: {found.published:,} of {found.total:,} published"
            + (f", {found.refused:,} refused" if found.refused else "")
        )
        print(
            f"of its jobs {results.succeeded:,} succeeded, {results.died_again:,} died again, "
            f"{results.live:,} wait or run"
            + (f", {results.other:,} are cancelled or unknown" if results.other else "")
        )
        if found.refused:
            _say("`leveret dead show` says of a refused dead letter why")
    if found.refused or (wait and results.died_again):
        raise typer.Exit(1)


def _results(engine: Engine, replay_id: int) -> Results:
    with engine.connect() as connection:
        return query.results(connection, replay_id)


def _until_published(engine: Engine, found: Replay, bar: Progress) -> Replay:
    task = bar.add_task("published", total=found.total)
    changed = time.monotonic()
    while True:
        with engine.connect() as connection:
            now = query.replay(connection, found.id)
        if now is None:
            raise ReplayRefused("unknown-replay", f"replay {found.id} is gone")
        bar.update(task, completed=now.published + now.refused)
        if now.state is not ReplayState.RUNNING:
            return now
        if now.left != found.left:
            changed = time.monotonic()
        elif time.monotonic() - changed > _PATIENCE_SECONDS + 1 / (now.rate or 1.0):
            bar.console.print("nothing moves: does a relay run? (python -m services.relay)")
            changed = float("inf")
        found = now
        time.sleep(_POLL_SECONDS)


def _until_ended(engine: Engine, found: Replay, results: Results, bar: Progress) -> Results:
    task = bar.add_task("ended", total=found.published)
    pause = _FIRST_RESULTS_SECONDS
    while results.live:
        bar.update(task, completed=found.published - results.live)
        time.sleep(pause)
        pause = min(pause * 1.5, _LAST_RESULTS_SECONDS)
        results = _results(engine, found.id)
    bar.update(task, completed=found.published)
    return results
