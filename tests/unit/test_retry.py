"""What follows from an error: a table, and the bounds of the backoff."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from dramatiq.errors import Retry as DramatiqRetry
from dramatiq.middleware import TimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

from leveret import Backoff, Dead, Job, Retry, Snooze, outcome
from leveret.message import Reason
from leveret.retry import Policy, decide

SECONDS = st.floats(0, 1e6).map(lambda s: timedelta(seconds=s))
EXACT = Backoff(base=timedelta(seconds=1), cap=timedelta(seconds=60), jitter=False)


def verdict(error, *, attempt=1, max_retries=None, **policy):
    """Decide on an error, with a backoff of a second, doubling, and no jitter."""
    job = Job(actor="a.b", id="1", attempt=attempt, max_retries=max_retries)
    return decide(error, job, Policy(**{"backoff": EXACT, **policy}), random.Random(1))


def hinted(value):
    """Return an error with a hint when to come back."""
    error = OSError("busy")
    error.retry_after = value
    return error


@given(SECONDS, SECONDS, st.integers(1, 10**6), st.booleans(), st.integers())
def test_a_backoff_is_never_beyond_its_cap_nor_negative(one, other, attempt, jitter, seed):
    """For any attempt, however late."""
    base, cap = sorted((one, other))
    delay = Backoff(base=base, cap=cap, jitter=jitter).delay(attempt, random.Random(seed))
    assert timedelta(0) <= delay <= cap
    if not jitter:
        assert delay >= base


@given(st.integers(1, 20))
def test_a_backoff_doubles_up_to_its_cap(attempt):
    """Without jitter, exactly; with it, that is the bound."""
    wanted = min(timedelta(seconds=60), timedelta(seconds=2 ** (attempt - 1)))
    assert EXACT.delay(attempt, random.Random()) == wanted
    jittered = Backoff(base=EXACT.base, cap=EXACT.cap)
    drawn = [jittered.delay(attempt, random.Random(seed)) for seed in range(200)]
    assert max(drawn) <= wanted
    assert min(drawn) < wanted / 4 < wanted * 3 / 4 < max(drawn)


@pytest.mark.parametrize(
    ("base", "cap"),
    [(timedelta(seconds=2), timedelta(seconds=1)), (timedelta(seconds=-1), timedelta(0))],
)
def test_a_backoff_that_makes_no_sense_is_refused(base, cap):
    """With both values in the message."""
    with pytest.raises(ValueError, match="base"):
        Backoff(base=base, cap=cap)


@pytest.mark.parametrize(
    ("error", "options", "wanted"),
    [
        (ValueError("x"), {}, outcome.Retry),
        (ValueError("x"), {"attempt": 5}, outcome.Retry),
        (ValueError("x"), {"attempt": 6}, Reason.EXHAUSTED),
        (ValueError("x"), {"attempt": 10**5}, Reason.EXHAUSTED),
        (ValueError("x"), {"max_retries": 0}, Reason.EXHAUSTED),
        (ValueError("x"), {"attempt": 9, "max_retries": 9}, outcome.Retry),
        (OSError("x"), {"retry_on": (OSError,)}, outcome.Retry),
        (ConnectionError("x"), {"retry_on": (OSError,)}, outcome.Retry),
        (ValueError("x"), {"retry_on": (OSError,)}, Reason.REFUSED),
        (ValueError("x"), {"dead_on": (ValueError,)}, Reason.REFUSED),
        (UnicodeError("x"), {"dead_on": (ValueError,)}, Reason.REFUSED),
        (ConnectionError(), {"retry_on": (OSError,), "dead_on": (OSError,)}, Reason.REFUSED),
        (ValueError("x"), {"retry_on": (OSError,), "attempt": 9}, Reason.REFUSED),
        (TimeLimitExceeded("x"), {}, outcome.Retry),
        (KeyboardInterrupt(), {"retry_on": (Exception,)}, Reason.REFUSED),
        (Dead("x"), {}, Reason.REFUSED),
        (Dead("x"), {"retry_on": (Exception,)}, Reason.REFUSED),
        (Snooze(5), {}, outcome.Snooze),
        (Snooze(5), {"attempt": 10**5, "max_retries": 0}, outcome.Snooze),
        (Retry("x"), {}, outcome.Retry),
        (Retry("x"), {"dead_on": (Exception,)}, outcome.Retry),
        (Retry("x"), {"retry_on": ()}, outcome.Retry),
        (Retry("x"), {"attempt": 6}, Reason.EXHAUSTED),
        (DramatiqRetry("x"), {"retry_on": ()}, outcome.Retry),
        (DramatiqRetry("x"), {"attempt": 6}, Reason.EXHAUSTED),
    ],
)
def test_the_table_of_what_follows(error, options, wanted):
    """One line for each rule of the retry policy."""
    found = verdict(error, **options)
    if isinstance(wanted, Reason):
        assert (type(found), found.reason, found.error) == (outcome.Dead, wanted, error)
    else:
        assert type(found) is wanted


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (ValueError("x"), 1),
        (Retry(after=7), 7),
        (Retry(after=timedelta(minutes=2)), 120),
        (Retry(after=0), 0),
        (Retry(), 1),
        (DramatiqRetry(delay=2500), 2.5),
        (DramatiqRetry(), 1),
        (hinted(30), 30),
        (hinted(0.5), 0.5),
        (hinted(0), 0),
        (hinted(timedelta(hours=2)), 7200),
        (hinted(timedelta(seconds=-5)), 0),
        (hinted(None), 1),
        (hinted("30"), 1),
        (hinted(True), 1),
        (hinted(-1), 1),
        (hinted(float("nan")), 1),
        (hinted(float("inf")), 1),
        (hinted(1e300), 1),
    ],
)
def test_who_says_when_it_runs_again(error, seconds):
    """The error, where it says something sensible; otherwise the actor's backoff."""
    assert verdict(error).delay == timedelta(seconds=seconds)


def test_a_hint_does_not_give_more_attempts():
    """Retry-After tells when, not whether."""
    assert verdict(hinted(5), attempt=6).reason == Reason.EXHAUSTED


def test_a_snooze_carries_its_delay_and_its_reason():
    """Both go into the record."""
    assert verdict(Snooze(timedelta(seconds=9), "later")) == outcome.Snooze(
        timedelta(seconds=9), "later"
    )


@pytest.mark.parametrize("make", [lambda: Snooze(-1), lambda: Retry(after=-0.1)])
def test_signals_refuse_a_negative_delay(make):
    """Where it is made, so that the traceback shows who."""
    with pytest.raises(ValueError, match="negative"):
        make()
