"""Cron expressions: what they say, what is refused and where, and which times they name."""

# ruff: noqa: DTZ001 - what walls show has no zone
from __future__ import annotations

import calendar
from datetime import datetime, timedelta
from itertools import islice

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from leveret.errors import InvalidSchedule
from leveret.schedules.cron import MACROS, parse


def test_five_fields_have_second_zero_and_six_begin_with_seconds():
    """The sixth field is in front, not behind."""
    assert parse("1 2 3 4 5") == parse("0 1 2 3 4 5")
    six = parse("1 2 3 4 5 6")
    assert (six.seconds, six.minutes, six.hours, six.months) == ((1,), (2,), (3,), (5,))
    assert (six.days.numbers, six.days.weekdays) == ({4}, {6})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("*", range(60)),
        ("*/15", (0, 15, 30, 45)),
        ("*/1", range(60)),
        ("7", (7,)),
        ("007", (7,)),
        ("10-13", (10, 11, 12, 13)),
        ("10-20/4", (10, 14, 18)),
        ("50/4", (50, 54, 58)),
        ("5,1,3,1", (1, 3, 5)),
        ("58-2", (0, 1, 2, 58, 59)),
        ("50-10/7", (4, 50, 57)),
        ("1-2,*/30,59/1", (0, 1, 2, 30, 59)),
    ],
)
def test_a_field_is_a_list_of_values_ranges_and_steps(field, values):
    """A range may go on at the field's beginning."""
    assert parse(f"{field} * * * *").minutes == tuple(values)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("SUN", {0}),
        ("7", {0}),
        ("0,7", {0}),
        ("mon-Fri", {1, 2, 3, 4, 5}),
        ("5-7", {5, 6, 0}),
        ("FRI-MON", {5, 6, 0, 1}),
        ("SUN-TUE", {0, 1, 2}),
        ("7-2", {0, 1, 2}),
        ("7-7", {0}),
        ("0-7", set(range(7))),
        ("1-7", set(range(7))),
        ("1-7/2", {1, 3, 5, 0}),
        ("1/2", {1, 3, 5}),
        ("7/3", {0, 3, 6}),
        ("SAT-1/2", {6, 1}),
    ],
)
def test_weekdays_have_names_and_seven_is_sunday(field, values):
    """Alone, at either end of a range, and with steps."""
    assert parse(f"0 0 * * {field}").days.weekdays == values


def test_months_have_names():
    """In any case, also across the year's end."""
    assert parse("0 0 1 jan,MAR-May,12 *").months == (1, 3, 4, 5, 12)
    assert parse("0 0 1 NOV-FEB *").months == (1, 2, 11, 12)


@pytest.mark.parametrize("macro", MACROS)
def test_a_macro_stands_for_an_expression(macro):
    """In any case, and with space around."""
    assert parse(f"  {macro.upper()} ") == parse(MACROS[macro])


def days(expression, year, month):
    """Return on which days of a month an expression matches."""
    walls = parse(expression).walls(datetime(year, month, 1))
    length = calendar.monthrange(year, month)[1]
    found = []
    for wall in walls:
        if wall >= datetime(year, month, 1) + timedelta(days=length):
            return sorted(set(found))
        found.append(wall.day)
    return found


@pytest.mark.parametrize(
    ("fields", "month", "expected"),
    [
        # 2026: Feb has 28 days from a Sunday, Aug 31 from a Saturday, May 31 from a Friday.
        ("L * *", (2026, 2), [28]),
        ("L * *", (2028, 2), [29]),
        ("L-2 * *", (2026, 8), [29]),
        ("L-30 * *", (2026, 8), [1]),
        ("L-30 * *", (2026, 2), []),
        ("L-0,1 * *", (2026, 2), [1, 28]),
        ("LW * *", (2026, 2), [27]),
        ("LW * *", (2026, 5), [29]),
        ("LW * *", (2026, 8), [31]),
        ("1W * *", (2026, 8), [3]),
        ("1W * *", (2026, 2), [2]),
        ("15W * *", (2026, 8), [14]),
        ("16W * *", (2026, 8), [17]),
        ("31W * *", (2026, 5), [29]),
        ("31W * *", (2026, 4), []),
        ("28W * *", (2026, 2), [27]),
        ("lw,15w * *", (2026, 8), [14, 31]),
        ("* * 1#1", (2026, 8), [3]),
        ("* * MON#5", (2026, 8), [31]),
        ("* * MON#5", (2026, 2), []),
        ("* * 7#1", (2026, 2), [1]),
        ("* * 5L", (2026, 8), [28]),
        ("* * FRIL,SUNL", (2026, 2), [22, 27]),
        ("* * 0L", (2026, 5), [31]),
        ("* * 1,5L", (2026, 2), [2, 9, 16, 23, 27]),
        ("13 * FRI", (2026, 2), [6, 13, 20, 27]),
        ("13 * ?", (2026, 2), [13]),
        ("? * FRI", (2026, 2), [6, 13, 20, 27]),
        ("L * MON#1", (2026, 2), [2, 28]),
        ("*/10 * SUN", (2026, 2), [1, 8, 11, 15, 21, 22]),
        ("*/1 * SUN", (2026, 2), [1, 8, 15, 22]),
        ("1-31 * SUN", (2026, 2), list(range(1, 29))),
        ("1 * 0-7", (2026, 2), list(range(1, 29))),
        ("1 * */1", (2026, 2), [1]),
        ("25-3 * *", (2026, 2), [1, 2, 3, 25, 26, 27, 28]),
        ("27-5/3 * *", (2026, 8), [2, 5, 27, 30]),
        ("30,31 * *", (2026, 2), []),
    ],
)
def test_days_are_named_from_either_end_and_by_weekday(fields, month, expected):
    """Both fields of days together mean either, unless one has nothing to say."""
    assert days(f"0 0 {fields}", *month) == expected


@pytest.mark.parametrize(
    ("expression", "position", "words"),
    [
        ("", None, "0 fields"),
        ("* * * *", None, "4 fields; there are five"),
        ("* * * * * * 2026", 13, "7 fields"),
        ("0 24 * * *", 3, "hour: 24 is not among 0-23"),
        ("60 * * * *", 1, "minute: 60 is not among 0-59"),
        ("0  0\t32 * *", 6, "day of month: 32 is not among 1-31"),
        ("0 0 0 * *", 5, "day of month: 0 is not among 1-31"),
        ("0 0 1 13 *", 7, "month: 13 is not among 1-12 or JAN-DEC"),
        ("0 0 1 FOO *", 7, "month: FOO is not among"),
        ("0 0 * * 8", 9, "day of week: 8 is not among 0-7 (0 and 7 are Sunday) or SUN-SAT"),
        ("0 0 * * MONDAY", 9, "MONDAY is not among"),
        ("0 0 * * 1,2,x", 13, "X is not among"),
        ("0 0 * * 1-x", 11, "X is not among"),
        ("1,,2 * * * *", 3, "an item is missing beside a comma"),
        ("1, * * * *", 3, "an item is missing"),
        ("*/0 * * * *", 3, "minute: 0 after / is not a step; it is one of 1-59"),
        ("*/90 * * * *", 3, "90 after / is not a step"),
        ("0 */24 * * *", 5, "24 after / is not a step; it is one of 1-23"),
        ("0-30/ * * * *", 6, "nothing after / is not a step"),
        ("*/5/2 * * * *", 3, "5/2 after / is not a step"),
        ("-5 * * * *", 1, "a value is missing; it is among"),
        ("5- * * * *", 3, "a value is missing; it is among"),
        ("1-2-3 * * * *", 3, "2-3 is not among"),
        ("? * * * *", 1, "? stands alone in a field of days"),
        ("0 0 ?/2 * *", 5, "? stands alone"),
        ("L * * * *", 1, "L is not among"),
        ("0 0 * L *", 7, "L is not among"),
        ("0 0 * * L", 9, "5L or FRIL"),
        ("0 0 * * 9L", 9, "9 is not among"),
        ("0 0 * * MON#6", 13, "6 after # is not among 1-5"),
        ("0 0 * * 1#", 11, "nothing after # is not among 1-5"),
        ("0 0 * * #1", 9, "a value is missing; it is among"),
        ("0 0 L-31 * *", 7, "31 after L- is not among 0-30"),
        ("0 0 L- * *", 7, "nothing after L-"),
        ("0 0 W * *", 5, "W is not among"),
        ("0 0 32W * *", 5, "32 is not among"),
        ("0 0 30 2 *", 5, "no such day in any year"),
        ("0 0 30-31 FEB *", 5, "no such day in any year"),
        ("0 0 31 4,6,9,11 *", 5, "no such day in any year"),
        ("0 0 L-29 2 *", 5, "no such day in any year"),
        ("0 0 31W 2 *", 5, "no such day in any year"),
        ("@reboot", 1, "@reboot is not known; there are @yearly"),
        ("@daily 5", 8, "nothing may follow @daily"),
        ("٣ * * * *", 1, "٣ is not among"),
        ("H * * * *", 1, "H is not among"),
        ("0 0 * * *" + " " * 1000, None, "at most 1000"),
    ],
)
def test_what_cannot_be_is_refused_with_its_column_and_what_is_allowed(expression, position, words):
    """The message names the expression, and it is a ValueError, too."""
    with pytest.raises(InvalidSchedule) as caught:
        parse(expression)
    error = caught.value
    assert (error.field, error.position, error.value) == ("expression", position, expression)
    assert words in error.reason
    assert error.reason in str(error)
    assert expression[:90].strip() in str(error).replace("\\t", "\t")
    assert isinstance(error, ValueError)


def test_a_day_that_only_few_years_have_is_not_refused():
    """A fifth Monday in February is one in twenty-eight years, and still comes."""
    walls = parse("0 0 * 2 MON#5").walls(datetime(2026, 1, 1))
    assert [wall.year for wall in islice(walls, 2)] == [2044, 2072]
    walls = parse("0 0 29 2 *").walls(datetime(2096, 3, 1))
    assert next(walls) == datetime(2104, 2, 29)


def test_times_end_with_the_calendar_of_python():
    """Without an error, before the year 9999."""
    assert list(parse("0 0 31 12 *").walls(datetime(9997, 1, 1))) == [
        datetime(9997, 12, 31),
        datetime(9998, 12, 31),
    ]


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("* * * * * *", 1),
        ("*/7 * * * * *", 4),  # 56 and 60
        ("* * * * *", 60),
        ("*/15 * * * *", 900),
        ("0,50 9 * * *", 3000),
        ("0,50 * * * *", 600),
        ("0 9,17 * * *", 8 * 3600),
        ("0 0,23 * * *", 3600),
        ("0,59 0,23 * * *", 60),
        ("0 9 * * *", None),
        ("10 5 9 1 * *", None),
    ],
)
def test_the_shortest_time_between_two_is_known(expression, seconds):
    """It bounds the jitter; a day or more is no bound."""
    shortest = parse(expression).shortest
    assert shortest == (None if seconds is None else timedelta(seconds=seconds))


# ----------------------------------------------------------------- against trying minute by minute


def item(low, high):
    """Return items of a field, as text and as the values that they have."""
    value = st.integers(low, high)
    single = value.map(lambda a: (str(a), {a}))
    span = st.tuples(value, value, st.integers(1, high - low)).map(
        lambda v: (
            f"{v[0]}-{v[1]}/{v[2]}",
            {
                (a - low) % (high - low + 1) + low
                for a in range(v[0], (v[1] if v[1] >= v[0] else v[1] + high - low + 1) + 1, v[2])
            },
        )
    )
    return st.one_of(single, span)


def fields(low, high):
    """Return fields, as text and as the values that they have; None for a star."""
    several = st.lists(item(low, high), min_size=1, max_size=3).map(
        lambda items: (",".join(text for text, _ in items), set().union(*(v for _, v in items)))
    )
    return st.one_of(st.just(("*", None)), several)


def holds(value, allowed):
    """Return whether a value is allowed."""
    return allowed is None or value in allowed


@given(
    st.tuples(fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 6)),
    st.datetimes(datetime(2023, 1, 1), datetime(2030, 1, 1)),
)
def test_the_times_are_those_that_trying_each_minute_finds(written, start):
    """Rising, none left out, none too many, from any start."""
    text = " ".join(field for field, _ in written)
    minute, hour, day, month, weekday = written
    start = start.replace(second=0, microsecond=0)
    try:
        expression = parse(text)
    except InvalidSchedule as refused:
        assume("no such day" not in refused.reason)
        raise

    def matches(wall):
        by_day, by_weekday = day[1], weekday[1]
        if by_day is not None and by_weekday is not None:
            today = wall.day in by_day or wall.isoweekday() % 7 in by_weekday
        else:
            today = holds(wall.day, by_day) and holds(wall.isoweekday() % 7, by_weekday)
        return (
            today
            and holds(wall.month, month[1])
            and holds(wall.hour, hour[1])
            and holds(wall.minute, minute[1])
        )

    end = start + timedelta(minutes=3000)
    tried = (start + timedelta(minutes=at) for at in range(3000))
    expected = [wall for wall in tried if matches(wall)]
    found = []
    for wall in expression.walls(start):
        if wall >= end:
            assert matches(wall)
            break
        found.append(wall)
    assert found == expected


def test_what_expressions_have_in_common_is_kept_once():
    """Ten thousand schedules at different minutes need little memory."""
    one, other = parse("1 2 L * MON#1"), parse("3,4 2 L * MON#1")
    assert one.days is other.days
    assert one.hours is other.hours
