"""What a schedule may be, which moments are its slots, and the job of each."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.errors import InvalidSchedule
from leveret.schedules import At, Cron, Every
from leveret.schedules.definition import Definition, job_id

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def definition(**changes):
    """Return a schedule each minute."""
    values = {"name": "report.daily", "actor": "report.send", "trigger": Every(MINUTE)}
    return Definition(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"name": ""}, "name", "1 to 200"),
        ({"name": "a" * 201}, "name", "1 to 200"),
        ({"name": "daily report"}, "name", "column 6"),
        ({"name": "a/b"}, "name", "column 2"),
        ({"name": "a\n"}, "name", "column 2"),
        ({"name": "a\x7fb"}, "name", "column 2"),
        ({"name": "a\u2028b"}, "name", "column 2"),
        ({"name": "a\ud800"}, "name", "column 2"),
        ({"name": ".daily"}, "name", "begins with a letter or a digit"),
        ({"name": "-daily"}, "name", "begins with a letter or a digit"),
        ({"jitter": -MINUTE}, "jitter", "from nothing to one day"),
        ({"jitter": timedelta(days=1, seconds=1)}, "jitter", "from nothing to one day"),
        ({"jitter": MINUTE}, "jitter", "shorter than the time between two slots, 0:01:00"),
        (
            {"trigger": Cron("0 9,17 * * *"), "jitter": timedelta(hours=8)},
            "jitter",
            "shorter than the time between two slots, 8:00:00",
        ),
        ({"start": BEGIN, "end": BEGIN}, "end", "not later than the start"),
        ({"start": BEGIN, "end": BEGIN - MINUTE}, "end", "not later than the start"),
        ({"start": BEGIN.replace(tzinfo=None)}, "start", "needs a time zone"),
        ({"end": BEGIN.replace(tzinfo=None)}, "end", "needs a time zone"),
        ({"window": timedelta(0)}, "window", "longer than nothing"),
        ({"window": -MINUTE}, "window", "longer than nothing"),
    ],
)
def test_what_a_schedule_cannot_be_is_refused(changes, field, words):
    """With the field, the value and the reason."""
    with pytest.raises(InvalidSchedule) as caught:
        definition(**changes)
    assert caught.value.field == field
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["a", "7", "a" * 200, "report.daily", "täglich", "a:b#c?d=e&f"])
def test_a_name_is_nearly_any_word(name):
    """What is printable, without space or slash."""
    assert definition(name=name).name == name


@pytest.mark.parametrize(
    ("trigger", "jitter"),
    [
        (Every(MINUTE), timedelta(seconds=59.999)),
        (Cron("* * * * *"), timedelta(seconds=59)),
        (Cron("0 9 * * *"), timedelta(days=1)),
        (At(BEGIN), timedelta(days=1)),
    ],
)
def test_a_jitter_is_shorter_than_the_time_between_two_slots(trigger, jitter):
    """So that jobs keep the order of their slots, and it is at most a day."""
    made = definition(trigger=trigger, jitter=jitter)
    slots = list(islice(made.slots(BEGIN - MINUTE), 100))
    due = [made.due(slot) for slot in slots]
    assert due == sorted(due)
    assert all(slot <= moment < slot + jitter for slot, moment in zip(slots, due, strict=True))


def test_slots_are_between_the_start_and_the_end_which_belong_to_it():
    """Wherever they are asked for from."""
    made = definition(start=BEGIN, end=BEGIN + 3 * MINUTE)
    every = [BEGIN + at * MINUTE for at in range(4)]
    assert list(made.slots(BEGIN - 1000 * MINUTE)) == every
    assert list(made.slots(BEGIN - timedelta(microseconds=1))) == every
    assert list(made.slots(BEGIN)) == every[1:]
    assert list(made.slots(BEGIN + 3 * MINUTE)) == []


@given(st.integers(0, 10**9), st.integers(1, 86_400))
def test_jitter_puts_off_a_slot_by_a_share_that_is_always_the_same(minute, jitter):
    """Alike in every process, differently for other slots and schedules."""
    made = definition(trigger=Every(timedelta(days=2)), jitter=timedelta(seconds=jitter))
    slot = datetime.fromtimestamp(minute * 60 % 2**32, UTC)
    assert slot <= made.due(slot) < slot + made.jitter
    assert made.due(slot) == definition(trigger=made.trigger, jitter=made.jitter).due(slot)


def test_jitter_spreads_slots_evenly():
    """About as many in each tenth of it."""
    made = definition(trigger=Every(timedelta(hours=1)), jitter=timedelta(minutes=10))
    slots = islice(made.slots(BEGIN), 5000)
    tenths = [0] * 10
    for slot in slots:
        tenths[(made.due(slot) - slot) // MINUTE] += 1
    assert all(400 < tenth < 600 for tenth in tenths)


@given(st.text("abc.:-é", min_size=1, max_size=50), st.integers(0, 2**44))
def test_the_job_of_a_slot_has_an_id_of_its_own_that_sorts_by_time(name, milliseconds):
    """A UUIDv7 that everybody derives alike."""
    slot = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    found = uuid.UUID(job_id(name, slot))
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert str(found) == job_id(name, slot)
    assert found.int >> 80 == milliseconds
    assert job_id(name, slot + timedelta(milliseconds=1)) > str(found)
    assert job_id(f"{name}.", slot) != str(found)
