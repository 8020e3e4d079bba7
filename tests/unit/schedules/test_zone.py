"""The changes of a zone's clock, against those that its file tells."""

# ruff: noqa: DTZ001 - what walls show has no zone
from __future__ import annotations

import importlib.resources
import io
import os
import struct
from datetime import datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest

from leveret.schedules.zone import WallClock

EPOCH = datetime(1970, 1, 1)
BEGIN, END = datetime(1902, 1, 1), datetime(2037, 12, 31)

SOME = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Juneau",
    "America/New_York",
    "America/Sao_Paulo",
    "Antarctica/Troll",
    "Asia/Gaza",
    "Asia/Kolkata",
    "Asia/Manila",
    "Asia/Pyongyang",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Europe/Lisbon",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "UTC",
]
ALL = os.environ.get("LEVERET_TEST_SLOTS") == "all"


def names():
    """Return the names of all zones in the distribution of the IANA's data."""
    return importlib.resources.files("tzdata").joinpath("zones").read_text().split()


def file_of(name):
    """Return the bytes of a zone's compiled file there."""
    folder = importlib.resources.files("tzdata.zoneinfo")
    return folder.joinpath(*name.split("/")).read_bytes()


def told(data):
    """Return the changes of offset that a file lists (RFC 9636), in UTC, with the new offsets."""
    layout = ">4s1c15x6l"
    size = struct.calcsize(layout)
    _, _, isutcnt, isstdcnt, leapcnt, timecnt, typecnt, charcnt = struct.unpack(layout, data[:size])
    # The first block has 32 bits a time; the second has 64, and the same layout.
    first = 4 * timecnt + timecnt + 6 * typecnt + charcnt + 8 * leapcnt + isstdcnt + isutcnt
    data = data[size + first :]
    _, _, _, _, _, timecnt, typecnt, _ = struct.unpack(layout, data[:size])
    times = struct.unpack_from(f">{timecnt}q", data, size)
    kinds = data[size + 8 * timecnt :][:timecnt]
    at = size + 9 * timecnt
    offsets = [struct.unpack_from(">lbb", data, at + 6 * kind)[0] for kind in range(typecnt)]
    changes, offset = [], timedelta(seconds=offsets[0])
    for seconds, kind in zip(times, kinds, strict=True):
        after = timedelta(seconds=offsets[kind])
        if after != offset:
            changes.append((EPOCH + timedelta(seconds=seconds), after))
        offset = after
    return changes


@pytest.mark.timeout(1800 if ALL else 120)
@pytest.mark.parametrize("name", names() if ALL else SOME)
def test_all_changes_of_a_zone_are_found_to_the_second(name):
    """From 1902 to the end of what the file lists: none left out, none too many."""
    data = file_of(name)
    listed = [(moment, offset) for moment, offset in told(data) if moment >= BEGIN]
    last = listed[-1][0] if listed else BEGIN
    clock = WallClock(ZoneInfo.from_file(io.BytesIO(data), name))
    stretches = list(takewhile(lambda s: s.begin <= last, clock.stretches(BEGIN)))
    found = [(b.begin, b.offset) for a, b in pairwise(stretches) if a.offset != b.offset]
    assert found == listed
    assert all(a.begin < a.end == b.begin for a, b in pairwise(stretches))


@pytest.mark.parametrize("name", SOME)
def test_what_a_wall_has_shown_is_the_latest_of_all_it_showed_before(name):
    """Neither the first showing of a doubled time nor a year's end makes it forget."""
    stretches = WallClock(ZoneInfo(name)).stretches(datetime(1960, 1, 1))
    latest = next(stretches).last
    for stretch in takewhile(lambda s: s.begin < datetime(2030, 1, 1), stretches):
        # What was shown more than two days ago cannot come again.
        assert stretch.seen == latest
        latest = max(latest, stretch.last)


def test_a_new_year_is_no_change_even_where_clocks_have_just_been_put_back():
    """The doubled hour goes on as one, if its middle is the year's end in UTC."""
    # 1999-12-31 23:30 UTC: back by an hour, for a zone that is made up.
    data = zone_file(946_683_000, 3600, 0)
    clock = WallClock(ZoneInfo.from_file(io.BytesIO(data), "Made/Up"))
    one, other, third = (
        next(clock.stretches(datetime(*moment)))
        for moment in ((1999, 12, 31, 23), (1999, 12, 31, 23, 45), (2000, 1, 1))
    )
    assert (one.offset, one.end) == (timedelta(hours=1), datetime(1999, 12, 31, 23, 30))
    assert (other.first, other.seen) == (
        datetime(1999, 12, 31, 23, 30),
        datetime(2000, 1, 1, 0, 30),
    )
    assert (third.first, third.seen) == (datetime(2000, 1, 1), datetime(2000, 1, 1, 0, 30))
    assert clock.again(datetime(1999, 12, 31, 23, 15))
    assert not clock.again(datetime(1999, 12, 31, 22, 15))
    assert not clock.again(datetime(2000, 1, 1, 0, 15))


@pytest.mark.parametrize(("before", "after"), [(0, 3600), (3600, 0)])
def test_a_change_with_the_new_year_is_one_change(before, after):
    """It begins the year, and does not end the one before as well."""
    data = zone_file(946_684_800, before, after)
    clock = WallClock(ZoneInfo.from_file(io.BytesIO(data), "Made/Up"))
    one, other, _ = takewhile(
        lambda s: s.begin < datetime(2002, 1, 1), clock.stretches(datetime(1999, 6, 1))
    )
    assert (one.offset, one.end) == (timedelta(seconds=before), datetime(2000, 1, 1))
    assert (other.offset, other.begin) == (timedelta(seconds=after), datetime(2000, 1, 1))
    assert other.seen == datetime(2000, 1, 1) + timedelta(seconds=before)


def zone_file(moment, before, after):
    """Return the compiled file of a zone with one change."""
    blocks = b""
    for code in ("l", "q"):
        blocks += struct.pack(">4s1s15x6l", b"TZif", b"2", 0, 0, 0, 1, 2, 4)
        blocks += struct.pack(f">{code}", moment) + b"\1"
        blocks += struct.pack(">lbblbb", before, 0, 0, after, 0, 0) + b"XXX\0"
    return blocks + f"\n<X>{-after // 3600}\n".encode()
