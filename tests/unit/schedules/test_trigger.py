"""Triggers: their slots in time zones whose clocks change, by hand and by their properties."""

# ruff: noqa: DTZ001 - what walls show has no zone
from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.errors import InvalidSchedule
from leveret.schedules import At, Cron, Doubled, Every, Skipped
from leveret.schedules.trigger import trigger_of

HOUR = timedelta(hours=1)


def utc(text):
    """Return a moment, written without its offset."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def within(trigger, begin, end):
    """Return the slots of a period, whose ends belong to it, as text without their offset."""
    slots = trigger.slots(utc(begin) - timedelta(microseconds=1))
    found = list(takewhile(lambda slot: slot <= utc(end), slots))
    assert all(slot.tzinfo is UTC for slot in found)
    return [f"{slot:%m-%dT%H:%M}" for slot in found]


# ------------------------------------------------------------------ clocks that are put forward

SKIP, NEXT = Skipped.SKIP, Skipped.NEXT
FIRST, BOTH = Doubled.FIRST, Doubled.BOTH

#: zone, expression, from and to in UTC, the policy or None, the slots in UTC.
FORWARD = [
    # 2026-03-29, 01:00 (01:00 UTC) is 02:00
    ("Europe/Lisbon", "30 1 * * *", "2026-03-28", "2026-03-30", NEXT,
     ["03-28T01:30", "03-29T01:00"]),
    ("Europe/Lisbon", "30 1 * * *", "2026-03-28", "2026-03-30", SKIP, ["03-28T01:30"]),
    ("Europe/Lisbon", "30 1 * * *", "2026-03-28", "2026-03-30", None,
     ["03-28T01:30", "03-29T01:00"]),
    ("Europe/Lisbon", "0 1,2 * * *", "2026-03-28T12:00", "2026-03-29T12:00", NEXT,
     ["03-29T01:00"]),
    ("Europe/Lisbon", "*/20 1 * * *", "2026-03-28T12:00", "2026-03-29T12:00", NEXT,
     ["03-29T01:00"]),
    ("Europe/Lisbon", "*/20 1 * * *", "2026-03-28T12:00", "2026-03-29T12:00", SKIP, []),
    ("Europe/Lisbon", "0 2 * * *", "2026-03-28T12:00", "2026-03-29T12:00", SKIP,
     ["03-29T01:00"]),
    ("Europe/Lisbon", "*/30 * * * *", "2026-03-29T00:00", "2026-03-29T02:00", None,
     ["03-29T00:00", "03-29T00:30", "03-29T01:00", "03-29T01:30", "03-29T02:00"]),
    ("Europe/Lisbon", "15 * * * *", "2026-03-29T00:00", "2026-03-29T02:00", NEXT,
     ["03-29T00:15", "03-29T01:00", "03-29T01:15"]),
    # 2026-03-08, 02:00 (07:00 UTC) is 03:00
    ("America/New_York", "30 2 * * *", "2026-03-08", "2026-03-10", NEXT,
     ["03-08T07:00", "03-09T06:30"]),
    ("America/New_York", "30 2 * * *", "2026-03-08", "2026-03-10", SKIP, ["03-09T06:30"]),
    ("America/New_York", "*/15 * * * *", "2026-03-08T06:45", "2026-03-08T07:15", None,
     ["03-08T06:45", "03-08T07:00", "03-08T07:15"]),
    # 2026-10-04, 02:00 (2026-10-03 15:30 UTC) is 02:30
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03", "2026-10-05", NEXT,
     ["10-03T15:30", "10-04T15:15"]),
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03", "2026-10-05", SKIP, ["10-04T15:15"]),
    ("Australia/Lord_Howe", "45 2 * * *", "2026-10-03", "2026-10-04", NEXT, ["10-03T15:45"]),
    ("Australia/Lord_Howe", "0 * * * *", "2026-10-03T14:00", "2026-10-03T17:00", None,
     ["10-03T14:30", "10-03T16:00", "10-03T17:00"]),
    ("Australia/Lord_Howe", "*/10 * * * *", "2026-10-03T15:20", "2026-10-03T15:40", None,
     ["10-03T15:20", "10-03T15:30", "10-03T15:40"]),
    # 2018-11-04, 00:00 (03:00 UTC) is 01:00
    ("America/Sao_Paulo", "0 0 * * *", "2018-11-03", "2018-11-06", NEXT,
     ["11-03T03:00", "11-04T03:00", "11-05T02:00"]),
    ("America/Sao_Paulo", "0 0 * * *", "2018-11-03", "2018-11-06", SKIP,
     ["11-03T03:00", "11-05T02:00"]),
    ("America/Sao_Paulo", "0 0 4 11 *", "2018-11-01", "2018-11-30", NEXT, ["11-04T03:00"]),
    ("America/Sao_Paulo", "0 0-1 4 11 *", "2018-11-01", "2018-11-30", NEXT, ["11-04T03:00"]),
    ("America/Sao_Paulo", "0 * * * *", "2018-11-04T02:00", "2018-11-04T04:00", None,
     ["11-04T02:00", "11-04T03:00", "11-04T04:00"]),
    # 2026-04-24, 00:00 (2026-04-23 22:00 UTC) is 01:00
    ("Africa/Cairo", "30 0 * * FRI", "2026-04-17", "2026-05-01", NEXT,
     ["04-23T22:00", "04-30T21:30"]),
    ("Africa/Cairo", "30 0 * * FRI", "2026-04-17", "2026-05-01", SKIP, ["04-30T21:30"]),
    ("Africa/Cairo", "@daily", "2026-04-22T12:00", "2026-04-25T12:00", None,
     ["04-22T22:00", "04-23T22:00", "04-24T21:00"]),
    # 2011-12-30 is left out: 2011-12-29 24:00 (2011-12-30 10:00 UTC) is 2011-12-31 00:00
    ("Pacific/Apia", "0 12 * * *", "2011-12-29", "2012-01-02", NEXT,
     ["12-29T22:00", "12-30T10:00", "12-30T22:00", "12-31T22:00", "01-01T22:00"]),
    ("Pacific/Apia", "0 12 * * *", "2011-12-29", "2012-01-02", SKIP,
     ["12-29T22:00", "12-30T22:00", "12-31T22:00", "01-01T22:00"]),
    ("Pacific/Apia", "0 */6 * * *", "2011-12-30T09:00", "2011-12-30T17:00", NEXT,
     ["12-30T10:00", "12-30T16:00"]),
    ("Pacific/Apia", "0 9 30 * *", "2011-11-01", "2012-01-31", SKIP,
     ["11-30T19:00", "01-29T19:00"]),
    ("Pacific/Apia", "0 9 30 12 *", "2011-01-01", "2012-01-31", None,
     ["12-30T10:00"]),
    ("Pacific/Apia", "0 * * * *", "2011-12-30T09:00", "2011-12-30T12:00", None,
     ["12-30T09:00", "12-30T10:00", "12-30T11:00", "12-30T12:00"]),
    # No daylight saving: 2018-05-04 23:30 (15:00 UTC) is 2018-05-05 00:00
    ("Asia/Pyongyang", "45 23 * * *", "2018-05-03T16:00", "2018-05-06", NEXT,
     ["05-04T15:00", "05-05T14:45"]),
    ("Asia/Pyongyang", "45 23 * * *", "2018-05-03T16:00", "2018-05-06", SKIP, ["05-05T14:45"]),
    # … 2016-05-01 02:30 (07:00 UTC) is 03:00
    ("America/Caracas", "40 2 * * *", "2016-04-30", "2016-05-03", NEXT,
     ["04-30T07:10", "05-01T07:00", "05-02T06:40"]),
    # No changes at all
    ("Asia/Kolkata", "30 2 * * *", "2026-03-28", "2026-03-30", NEXT,
     ["03-28T21:00", "03-29T21:00"]),
    ("UTC", "30 1 * * *", "2026-03-28", "2026-03-30", SKIP, ["03-28T01:30", "03-29T01:30"]),
]  # fmt: skip


@pytest.mark.parametrize("case", FORWARD)
def test_a_time_that_is_left_out_is_a_slot_after_the_gap_or_none(case):
    """Gaps of half an hour, an hour, a day; at night and at midnight."""
    zone, expression, begin, end, policy, slots = case
    assert within(Cron(expression, zone, skipped=policy), begin, end) == slots


# --------------------------------------------------------------------- clocks that are put back

BACK = [
    # 2026-10-25, 02:00 (01:00 UTC) is 01:00
    ("Europe/Lisbon", "30 1 * * *", "2026-10-25", "2026-10-27", FIRST,
     ["10-25T00:30", "10-26T01:30"]),
    ("Europe/Lisbon", "30 1 * * *", "2026-10-25", "2026-10-27", BOTH,
     ["10-25T00:30", "10-25T01:30", "10-26T01:30"]),
    ("Europe/Lisbon", "30 1 * * *", "2026-10-25", "2026-10-27", None,
     ["10-25T00:30", "10-26T01:30"]),
    ("Europe/Lisbon", "0 2 * * *", "2026-10-25", "2026-10-25T12:00", BOTH, ["10-25T02:00"]),
    ("Europe/Lisbon", "0 1 * * *", "2026-10-25", "2026-10-25T12:00", BOTH,
     ["10-25T00:00", "10-25T01:00"]),
    ("Europe/Lisbon", "*/30 0-2 * * *", "2026-10-24T23:00", "2026-10-25T03:00", FIRST,
     ["10-24T23:00", "10-24T23:30", "10-25T00:00", "10-25T00:30", "10-25T02:00", "10-25T02:30"]),
    ("Europe/Lisbon", "*/30 * * * *", "2026-10-25T00:00", "2026-10-25T02:00", None,
     ["10-25T00:00", "10-25T00:30", "10-25T01:00", "10-25T01:30", "10-25T02:00"]),
    ("Europe/Lisbon", "*/30 * * * *", "2026-10-25T00:00", "2026-10-25T02:00", FIRST,
     ["10-25T00:00", "10-25T00:30", "10-25T02:00"]),
    # 2026-11-01, 02:00 (06:00 UTC) is 01:00
    ("America/New_York", "30 1 * * *", "2026-11-01", "2026-11-02T12:00", FIRST,
     ["11-01T05:30", "11-02T06:30"]),
    ("America/New_York", "30 1 * * *", "2026-11-01", "2026-11-02T12:00", BOTH,
     ["11-01T05:30", "11-01T06:30", "11-02T06:30"]),
    ("America/New_York", "20 */1 * * *", "2026-11-01T05:00", "2026-11-01T08:00", None,
     ["11-01T05:20", "11-01T06:20", "11-01T07:20"]),
    # 2026-04-05, 02:00 (2026-04-04 15:00 UTC) is 01:30
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04", "2026-04-05T20:00", FIRST,
     ["04-04T14:45", "04-05T15:15"]),
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04", "2026-04-05T20:00", BOTH,
     ["04-04T14:45", "04-04T15:15", "04-05T15:15"]),
    ("Australia/Lord_Howe", "15 1 * * *", "2026-04-04", "2026-04-05", BOTH, ["04-04T14:15"]),
    ("Australia/Lord_Howe", "30 * * * *", "2026-04-04T14:00", "2026-04-04T17:00", None,
     ["04-04T14:30", "04-04T15:00", "04-04T16:00", "04-04T17:00"]),
    # 2018-02-18, 00:00 (02:00 UTC) is 2018-02-17 23:00
    ("America/Sao_Paulo", "30 23 * * *", "2018-02-17", "2018-02-19", FIRST,
     ["02-17T01:30", "02-18T01:30"]),
    ("America/Sao_Paulo", "30 23 * * *", "2018-02-17", "2018-02-19", BOTH,
     ["02-17T01:30", "02-18T01:30", "02-18T02:30"]),
    ("America/Sao_Paulo", "0 0 18 2 *", "2018-02-17", "2018-02-19", BOTH, ["02-18T03:00"]),
    # 2026-10-30, 00:00 (2026-10-29 21:00 UTC) is 2026-10-29 23:00
    ("Africa/Cairo", "0 23 L-2 10 *", "2026-10-01", "2026-11-01", BOTH,
     ["10-29T20:00", "10-29T21:00"]),
    ("Africa/Cairo", "0 23 L-2 10 *", "2026-10-01", "2026-11-01", None, ["10-29T20:00"]),
    ("Africa/Cairo", "0 0 30 10 *", "2026-10-01", "2026-11-01", BOTH, ["10-29T22:00"]),
    # A day twice, but for an hour: 1969-10-01 00:00 (1969-09-30 13:00 UTC) is 1969-09-30 01:00
    ("Pacific/Kwajalein", "0 12 * * *", "1969-09-29T00:00", "1969-10-02T01:00", FIRST,
     ["09-29T01:00", "09-30T01:00", "10-02T00:00"]),
    ("Pacific/Kwajalein", "0 12 * * *", "1969-09-29T00:00", "1969-10-02T01:00", BOTH,
     ["09-29T01:00", "09-30T01:00", "10-01T00:00", "10-02T00:00"]),
    # No daylight saving: 2020-12-27 02:00 (2020-12-26 22:00 UTC) is 01:00
    ("Europe/Volgograd", "30 1 * * *", "2020-12-26T12:00", "2020-12-28", FIRST,
     ["12-26T21:30", "12-27T22:30"]),
    ("Europe/Volgograd", "30 1 * * *", "2020-12-26T12:00", "2020-12-28", BOTH,
     ["12-26T21:30", "12-26T22:30", "12-27T22:30"]),
    # No changes at all
    ("Asia/Kolkata", "30 1 * * *", "2026-10-24", "2026-10-26", BOTH,
     ["10-24T20:00", "10-25T20:00"]),
    ("UTC", "30 1 * * *", "2026-10-24", "2026-10-26", BOTH, ["10-24T01:30", "10-25T01:30"]),
]  # fmt: skip


@pytest.mark.parametrize("case", BACK)
def test_a_time_that_comes_twice_is_one_slot_or_two(case):
    """Doubled times of half an hour, an hour, a day; at night and before midnight."""
    zone, expression, begin, end, policy, slots = case
    assert within(Cron(expression, zone, doubled=policy), begin, end) == slots


@pytest.mark.parametrize(
    ("expression", "skipped", "doubled"),
    [
        ("*/15 * * * *", SKIP, BOTH),
        ("0 */1 * * *", SKIP, BOTH),
        ("0 0-23 * * *", SKIP, BOTH),
        ("@hourly", SKIP, BOTH),
        ("30 2 * * *", NEXT, FIRST),
        ("0 */2 * * *", NEXT, FIRST),
        ("0 1-23 * * *", NEXT, FIRST),
        ("@daily", NEXT, FIRST),
    ],
)
def test_without_a_policy_a_steady_beat_stays_steady_and_a_time_of_day_comes_once(
    expression, skipped, doubled
):
    """What follows from the expression is told by the trigger; what is given goes before it."""
    trigger = Cron(expression, "Europe/Lisbon")
    assert (trigger.skipped, trigger.doubled) == (skipped, doubled)
    assert Cron(expression, skipped=NEXT).skipped is NEXT
    assert Cron(expression, doubled=BOTH).doubled is BOTH


@pytest.mark.parametrize("zone", ["Europe/Lisbon", "America/New_York", "Africa/Cairo"])
def test_a_quarter_of_an_hour_is_one_all_the_year(zone):
    """Across both changes, in elapsed time."""
    slots = list(islice(Cron("*/15 * * * *", zone).slots(utc("2026-01-01")), 4 * 24 * 366))
    assert {after - before for before, after in pairwise(slots)} == {timedelta(minutes=15)}


# --------------------------------------------------------------------------------- properties

ZONES = [
    "UTC",
    "Europe/Lisbon",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "Asia/Pyongyang",
    "Pacific/Kwajalein",
    "America/Caracas",
    "Antarctica/Casey",
    "Asia/Manila",
]
SECONDS = st.sampled_from(["", "", "*/20 ", "0,59 ", "7 "])
MINUTES = st.sampled_from(["0", "30", "*/15", "5,59", "*", "0-45/9"])
HOURS = st.sampled_from(["*", "*/2", "0", "1", "1-2", "0,3,23", "22-3"])
DAYS = st.sampled_from(["* * *", "* * SUN", "L * *", "* * 7#1", "15 * FRIL", "29-31 * *", "1W * *"])
CRONS = st.builds(
    lambda second, minute, hour, days, zone, skipped, doubled: Cron(
        f"{second}{minute} {hour} {days}", zone, skipped, doubled
    ),
    SECONDS,
    MINUTES,
    HOURS,
    DAYS,
    st.sampled_from(ZONES),
    st.sampled_from([None, *Skipped]),
    st.sampled_from([None, *Doubled]),
)
#: At moments around which clocks change, and at others.
CHANGES = [
    "2026-03-29T01:00", "2026-10-25T01:00", "2026-03-08T07:00", "2026-11-01T06:00",
    "2026-10-03T15:30", "2026-04-04T15:00", "2018-11-04T03:00", "2018-02-18T02:00",
    "2011-12-30T10:00", "2026-04-23T22:00", "2026-10-29T21:00", "2018-05-04T15:00",
    "1969-09-30T13:00", "1993-08-21T12:00", "2016-05-01T07:00", "2026-02-15T02:00",
    "2026-03-22T02:00", "1901-12-13T20:45", "1999-12-31T23:00", "2025-12-31T23:59",
]  # fmt: skip
MOMENTS = st.one_of(
    st.builds(
        lambda change, off: utc(change) + off,
        st.sampled_from(CHANGES),
        st.timedeltas(timedelta(hours=-26), timedelta(hours=26)),
    ),
    st.datetimes(datetime(1905, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)),
)


@given(CRONS, MOMENTS)
def test_slots_rise_and_are_later_and_whole_seconds(trigger, after):
    """No two are at the same moment."""
    slots = list(islice(trigger.slots(after), 100))
    assert slots[0] > after
    assert all(one < other for one, other in pairwise(slots))
    assert all(slot.microsecond == 0 and slot.tzinfo is UTC for slot in slots)


@given(CRONS, MOMENTS, st.integers(0, 80), st.timedeltas(timedelta(0), timedelta(hours=3)))
def test_a_stream_that_is_begun_anywhere_is_the_same_stream(trigger, after, skip, pause):
    """At a slot, between two, before a change and after it."""
    slots = list(islice(trigger.slots(after), 120))
    begin = slots[skip] + pause
    rest = [slot for slot in slots if slot > begin]
    assert list(islice(trigger.slots(begin), len(rest))) == rest


def minute_by_minute(trigger, begin, end):
    """Return the slots of a period by what a clock shows at each second or minute of it."""
    zone, parsed = ZoneInfo(trigger.zone), trigger._parsed
    step = timedelta(seconds=1 if parsed.seconds != (0,) else 60)
    shown, slots, gap = None, [], False
    moment = begin
    while moment <= end:
        offset = moment.astimezone(zone).utcoffset()
        wall = (moment + offset).replace(tzinfo=None)
        first = shown is None or wall >= shown
        if shown is not None and wall > shown:
            missing = (shown + step * at for at in range(int((wall - shown) / step)))
            gap = any(shows(parsed, wall) for wall in missing)
        else:
            gap = False
        moved = gap and trigger.skipped is Skipped.NEXT
        if moved or (shows(parsed, wall) and (first or trigger.doubled is Doubled.BOTH)):
            slots.append(moment)
        shown = wall + step if first else shown
        moment += step
    return slots


def shows(parsed, wall):
    """Return whether a wall-clock time matches, asking for that alone."""
    return next(parsed.walls(wall), None) == wall


@given(CRONS, st.sampled_from(CHANGES[:-4]), st.integers(0, 5))
def test_slots_are_what_looking_at_the_clock_each_minute_finds(trigger, change, away):
    """It remembers the latest time that it has seen: what is earlier comes for the second time."""
    if trigger._parsed.seconds != (0,):
        begin, end = utc(change) - timedelta(minutes=3), utc(change) + timedelta(minutes=5)
        begin, end = begin + timedelta(minutes=away), end + timedelta(minutes=away)
    else:
        begin, end = utc(change) - timedelta(hours=3 + away), utc(change) + timedelta(hours=26)
    # It is looked at from before the change on: else it cannot know what was shown before.
    before = begin - timedelta(hours=1)
    expected = [slot for slot in minute_by_minute(trigger, before, end) if slot >= begin]
    slots = trigger.slots(begin - timedelta(microseconds=1))
    assert list(takewhile(lambda slot: slot <= end, slots)) == expected


@given(CRONS, MOMENTS)
def test_a_slot_shows_a_time_that_matches_or_ends_a_gap(trigger, after):
    """There is no third kind."""
    zone = ZoneInfo(trigger.zone)
    for slot in islice(trigger.slots(after), 50):
        wall = slot.astimezone(zone).replace(tzinfo=None, fold=0)
        if not shows(trigger._parsed, wall):
            assert trigger.skipped is Skipped.NEXT
            before = (slot - timedelta(seconds=1)).astimezone(zone)
            assert slot.astimezone(zone).utcoffset() > before.utcoffset()


def test_slots_are_named_for_the_years_that_python_knows():
    """From 1900 on, and without an error at the end of the calendar."""
    assert next(Cron("@yearly").slots(datetime.min.replace(tzinfo=UTC))) == utc("1900-01-01")
    for zone in ("UTC", "Europe/Lisbon", "Pacific/Apia"):
        assert list(Cron("@yearly", zone).slots(utc("9998-06-01"))) == []
        assert list(Cron("@yearly", zone).slots(utc("9999-06-01"))) == []
    assert list(Every(timedelta(days=3650)).slots(utc("9998-01-01"))) == []


@given(CRONS)
def test_a_trigger_is_a_value(trigger):
    """Equal by what it says, hashable, and the same after a pickle."""
    again = Cron(trigger.expression, trigger.zone, trigger.skipped, trigger.doubled)
    assert again == trigger
    assert hash(again) == hash(trigger)
    assert pickle.loads(pickle.dumps(trigger)) == trigger
    assert Cron("1 2 3 4 5", trigger.zone, trigger.skipped, trigger.doubled) != trigger


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("Europe/Lisboa", "did you mean Europe/Lisbon"),
        ("europe/lisbon", "did you mean Europe/Lisbon"),
        ("lisbon", "Europe/Lisbon"),
        ("Europe", "there is no such time zone"),
        ("", "there is no such time zone"),
        ("right/Europe/Lisbon", "there is no such time zone"),
        ("localtime", "there is no such time zone"),
        ("../../etc/passwd", "there is no such time zone"),
        ("/etc/localtime", "there is no such time zone"),
        ("Europe/Lisbon\0", "there is no such time zone"),
        ("x" * 5000, "there is no such time zone"),
        ("UTC+1", "there is no such time zone"),
    ],
)
def test_an_unknown_zone_is_refused_and_a_near_one_named(zone, words):
    """Nothing outside the zones' folder is read."""
    with pytest.raises(InvalidSchedule) as caught:
        Cron("* * * * *", zone)
    assert caught.value.field == "tz"
    assert words in str(caught.value)


def test_an_unknown_policy_is_refused():
    """The message names those that there are."""
    with pytest.raises(InvalidSchedule, match="skip or next"):
        Cron("* * * * *", skipped="both")
    with pytest.raises(InvalidSchedule, match="first or both"):
        Cron("* * * * *", doubled="second")


# ------------------------------------------------------------------------- intervals and dates


@given(
    st.integers(1000, 10**9).map(lambda ms: timedelta(milliseconds=ms)),
    st.datetimes(datetime(1970, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
    MOMENTS,
)
def test_an_interval_is_steady_from_its_anchor(interval, anchor, after):
    """Before the anchor, too; whatever is asked for first."""
    anchor = anchor.replace(microsecond=anchor.microsecond // 1000 * 1000)
    trigger = Every(interval, anchor)
    slots = list(islice(trigger.slots(after), 5))
    assert after < slots[0] <= after + interval
    assert all(not (slot - anchor) % interval for slot in slots)
    assert {b - a for a, b in pairwise(slots)} == {interval}
    assert trigger_of("interval", trigger.expression, "UTC", anchor) == trigger


@pytest.mark.parametrize(
    "interval",
    [
        timedelta(0),
        timedelta(seconds=-5),
        timedelta(milliseconds=999),
        timedelta(seconds=1, microseconds=500),
        timedelta(days=3654),
        60,
    ],
)
def test_an_interval_that_cannot_be_is_refused(interval):
    """Less than a second, more than ten years, or not whole milliseconds."""
    with pytest.raises(InvalidSchedule) as caught:
        Every(interval)
    assert caught.value.field == "interval"


@pytest.mark.parametrize(
    "anchor", [datetime(2026, 1, 1), utc("2026-01-01T00:00:00.000001"), utc("1800-01-01")]
)
def test_an_anchor_that_cannot_be_is_refused(anchor):
    """Without an offset, not whole milliseconds, or long ago."""
    with pytest.raises(InvalidSchedule) as caught:
        Every(HOUR, anchor)
    assert caught.value.field == "anchor"


def test_a_date_is_one_slot():
    """In UTC, whatever it was given in."""
    trigger = At(datetime(2026, 1, 1, 2, tzinfo=timezone(HOUR)))
    assert list(trigger.slots(utc("2026-01-01T00:59:59"))) == [utc("2026-01-01T01:00")]
    assert list(trigger.slots(utc("2026-01-01T01:00"))) == []
    with pytest.raises(InvalidSchedule, match="needs a time zone"):
        At(datetime(2026, 1, 1))
    with pytest.raises(InvalidSchedule, match="no such time zone"):
        At(utc("2026-01-01"), "Mars/Olympus")


@pytest.mark.parametrize(
    ("zone", "local", "moment"),
    [
        ("Europe/Lisbon", "2026-07-01T09:00", "2026-07-01T08:00"),
        ("Europe/Lisbon", "2026-03-29T01:30", "2026-03-29T01:00"),
        ("Europe/Lisbon", "2026-03-29T02:00", "2026-03-29T01:00"),
        ("Europe/Lisbon", "2026-10-25T01:30", "2026-10-25T00:30"),
        ("Europe/Lisbon", "2026-10-25T01:30:00.250", "2026-10-25T00:30:00.250"),
        ("Pacific/Apia", "2011-12-30T15:00", "2011-12-30T10:00"),
        ("Pacific/Apia", "2011-12-31T00:00", "2011-12-30T10:00"),
        ("Africa/Cairo", "2026-04-24T00:30", "2026-04-23T22:00"),
        ("Pacific/Kwajalein", "1969-09-30T12:00", "1969-09-30T01:00"),
        ("Asia/Kolkata", "2026-01-01T00:00", "2025-12-31T18:30"),
    ],
)
def test_a_local_date_is_the_first_moment_of_its_time_or_the_end_of_its_gap(zone, local, moment):
    """And is shown in the zone that it was given in."""
    trigger = At.local(datetime.fromisoformat(local), zone)
    assert (trigger.moment, trigger.zone) == (utc(moment), zone)


def test_a_local_date_may_mean_the_second_of_two_or_be_refused_in_a_gap():
    """``fold`` is the standard library's word for it."""
    second = At.local(datetime(2026, 10, 25, 1, 30, fold=1), "Europe/Lisbon")
    assert second.moment == utc("2026-10-25T01:30")
    once = At.local(datetime(2026, 10, 26, 1, 30, fold=1), "Europe/Lisbon")
    assert once.moment == utc("2026-10-26T01:30")
    in_gap = datetime(2026, 3, 29, 1, 30)
    with pytest.raises(InvalidSchedule, match="Europe/Lisbon leave it out"):
        At.local(in_gap, "Europe/Lisbon", Skipped.SKIP)
    with pytest.raises(InvalidSchedule, match="no offset"):
        At.local(utc("2026-01-01"), "Europe/Lisbon")
    for year in (1, 1800, 9999):
        with pytest.raises(InvalidSchedule, match="years 1900 to 9998"):
            At.local(datetime(year, 6, 1), "Europe/Lisbon")


@given(
    st.datetimes(datetime(1901, 1, 1), datetime(2090, 1, 1)).map(
        lambda d: d.replace(microsecond=0)
    ),
    st.sampled_from(ZONES),
    st.sampled_from([0, 1]),
)
def test_a_local_date_is_shown_by_the_clocks_at_its_moment(local, zone, fold):
    """Unless it is in a gap; the standard library agrees."""
    moment = At.local(local.replace(fold=fold), zone).moment
    shown = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    assert shown >= local
    if shown == local:
        assert moment == local.replace(fold=fold, tzinfo=ZoneInfo(zone)).astimezone(UTC)


# ------------------------------------------------------------------------------ stored and read


@pytest.mark.parametrize(
    "trigger",
    [
        Cron("  0   9\t* * 1-5 ", "Europe/Lisbon"),
        Cron("@daily", "Asia/Kolkata", SKIP, BOTH),
        Every(timedelta(seconds=1.5)),
        Every(timedelta(days=3653), utc("2026-01-01T00:00:00.001")),
        At(utc("2026-01-01T12:00:00.123")),
        At.local(datetime(2026, 7, 1), "Europe/Lisbon"),
    ],
)
def test_a_trigger_is_read_as_it_was_stored(trigger):
    """Of six values, most of them text."""
    stored = (
        trigger.kind,
        trigger.expression,
        trigger.zone,
        trigger.anchor,
        str(trigger.skipped),
        str(trigger.doubled),
    )
    assert trigger_of(*stored) == trigger


def test_what_people_write_is_read():
    """Decimal seconds, local dates, and space of any width."""
    assert Cron(" 0  9\t* * * ").expression == "0 9 * * *"
    with pytest.raises(InvalidSchedule, match="column 5: hour: 25"):
        Cron(" 0  25 * * *")
    assert trigger_of("interval", "1.500") == Every(timedelta(seconds=1.5))
    assert trigger_of("date", "2026-07-01T09:00", "Europe/Lisbon").moment == utc("2026-07-01T08:00")
    assert trigger_of("date", "2026-07-01T09:00Z", "Europe/Lisbon").moment == utc(
        "2026-07-01T09:00"
    )


@pytest.mark.parametrize(
    ("kind", "expression", "field"),
    [
        ("cron", "0 25 * * *", "expression"),
        ("interval", "often", "interval"),
        ("interval", "0.5", "interval"),
        ("interval", "1e3", "interval"),
        ("interval", "1.0001", "interval"),
        ("interval", "-60", "interval"),
        ("interval", "٣٠", "interval"),
        ("interval", "99999999999", "interval"),
        ("date", "tomorrow", "expression"),
        ("date", "2026-02-30", "expression"),
        ("date", "2026-01-01T00:00:00.0001Z", "moment"),
        ("sometimes", "1", "trigger"),
    ],
)
def test_what_is_no_trigger_is_refused(kind, expression, field):
    """With the part that is wrong, and an error that survives the way between processes."""
    with pytest.raises(InvalidSchedule) as caught:
        trigger_of(kind, expression)
    assert caught.value.field == field
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason, again.position) == (
        str(caught.value),
        caught.value.reason,
        caught.value.position,
    )


def test_importing_schedules_needs_nothing_but_the_standard_library():
    """It stands beside actors, whose modules clients import, too."""
    code = (
        "import sys; import leveret; known = set(sys.modules); import leveret.schedules;"
        "new = {n.partition('.')[0] for n in set(sys.modules) - known} - sys.stdlib_module_names;"
        "print(sorted(n for n in new if n != 'leveret' and not n.startswith('_sysconfigdata')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
