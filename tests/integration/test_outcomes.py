"""How a run may end: each outcome, on a real broker."""

from __future__ import annotations

import time
from datetime import timedelta

import leveret
from leveret import Backoff
from tests.support.workers import AT_ONCE


class SoonError(Exception):
    """An error that says when to come back."""

    def __init__(self, seconds):
        super().__init__("busy")
        self.retry_after = seconds


def test_retry_after_is_honoured_and_never_early(worker):
    """An exception's `retry_after` replaces the backoff, which would be minutes here."""

    @worker.actor("work.do", backoff=Backoff(base=timedelta(minutes=9)))
    def do():
        worker.notes.append(time.monotonic())
        if len(worker.notes) == 1:
            raise SoonError(0.6)

    worker.start()
    worker.records(worker.send("work.do"), "succeeded")
    assert 0.6 <= worker.notes[1] - worker.notes[0] < 5


def test_a_snooze_uses_no_attempt(worker):
    """However often a job is put off, its attempts are all there."""

    @worker.actor("work.do", max_retries=0)
    def do():
        worker.notes.append(leveret.current_job().attempt)
        if len(worker.notes) < 4:
            raise leveret.Snooze(0.05, "not yet")

    worker.start()
    records = worker.records(worker.send("work.do"), "succeeded")
    assert worker.notes == [1, 1, 1, 1]
    assert [r["event"] for r in records].count("snoozed") == 3


def test_retries_are_for_the_classes_that_were_named(worker):
    """`dead_on` wins over `retry_on`, and what neither names is dead at once."""

    @worker.actor("work.do", retry_on=OSError, dead_on=PermissionError, backoff=AT_ONCE)
    def do(kind: str):
        attempt = leveret.current_job().attempt
        worker.notes.append((kind, attempt))
        if attempt == 1:
            raise {"os": OSError, "permission": PermissionError, "value": ValueError}[kind](kind)

    worker.start()
    ids = {kind: worker.send("work.do", {"kind": kind}) for kind in ("os", "permission", "value")}
    worker.records(ids["os"], "retrying", "succeeded")
    dead = {x.properties.message_id: x for x in worker.letters(2)}
    assert set(dead) == {ids["permission"], ids["value"]}
    assert {x.reason for x in dead.values()} == {"refused"}
    assert dead[ids["value"]].headers["x-leveret-error-type"] == "builtins.ValueError"
    assert "raise {" in dead[ids["value"]].headers["x-leveret-traceback"]


def test_a_dead_signal_and_a_used_up_job_say_which_they_are(worker):
    """One was refused on the first attempt, the other exhausted on its last."""

    @worker.actor("work.do", max_retries=2, backoff=AT_ONCE)
    def do(kind: str):
        worker.notes.append(kind)
        raise leveret.Dead("no such customer") if kind == "dead" else ValueError("again")

    worker.start()
    worker.send("work.do", {"kind": "dead"})
    refused = worker.letters()[0]
    worker.send("work.do", {"kind": "tired"})
    exhausted = worker.letters()[0]
    assert (refused.reason, refused.headers["x-leveret-error"]) == ("refused", "no such customer")
    assert (exhausted.reason, exhausted.headers["x-leveret-attempt"]) == ("exhausted", 3)
    assert worker.notes == ["dead", "tired", "tired", "tired"]


def test_the_header_max_retries_replaces_the_actors_limit(worker):
    """For this job, and all its attempts."""

    @worker.actor("work.do", max_retries=9, backoff=AT_ONCE)
    def do():
        worker.notes.append(leveret.current_job().attempt)
        raise ValueError

    worker.start()
    worker.send("work.do", max_retries=1)
    assert worker.letters()[0].headers["x-leveret-max-retries"] == 1
    assert worker.notes == [1, 2]


def test_a_job_that_has_expired_is_not_started(worker):
    """It is a dead letter whose reason is its time."""

    @worker.actor("work.do")
    def do():
        worker.notes.append("ran")

    job = worker.send("work.do", expires=0.001)
    worker.start()
    letter = worker.letters()[0]
    assert (letter.reason, letter.properties.message_id) == ("expired", job)
    assert worker.records(job, "expired")
    assert worker.notes == []


def test_a_copy_that_was_cut_off_keeps_everything_a_publisher_gave(worker):
    """The dead letter has the properties and headers of the original, beside our own."""
    worker.start()
    worker.raw(
        b"{}",
        key="default.no.body",
        message_id="m",
        correlation_id="c",
        reply_to="r",
        app_id="a",
        priority=3,
        timestamp=1234,
        content_type="application/json",
        headers={"x-theirs": ["deep", {"n": 1}], "traceparent": "t"},
    )
    letter = worker.letters()[0]
    found = letter.properties
    assert (found.message_id, found.correlation_id, found.reply_to) == ("m", "c", "r")
    assert (found.app_id, found.priority, found.timestamp) == ("a", 3, 1234)
    assert letter.headers["x-theirs"] == ["deep", {"n": 1}]
    assert letter.headers["x-leveret-routing-key"] == "default.no.body"
