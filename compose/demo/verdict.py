"""Whether everything adds up: the plan, held against the book and what the actors left behind.

Pure but for reading the files that were written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from compose.demo.book import Book
from compose.demo.clockwork import SCHEDULE, Beats
from compose.demo.plan import Kind, Plan, Planned
from compose.demo.receiver import Delivery

__all__ = ["Aftermath", "Check", "Evidence", "checks"]

_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Check:
    """One statement, and whether it is true."""

    holds: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """What an operator has found when every job had its end, and done then."""

    #: The state of every job as the API told it before the replay, by id.
    states: Mapping[str, str]
    #: The groups of dead letters before the replay, as the API told them.
    groups: Sequence[Mapping[str, Any]]
    #: The replay of the group that was mended, as the API tells it.
    replay: Mapping[str, Any]
    #: What `leveret audit` says at the end.
    audit: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a run has left behind."""

    plan: Plan
    #: What has been published and confirmed, by id.
    published: Mapping[str, Planned]
    book: Book
    #: Subjects of the mails that arrived, by job.
    mails: Mapping[str, str]
    deliveries: Sequence[Delivery]
    #: What the launchers have logged about dead worker processes.
    deaths: Sequence[Mapping[str, Any]]
    #: The worker that the demonstration has killed, None if it came to nothing.
    killed: str | None
    beats: Beats
    aftermath: Aftermath


def checks(found: Evidence) -> list[Check]:
    """Return every statement that has to be true of a run."""
    return [
        _planned(found),
        _tapped(found),
        _sum(found),
        _dead(found),
        _flights(found),
        _reports(found),
        _mails(found),
        _webhooks(found),
        _pictures(found),
        _killed(found),
        _scheduled(found),
        _taken_over(found),
        _told(found),
        _replayed(found),
        _audited(found),
    ]


def _planned(found: Evidence) -> Check:
    wanted = sum(found.plan.count(kind) for kind in Kind)
    return Check(
        holds=len(found.published) == wanted,
        text=f"{len(found.published)} of {wanted} planned jobs were published and confirmed",
    )


def _tapped(found: Evidence) -> Check:
    tapped = {job for job, story in found.book.stories.items() if story.is_tapped}
    return _same(
        "the tap of the broker has brought the same ids into the ledger",
        found.published.keys(),
        tapped,
    )


def _sum(found: Evidence) -> Check:
    stories = found.book.stories
    succeeded = {job for job, story in stories.items() if story.outcome == "succeeded"}
    dead = {job for job, story in stories.items() if story.is_dead}
    text = (
        f"{len(found.published)} published = {len(succeeded)} succeeded + {len(dead)} dead, "
        "id by id, in the ledger"
    )
    twice = sorted(succeeded & dead) + found.book.contradictions
    if twice:
        return Check(holds=False, text=f"{text}; with two ends: {_some(twice)}")
    return _same(text, found.published.keys(), succeeded | dead)


def _dead(found: Evidence) -> Check:
    wanted = {job: str(p.dead_as) for job, p in found.published.items() if p.dead_as is not None}
    letters = {
        job: story.letter.reason for job, story in found.book.stories.items() if story.letter
    }
    different = sorted(wanted.items() ^ letters.items())
    text = "each dead letter has the reason that it has to have, and no other job is dead"
    if different:
        text += f"; different: {_some([f'{job} ({reason})' for job, reason in different])}"
    return Check(holds=not different, text=text)


def _flights(found: Evidence) -> Check:
    wanted = sum(found.plan.days.values())
    summed = sum(_results(found, Kind.DAY, "rows"))
    return Check(
        holds=summed == wanted,
        text=f"the summaries of the days hold {summed:,} of {wanted:,} flights",
    )


def _reports(found: Evidence) -> Check:
    wrong = []
    results = [_result(found, job) for job, p in found.published.items() if _is_report(p)]
    for result in results:
        path = Path(unquote(urlsplit(str(result.get("url", ""))).path))
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != result.get("sha256"):
            wrong.append(path.name)
    text = f"{len(results) - len(wrong)} of {len(results)} reports are in the storage, unharmed"
    return Check(holds=bool(results) and not wrong, text=text)


def _is_report(planned: Planned) -> bool:
    return planned.kind in (Kind.REPORT, Kind.YEAR)


def _mails(found: Evidence) -> Check:
    wanted = _of(found, Kind.MAIL)
    return _same(f"{len(found.mails)} mails arrived", wanted, found.mails.keys())


def _webhooks(found: Evidence) -> Check:
    wanted = _of(found, Kind.WEBHOOK)  # those of the mended receiver, too
    taken = {each.job for each in found.deliveries if each.status == 200}
    unsigned = sum(not each.signed for each in found.deliveries)
    text = f"{len(taken)} webhooks were taken, after {len(found.deliveries)} signed requests"
    check = _same(text, wanted, taken)
    return check if not unsigned else Check(holds=False, text=f"{text}; {unsigned} unsigned")


def _pictures(found: Evidence) -> Check:
    wrong = []
    pictures = _of(found, Kind.IMAGE)
    for job in pictures:
        sizes = [(i["width"], i["height"]) for i in _result(found, job).get("images", [])]
        if sizes != [(800, 500), (320, 200)]:
            wrong.append(job)
    text = f"{len(pictures) - len(wrong)} pictures stand upright in two sizes"
    return Check(holds=not wrong, text=text + (f"; not so: {_some(wrong)}" if wrong else ""))


def _killed(found: Evidence) -> Check:
    story = found.book[found.plan.year.id]
    if found.killed is None:
        return Check(holds=False, text="no worker was killed while it ran the report of the year")
    pid = pid_of(found.killed)
    logged = [death for death in found.deaths if death.get("pid") == pid]
    again = [worker for worker in story.workers if worker != found.killed]
    holds = bool(logged) and bool(again) and story.outcome == "succeeded"
    after = f"process {pid_of(again[-1])} ran it again" if again else "nobody ran it again"
    return Check(
        holds=holds,
        text=f"process {pid} was killed while it ran the report of the year; {after}",
    )


def _scheduled(found: Evidence) -> Check:
    beats = found.beats
    jobs = beats.succeeded
    earliest, latest = beats.lateness
    text = (
        f"schedule {SCHEDULE}: {len(beats.slots)} slots, one each second, {len(jobs)} jobs that "
        f"succeeded, at most {latest:.2f} s late"
    )
    if beats.missing:
        text += f"; {beats.missing} slots are missing"
    if earliest < 0:
        text += f"; early by {-earliest:.3f} s"
    holds = 0 < len(beats.slots) == len(jobs) and not beats.missing and earliest >= 0
    return Check(holds=holds, text=text)


def _taken_over(found: Evidence) -> Check:
    killed, successor = found.beats.killed, found.beats.successor
    if killed is None or successor is None:
        return Check(holds=False, text="no leader of the schedulers was killed and replaced")
    text = f"process {killed} led the schedulers and was killed; process {successor} took its place"
    return Check(holds=killed != successor, text=text)


def _told(found: Evidence) -> Check:
    wanted = {
        job: "succeeded" if planned.dead_as is None else "dead"
        for job, planned in found.published.items()
    } | found.beats.succeeded
    different = sorted(
        job for job, state in found.aftermath.states.items() if wanted.get(job) != state
    )
    missing = sorted(wanted.keys() - found.aftermath.states.keys())
    text = f"the API says the same of {len(found.aftermath.states)} jobs"
    if different or missing:
        text += f"; different: {_some(different or missing)}"
    return Check(holds=not different and not missing, text=text)


def _replayed(found: Evidence) -> Check:
    wanted = sum(p.kind is Kind.WEBHOOK and p.dead_as is not None for p in found.published.values())
    replay = found.aftermath.replay
    results = replay.get("results") or {}
    done = results.get("succeeded", 0)
    text = (
        f"{done} of {replay.get('total', 0)} dead letters of one group were replayed to "
        "success, once their receiver was mended"
    )
    return Check(holds=done == wanted > 0, text=text)


def _audited(found: Evidence) -> Check:
    audit = found.aftermath.audit
    states = {state: n for state, n in audit.get("states", {}).items() if n}
    parts = " + ".join(f"{number} {state}" for state, number in sorted(states.items()))
    live = audit.get("live", 0)
    text = f"leveret audit: {audit.get('published')} published = {parts}, {live} live"
    findings = [finding["job_id"] for finding in audit.get("findings", ())]
    if findings:
        text += f"; not so: {_some(findings)}"
    return Check(holds=bool(audit.get("holds")), text=text)


def pid_of(worker: str) -> int:
    """Return the process id in a worker's name (`host-pid-random`)."""
    return int(worker.rsplit("-", 2)[1])


def _of(found: Evidence, kind: Kind) -> list[str]:
    return [job for job, planned in found.published.items() if planned.kind is kind]


def _result(found: Evidence, job: str) -> Mapping[str, Any]:
    result = found.book[job].result
    return result if isinstance(result, dict) else {}


def _results(found: Evidence, kind: Kind, name: str) -> list[Any]:
    return [_result(found, job).get(name, 0) for job in _of(found, kind)]


def _same(text: str, wanted: Collection[str], there: Collection[str]) -> Check:
    missing, extra = sorted(set(wanted) - set(there)), sorted(set(there) - set(wanted))
    if missing:
        text += f"; missing: {_some(missing)}"
    if extra:
        text += f"; too many: {_some(extra)}"
    return Check(holds=not missing and not extra, text=text)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
