"""Fingerprints: failures of one cause are one group."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.ledger.fingerprint import fingerprint, frames, normalise

TRACE = """Traceback (most recent call last):
  File "/srv/app/acme/mail.py", line {line}, in send
    deliver(letter)
  File "/srv/venv/lib/python3.11/site-packages/httpx/_client.py", line {library}, in post
  File "/usr/lib/python3.11/socket.py", line 833, in create_connection
    raise err
  File "C:\\acme\\smtp.py", line 7, in Relay.deliver.<locals>.attempt
acme.errors.RelayRefused: {message}"""


def name(message="refused", *, line=10, library=1, **changes):
    """Name a failure of `email.send`."""
    told = {
        "actor": "email.send",
        "reason": "exhausted",
        "error_type": "acme.errors.RelayRefused",
        "error": message,
        "trace": TRACE.format(line=line, library=library, message=message),
    }
    return fingerprint(**{**told, **changes})


words = st.text(st.characters(exclude_characters="\"'`«»\n", categories=["L", "Zs"]), max_size=20)


@given(
    st.integers(),
    st.uuids(),
    words,
    st.integers(0, 2**64),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_what_differs_from_job_to_job_does_not_count(number, job, word, big, share):
    """Numbers, ids, quoted texts, paths, addresses and hexadecimal digits are placeholders."""
    message = (
        "order {} of {} for '{}' ({}): no row in /data/{}/{}.csv at 0x{:x}, {} s, https://a.b/{}"
    )
    first = message.format(1, "0198a6b0-0000-7000-8000-000000000000", "Ann", 0, 1, 2, 3, 0.5, 6)
    other = message.format(number, job, word, big, big, big, big, share, big)
    assert name(other) == name(first)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_line_numbers_and_installed_packages_do_not_count(line, library):
    """A deployment that moves lines, or another release of a library, is the same cause."""
    assert name(line=line, library=library) == name()


def test_ten_thousand_failures_of_one_cause_are_one_group():
    """However many jobs fail of one cause, their dead letters have one fingerprint."""
    found = {
        name(f"no answer from 10.0.{n % 256}.{n // 256}:25 after {n / 7:.2f} s")
        for n in range(10_000)
    }
    assert len(found) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": "email.receive"},
        {"reason": "refused"},
        {"error_type": "acme.errors.RelayAway"},
        {"error": "the relay is away"},
        {"trace": None},
        {"trace": TRACE.format(line=1, library=1, message="refused").replace("in send", "in bulk")},
    ],
)
def test_another_cause_is_another_group(changes):
    """Who failed, why, with what and where makes the cause."""
    assert name(**changes) != name()


def test_frames_are_those_of_own_code():
    """A frame is a file's name and a function; the standard library and packages have none."""
    assert frames(TRACE.format(line=1, library=1, message="")) == [
        "mail.py:send",
        "smtp.py:Relay.deliver.<locals>.attempt",
    ]


@given(st.text())
def test_any_text_can_be_normalised_and_stays_so(text):
    """Normalising again changes little, and no text breaks it."""
    once = normalise(text)
    assert len(once) <= 2_500 * 4
    fingerprint(actor=None, reason=text, error_type=text, error=text, trace=text)


def test_a_hostile_text_takes_no_time():
    """No message makes the patterns look at it over and over."""
    for text in ("'" * 100_000, "/" * 100_000, "0x" * 50_000, "1" * 100_000, "a://" * 30_000):
        name(text)
