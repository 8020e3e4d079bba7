"""The demonstration's verdict: true of a run that went right, and false of any other."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from compose.demo.book import Book, Letter, Record
from compose.demo.clockwork import Beats
from compose.demo.plan import Kind, Plan
from compose.demo.receiver import Delivery
from compose.demo.verdict import Aftermath, Evidence, checks

RUN = "demo-1"


@pytest.fixture
def right(tmp_path):
    """Return what a run of two days leaves when all goes right."""
    content = b"a report"
    file = tmp_path / "report.xlsx"
    file.write_bytes(content)
    report = {
        "url": file.as_uri(),
        "rows": 3,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    images = [{"width": 800, "height": 500}, {"width": 320, "height": 200}]
    plan = Plan(
        run=RUN,
        days={(1, 1): 842, (1, 2): 943},
        pictures=["2013-01.jpg"],
        receivers=dict.fromkeys(("steady", "deploying", "busy", "closed"), "http://127.0.0.1/"),
    )
    jobs = [*plan.daily(), plan.report(1), *plan.after_report(1, report)]
    published = {job.id: job for job in (*jobs, *plan.images(), *plan.odd())}
    book = Book(RUN)
    deliveries, mails = [], {}
    for job in published.values():
        book.enter(job.id)
        if job.kind is Kind.WEBHOOK:  # the one that was dead has been replayed
            deliveries.append(Delivery(job=job.id, receiver="steady", signed=True, status=200))
        if job.dead_as is not None:
            book.enter(Letter(job=job.id, queue="leveret.unroutable", reason=job.dead_as, error=""))
            continue
        result = report
        if job.kind is Kind.DAY:
            result = {"rows": plan.days[1, job.arguments["filter"]["day"]]}
        elif job.kind is Kind.IMAGE:
            result = {"images": images}
        elif job.kind is Kind.MAIL:
            mails[job.id] = "subject"
        for worker in ("host-5-a", "host-6-b") if job.kind is Kind.YEAR else ("host-6-b",):
            event = "started" if worker == "host-5-a" else "succeeded"
            book.enter(Record(job=job.id, event=event, worker=worker, result=result))
    return Evidence(
        plan=plan,
        published=published,
        book=book,
        mails=mails,
        deliveries=deliveries,
        deaths=[{"pid": 5, "status": "killed by SIGKILL"}],
        killed="host-5-a",
        beats=Beats(slots=[beat(second) for second in range(3)], killed=7, successor=8),
        aftermath=Aftermath(
            states={
                id_: "succeeded" if job.dead_as is None else "dead"
                for id_, job in published.items()
            }
            | {f"beat-{second}": "succeeded" for second in range(3)},
            groups=[],
            replay={"total": 1, "results": {"succeeded": 1, "died_again": 0}},
            audit={"holds": True, "published": len(published), "states": {}, "live": 0},
        ),
    )


def beat(second, *, state="succeeded", lateness=0.01):
    """Return a slot of the schedule as the API shows it."""
    return {
        "slot": f"2026-01-01T00:00:0{second}Z",
        "lateness": lateness,
        "job_id": f"beat-{second}",
        "job_state": state,
    }


def wrong(found):
    """Return the texts of the statements that are not true."""
    return [check.text for check in checks(found) if not check.holds]


def test_a_run_that_went_right_adds_up(right):
    """Every statement holds."""
    assert wrong(right) == []


def test_a_lost_job_is_missed(right):
    """A job that was published and has no end breaks the sum, and is named."""
    right.book.stories[f"{RUN}-picture-2013-01"].outcome = None
    (text,) = wrong(right)
    assert "missing: demo-1-picture-2013-01" in text


def test_a_job_that_nobody_published_is_noticed(right):
    """A job too many breaks the sum as well."""
    right.book.enter(f"{RUN}-extra")
    right.book.enter(Record(job=f"{RUN}-extra", event="succeeded"))
    texts = wrong(right)
    assert len(texts) == 2
    assert all("too many: demo-1-extra" in text for text in texts)


def test_a_job_with_two_ends_is_noticed(right):
    """Succeeded and dead is one end too many, though the sum of ids is right."""
    day = f"{RUN}-day-2013-01-01"
    right.book.enter(Letter(job=day, queue="leveret.dead.bulk", reason="exhausted", error=""))
    assert any("with two ends: demo-1-day-2013-01-01" in text for text in wrong(right))


def test_a_death_of_another_reason_is_noticed(right):
    """It is not enough that the malformed message is dead."""
    story = right.book.stories[f"{RUN}-malformed"]
    story.letter = replace(story.letter, reason="exhausted")
    (text,) = wrong(right)
    assert "demo-1-malformed (exhausted)" in text
    assert "demo-1-malformed (not-json)" in text


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        ([beat(0), beat(2)], "1 slots are missing"),
        ([beat(0), beat(1, lateness=-0.5)], "early by 0.500 s"),
        ([beat(0), beat(1, state="running")], "2 slots, one each second, 1 jobs"),
        ([], "0 slots"),
    ],
)
def test_a_slot_that_is_missing_early_or_without_its_job_is_noticed(right, slots, said):
    """Of the schedule, each second has one job that succeeded, and none was early."""
    found = replace(right, beats=replace(right.beats, slots=slots))
    assert any(said in text for text in wrong(found))


def test_a_leader_that_nobody_replaced_is_noticed(right):
    """The leader of the schedulers has to have been killed, and another to lead."""
    found = replace(right, beats=replace(right.beats, successor=None))
    (text,) = wrong(found)
    assert "no leader of the schedulers was killed and replaced" in text


def test_a_missing_flight_is_noticed(right):
    """The summaries have to hold every flight."""
    right.book.stories[f"{RUN}-day-2013-01-01"].result = {"rows": 841}
    assert wrong(right) == ["the summaries of the days hold 1,784 of 1,785 flights"]


def test_a_damaged_report_is_noticed(right):
    """The bytes in the storage are held against the digest in the outcome record."""
    right.book.stories[f"{RUN}-year"].result = {"url": "file:///nowhere", "sha256": "0"}
    assert wrong(right) == ["1 of 2 reports are in the storage, unharmed"]


def test_a_lost_mail_or_webhook_is_noticed(right):
    """A success without its effect is none."""
    found = replace(right, mails={}, deliveries=right.deliveries[1:])
    assert [text.partition(";")[0] for text in wrong(found)] == [
        "0 mails arrived",
        "3 webhooks were taken, after 3 signed requests",
    ]


def test_a_picture_on_its_side_is_noticed(right):
    """Width and height are those of the upright picture."""
    lying = {"images": [{"width": 313, "height": 500}, {"width": 125, "height": 200}]}
    right.book.stories[f"{RUN}-picture-2013-01"].result = lying
    assert any("picture-2013-01" in text for text in wrong(right))


@pytest.mark.parametrize("change", [{"killed": None}, {"deaths": []}])
def test_a_worker_that_did_not_die_is_noticed(right, change):
    """The kill has to be real: done, and seen by the launcher."""
    assert len(wrong(replace(right, **change))) == 1


def test_a_state_that_the_api_tells_otherwise_is_named(right):
    """What the page shows must be what the jobs were planned to become."""
    states = dict(right.aftermath.states) | {f"{RUN}-day-2013-01-01": "running"}
    (text,) = wrong(replace(right, aftermath=replace(right.aftermath, states=states)))
    assert f"{RUN}-day-2013-01-01" in text


def test_a_replay_that_dies_again_is_no_success(right):
    """All of the group have to have succeeded."""
    replay = {"total": 1, "results": {"succeeded": 0, "died_again": 1}}
    (text,) = wrong(replace(right, aftermath=replace(right.aftermath, replay=replay)))
    assert text.startswith("0 of 1 dead letters")


def test_an_audit_that_does_not_hold_is_no_success(right):
    """It names the jobs."""
    audit = {"holds": False, "published": 3, "states": {}, "findings": [{"job_id": "x"}]}
    (text,) = wrong(replace(right, aftermath=replace(right.aftermath, audit=audit)))
    assert text.endswith("not so: x")
