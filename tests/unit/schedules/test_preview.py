"""Previews: slots in local time, and what the changes of clocks have to do with them."""

# ruff: noqa: DTZ001 - what walls show has no zone
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.errors import InvalidSchedule
from leveret.schedules import At, Cron, Doubled, Every, Skipped
from leveret.schedules.definition import Definition
from leveret.schedules.preview import Mark, preview


def utc(text):
    """Return a moment, written without its offset."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def definition(trigger, **changes):
    """Return a schedule."""
    return Definition(name="a", actor="b", trigger=trigger, **changes)


def rows(trigger, begin, end):
    """Return a preview as text: slot, local time with its offset, mark."""
    return rows_of(definition(trigger), begin, end)


def rows_of(made, begin, end):
    """Return a schedule's preview as text."""
    found = preview(made, utc(begin), utc(end))
    assert not found.truncated
    assert found.zone == made.trigger.zone
    return [
        (
            f"{entry.slot:%H:%M}" if entry.slot else None,
            f"{entry.local:%H:%M} {entry.offset / timedelta(hours=1):+g}",
            entry.mark,
        )
        for entry in found.entries
    ]


FORWARD = ("2026-03-29T00:00", "2026-03-29T02:00")
BACK = ("2026-10-25T00:00", "2026-10-25T02:00")


def test_a_time_that_is_left_out_is_marked_with_or_without_a_slot():
    """Skipped, at its place in time; or moved, with the time that was wanted."""
    skip, move = Skipped.SKIP, Skipped.NEXT
    assert rows(Cron("30 0-2 * * *", "Europe/Lisbon", skip), *FORWARD) == [
        ("00:30", "00:30 +0", None),
        (None, "01:30 +1", "skipped"),
        ("01:30", "02:30 +1", None),
    ]
    trigger = Cron("*/20 1,2 * * *", "Europe/Lisbon", move)
    assert rows(trigger, *FORWARD) == [
        ("01:00", "02:00 +1", "moved"),
        ("01:20", "02:20 +1", None),
        ("01:40", "02:40 +1", None),
    ]
    entry = preview(definition(trigger), utc(FORWARD[0])).entries[0]
    assert entry.wanted == datetime(2026, 3, 29, 1, 0)


def test_a_time_that_comes_twice_is_marked():
    """As the first and second of two slots, or as the one of a doubled time."""
    assert rows(Cron("30 0-2 * * *", "Europe/Lisbon", doubled=Doubled.BOTH), *BACK) == [
        ("00:30", "01:30 +1", "first"),
        ("01:30", "01:30 +0", "second"),
    ]
    assert rows(Cron("30 0-2 * * *", "Europe/Lisbon", doubled=Doubled.FIRST), *BACK) == [
        ("00:30", "01:30 +1", "doubled")
    ]
    assert rows(At(utc("2026-10-25T01:30"), "Europe/Lisbon"), *BACK) == [
        ("01:30", "01:30 +0", "second")
    ]


def test_gaps_and_doubled_times_of_other_lengths_are_marked():
    """Half an hour on Lord Howe, a day on Samoa, midnight in Cairo."""
    lord_howe = Cron("*/15 1-2 * * *", "Australia/Lord_Howe", doubled=Doubled.BOTH)
    assert rows(lord_howe, "2026-04-04T14:15", "2026-04-04T15:45") == [
        ("14:15", "01:15 +11", None),
        ("14:30", "01:30 +11", "first"),
        ("14:45", "01:45 +11", "first"),
        ("15:00", "01:30 +10.5", "second"),
        ("15:15", "01:45 +10.5", "second"),
        ("15:30", "02:00 +10.5", None),
        ("15:45", "02:15 +10.5", None),
    ]
    samoa = Cron("0 */8 * * *", "Pacific/Apia", Skipped.SKIP)
    assert rows(samoa, "2011-12-30T02:00", "2011-12-30T18:00") == [
        ("02:00", "16:00 -10", None),
        (None, "00:00 +14", "skipped"),
        (None, "08:00 +14", "skipped"),
        (None, "16:00 +14", "skipped"),
        ("10:00", "00:00 +14", None),
        ("18:00", "08:00 +14", None),
    ]
    cairo = Cron("@daily", "Africa/Cairo")
    assert rows(cairo, "2026-04-23T12:00", "2026-04-24T12:00") == [("22:00", "01:00 +3", "moved")]
    assert rows(cairo, "2026-10-29T12:00", "2026-10-30T12:00") == [("22:00", "00:00 +2", None)]


def test_skipped_times_are_told_without_any_slot_beside_them():
    """Within the period, and within the schedule's own."""
    only = Cron("30 1 29 3 *", "Europe/Lisbon", Skipped.SKIP)
    expected = [(None, "01:30 +1", "skipped")]
    assert rows(only, "2026-03-01", "2026-04-01") == expected
    assert rows(only, "2026-03-29T01:00", "2026-03-29T01:00") == expected
    assert rows(only, "2026-03-29T01:01", "2026-04-01") == []
    assert rows(only, "2026-03-01", "2026-03-29T00:59") == []
    for changes in ({"start": utc("2026-03-30")}, {"end": utc("2026-03-29T00:59")}):
        assert rows_of(definition(only, **changes), "2026-03-01", "2026-04-01") == []


def test_a_preview_ends_at_its_limit_and_says_so():
    """Both ends of the period belong to it."""
    made = definition(Every(timedelta(minutes=1)))
    begin = utc("2026-01-01")
    five = preview(made, begin, begin + timedelta(minutes=4), 5)
    assert (len(five.slots), five.truncated) == (5, False)
    assert (five.slots[0], five.slots[-1]) == (begin, begin + timedelta(minutes=4))
    assert preview(made, begin, begin + timedelta(minutes=5), 5).truncated
    assert preview(made, begin, limit=5).slots == five.slots
    once = preview(definition(At(begin)), begin, limit=5)
    assert (once.slots, once.truncated) == ((begin,), False)
    assert preview(definition(At(begin)), utc("9999-01-01")).entries == ()


def test_a_period_that_cannot_be_is_refused():
    """Without an offset, backwards, or without a limit."""
    made, begin = definition(At(utc("2026-01-01"))), utc("2026-01-01")
    with pytest.raises(InvalidSchedule, match="before the start"):
        preview(made, begin, begin - timedelta(seconds=1))
    with pytest.raises(InvalidSchedule, match="time zone"):
        preview(made, datetime(2026, 1, 1))
    with pytest.raises(InvalidSchedule, match="at least 1"):
        preview(made, begin, limit=0)


@given(
    st.sampled_from(["*/30 * * * *", "15 0-3 * * *", "0 */4 * * *", "30 1 * * SUN"]),
    st.sampled_from(
        ["UTC", "Europe/Lisbon", "Australia/Lord_Howe", "Africa/Cairo", "Pacific/Apia"]
    ),
    st.sampled_from(Skipped),
    st.sampled_from(Doubled),
    st.datetimes(datetime(2011, 1, 1), datetime(2012, 12, 1), timezones=st.just(UTC)),
)
def test_a_preview_has_the_slots_of_the_schedule_in_the_order_of_time(
    expression, zone, skipped, doubled, begin
):
    """And tells for each what a clock shows there."""
    made = definition(Cron(expression, zone, skipped, doubled))
    found = preview(made, begin, limit=200)
    slots = found.slots
    assert slots == tuple(islice(made.slots(begin - timedelta(microseconds=1)), len(slots)))
    for entry in found.entries:
        if entry.slot is None:
            assert (entry.mark, skipped) == (Mark.SKIPPED, Skipped.SKIP)
        else:
            assert entry.local - entry.offset == entry.slot.replace(tzinfo=None)
    moments = [entry.local - entry.offset for entry in found.entries if entry.slot]
    assert moments == sorted(moments)
