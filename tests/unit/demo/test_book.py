"""What the demonstration makes of the broker's reports."""

from __future__ import annotations

from compose.demo.book import Book, Letter, Record


def test_a_job_is_over_when_the_tap_and_the_record_agree():
    """Neither the copy of the job nor its outcome alone is enough."""
    book = Book("demo-1")
    book.enter(Record(job="demo-1-a", event="succeeded"))
    assert not book["demo-1-a"].is_over
    book.enter("demo-1-a")
    assert book["demo-1-a"].is_over


def test_a_dead_job_is_over_when_its_letter_and_its_record_are_there():
    """A dead letter without a record is only complete where no worker ever had the job."""
    book = Book("demo-1")
    for job, queue in (("demo-1-a", "leveret.dead.bulk"), ("demo-1-b", "leveret.unroutable")):
        book.enter(job)
        book.enter(Letter(job=job, queue=queue, reason="not-json", error=""))
    assert not book["demo-1-a"].is_over
    assert book["demo-1-b"].is_over
    book.enter(Record(job="demo-1-a", event="dead", reason="not-json"))
    assert book["demo-1-a"].is_over


def test_the_same_report_twice_is_no_news():
    """A duplicate changes no count."""
    book = Book("demo-1")
    retry = Record(job="demo-1-a", event="retrying", attempt=1, due_at=5.0)
    assert [book.enter(retry), book.enter(retry)] == [True, False]
    assert [book.enter("demo-1-a"), book.enter("demo-1-a")] == [True, False]
    assert book["demo-1-a"].retries == {1: 5.0}


def test_jobs_of_another_run_are_strangers():
    """What an earlier run has left is counted apart, also when its name only begins alike."""
    book = Book("demo-1")
    assert not book.enter("demo-12-a")
    assert not book.enter(Record(job="demo-0-a", event="succeeded"))
    assert book.strangers == 2
    assert not book.stories


def test_two_different_ends_are_a_contradiction():
    """A job that succeeded and then died is not counted once and forgotten."""
    book = Book("demo-1")
    book.enter(Record(job="demo-1-a", event="succeeded"))
    book.enter(Record(job="demo-1-a", event="dead"))
    assert book.contradictions == ["demo-1-a"]
