"""``leveret audit``."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leveret.cli.common import (
    AsJson,
    console,
    guarded,
    load_actors,
    print_json,
    print_table,
    vhost_of,
)
from leveret.errors import ConfigurationError
from leveret.management import Management
from leveret.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.audit import Finding, Report

__all__ = ["audit"]

_LOOK_SECONDS = 1.0
#: RabbitMQ's counts are up to 5 s old: only what is still so after that is said.
_STALE_SECONDS = 6.0
_SHOWN = 50


@guarded
def audit(
    repair: Annotated[bool, typer.Option("--repair", help="Do what it proposes.")] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to let the recorder catch up and things in motion land.")
    ] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Prove that every accepted job is accounted for; name each one that is not.

    Compares the ledger, the outbox, the claims and the broker's own counts. The exit status is 0
    when everything adds up, 1 when it does not, 3 when the recorder has not caught up.
    """
    from leveret import audit as auditing  # noqa: PLC0415 - needs SQLAlchemy
    from leveret.schedules.gaps import grace_for  # noqa: PLC0415
    from leveret.store import audit_log, engine  # noqa: PLC0415

    settings = Settings.from_env()
    if settings.management_url is None:
        raise ConfigurationError("LEVERET_MANAGEMENT_URL is not set; the audit counts messages")
    vhost = vhost_of(settings.require_amqp_url())
    broker = load_actors(settings)
    actors = {name: actor.queue_name for name, actor in broker.actors.items()}
    database = engine(settings.require_database_url(), pool_size=1, application="leveret audit")

    def look() -> Report:
        with Management(settings.management_url or "") as management, database.connect() as ledger:
            return auditing.judge(
                auditing.look(
                    ledger,
                    management,
                    vhost,
                    queues=settings.queues,
                    actors=actors,
                    keep=timedelta(days=settings.retention_days),
                    grace=grace_for(settings.scheduler_lease),
                )
            )

    try:
        report = _settle(look, wait)
        repaired: dict[Finding, bool] = {}
        if repair and report.findings and report.is_settled:

            def record(connection: Any, finding: Finding, changed: bool) -> None:  # noqa: FBT001
                audit_log.record(
                    connection,
                    who=audit_log.operator(),
                    action="audit.repair",
                    target=finding.subject,
                    outcome="done" if changed else "refused",
                    detail={"kind": finding.kind, "remedy": finding.remedy}
                    | ({} if finding.schedule is None else {"schedule": finding.schedule}),
                )

            with database.connect() as ledger:
                repaired = dict(
                    auditing.repair(ledger, report.findings, by=audit_log.operator(), record=record)
                )
    finally:
        database.dispose()
    if as_json:
        print_json(_document(report, repaired))
    else:
        _print(report, repaired, proposed=not repair)
    if not report.is_settled:
        raise typer.Exit(3)
    if not report.holds and not (repaired and all(repaired.values())):
        raise typer.Exit(1)


def _settle(look: Callable[[], Report], patience: float) -> Report:
    """Look until everything adds up, or until what does not has stayed so."""
    end = time.monotonic() + patience
    seen: dict[tuple[str, str], float] = {}
    while True:
        report = look()
        now = time.monotonic()
        if report.holds:
            return report
        present = {(finding.kind, finding.subject) for finding in report.findings}
        seen = {key: seen.get(key, now) for key in present}
        settled = report.is_settled and all(now - at >= _STALE_SECONDS for at in seen.values())
        if settled or now >= end:
            return report
        time.sleep(min(_LOOK_SECONDS, max(0.05, end - now)))


def _document(report: Report, repaired: dict[Finding, bool]) -> dict[str, Any]:
    return {
        "taken_at": report.taken_at.isoformat(),
        "holds": report.holds,
        "published": report.published,
        "states": {str(state): count for state, count in report.states.items()},
        "live": report.live,
        "places": {
            place: {"ledger": known, "there": there}
            for place, (known, there) in report.places.items()
        },
        "dead_letters": dict(report.letters),
        "unread": report.unread,
        "surplus": report.surplus,
        "findings": [
            {
                "kind": str(finding.kind),
                "job_id": finding.subject if finding.subject != finding.schedule else None,
                "schedule": finding.schedule,
                "slot": None if finding.slot is None else finding.slot.isoformat(),
                "detail": finding.detail,
                "remedy": finding.remedy,
                "repaired": repaired.get(finding),
            }
            for finding in report.findings
        ],
    }


def _print(report: Report, repaired: dict[Finding, bool], *, proposed: bool) -> None:
    ends = [(state, n) for state, n in sorted(report.states.items()) if state.is_terminal]
    parts = " + ".join(f"{count:,} {state}" for state, count in (*ends, ("live", report.live)))
    console.print(f"{report.published:,} published = {parts}")
    if report.places:
        console.print()
        print_table(
            ("live jobs", "ledger", "there"),
            [
                (place, f"{known:,}", f"{there:,}")
                for place, (known, there) in report.places.items()
            ],
        )
    if report.letters:
        letters = ", ".join(f"{count:,} {state}" for state, count in sorted(report.letters.items()))
        console.print(f"dead letters: {letters}")
    if report.surplus:
        console.print(
            f"{report.surplus:,} messages more than live jobs: copies, or jobs without an id"
        )
    if not report.is_settled:
        console.print(
            f"[yellow]the recorder has {report.unread:,} messages to read; the numbers are not "
            "final[/yellow]"
        )
    if report.findings:
        console.print()
        outcome = "would" if proposed else "done"
        print_table(
            ("job", "what", "detail", outcome),
            [
                (
                    finding.subject,
                    finding.kind,
                    finding.detail,
                    _said(finding, proposed=proposed, done=repaired.get(finding, False)),
                )
                for finding in report.findings[:_SHOWN]
            ],
        )
        if len(report.findings) > _SHOWN:
            console.print(f"and {len(report.findings) - _SHOWN:,} more; --json names all of them")
    elif report.holds:
        console.print("[green]every job is accounted for[/green]")


def _said(finding: Finding, *, proposed: bool, done: bool) -> str:
    for_people = finding.schedule is not None and finding.slot is None
    if proposed or done or for_people:
        return finding.remedy
    return "nothing: it has changed, or there is no copy of it"
