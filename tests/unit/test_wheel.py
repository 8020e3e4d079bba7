"""The delay wheel's arithmetic: never early, hardly late, and routed as it is written."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leveret import wheel

UNITS = st.integers(0, wheel.RADIX**wheel.DIGITS - 1)
DELAYS = st.timedeltas(timedelta(0), wheel.HORIZON)
KEYS = st.lists(st.text("abcdef0123456789_-", min_size=1, max_size=8), min_size=1, max_size=10).map(
    ".".join
)


def waited(units):
    """Add up the TTLs of the queues that a delay passes."""
    symbols = wheel.digits_of(units).split(".")
    queues = [
        f"leveret.delay.{wheel.DIGITS - 1 - place}.{symbol}"
        for place, symbol in enumerate(symbols)
        if symbol != "0"
    ]
    ttls = [wheel.queue_ttl(queue) for queue in queues]
    assert None not in ttls
    assert len(ttls) == wheel.hops(units)
    return sum(ttls, timedelta(0))


@given(DELAYS)
@example(timedelta(0))
@example(timedelta(microseconds=1))
@example(wheel.HORIZON)
def test_an_exact_delay_is_never_early_and_at_most_a_unit_late(delay):
    """The queues' TTLs sum up to the delay, rounded up to the unit."""
    late = waited(wheel.units_of(delay)) - delay
    assert timedelta(0) <= late < wheel.UNIT


@given(UNITS, st.integers(1, wheel.DIGITS))
def test_rounding_up_is_never_early_and_bounded(units, significant):
    """With n digits a delay grows by less than 16^(1-n) of itself: 6.7 % with two."""
    rounded = wheel.round_up(units, significant=significant)
    assert rounded >= units
    assert rounded < wheel.RADIX**wheel.DIGITS
    assert (rounded - units) * wheel.RADIX ** (significant - 1) <= units
    if significant == 2:
        assert rounded <= units * (1 + 1 / 15)
    if rounded != units:
        assert wheel.hops(rounded) <= significant


@given(UNITS)
def test_two_digits_are_two_hops_except_at_the_very_end(units):
    """Only where rounding up would leave the wheel are more digits kept."""
    if units <= 0xFF00000:
        assert wheel.hops(wheel.round_up(units, significant=2)) <= 2


@given(DELAYS, KEYS)
def test_a_key_is_taken_apart_into_what_it_was_made_of(delay, key):
    """`split_key` is the inverse of `delayed_key`."""
    found, rest = wheel.split_key(wheel.delayed_key(delay, key))
    assert rest == key
    assert found == wheel.units_of(delay) * wheel.UNIT


@given(UNITS)
def test_digits_are_read_back(units):
    """`digits_to_units` is the inverse of `digits_of`, whose words are seven."""
    digits = wheel.digits_of(units)
    assert len(digits.split(".")) == wheel.DIGITS
    assert wheel.digits_to_units(digits) == units


@given(st.text("0123456789abcdefgxA.", max_size=30))
def test_a_key_without_seven_digits_in_front_stays_as_it_is(key):
    """Whatever the words are, either seven digits and a rest are split off, or nothing."""
    delay, rest = wheel.split_key(key)
    if delay is None:
        assert rest == key
    else:
        assert key == f"{wheel.digits_of(delay // wheel.UNIT)}.{rest}"


@pytest.mark.parametrize("delay", [timedelta(microseconds=-1), timedelta.min])
def test_a_negative_delay_is_refused_with_its_value(delay):
    """A job cannot wait for the past."""
    with pytest.raises(ValueError, match="negative"):
        wheel.units_of(delay)


@pytest.mark.parametrize("delay", [wheel.HORIZON + timedelta(microseconds=1), timedelta.max])
def test_a_delay_beyond_the_horizon_is_refused_with_the_horizon(delay):
    """310 days, 16 hours and a bit are what seven digits hold."""
    with pytest.raises(ValueError, match="310 days"):
        wheel.units_of(delay)


@pytest.mark.parametrize("units", [-1, wheel.RADIX**wheel.DIGITS])
def test_units_outside_of_the_wheel_have_no_digits(units):
    """They would wrap around."""
    with pytest.raises(ValueError, match="do not fit"):
        wheel.digits_of(units)


def test_at_least_one_digit_is_significant():
    """None would be no delay at all."""
    with pytest.raises(ValueError, match="at least one"):
        wheel.round_up(5, significant=0)


@pytest.mark.parametrize(
    "queue",
    ["leveret.default", "leveret.delay.7.1", "leveret.delay.0.0", "leveret.delay.0.10", "", "x"],
)
def test_other_queues_hold_nothing_back(queue):
    """Only the wheel's queues have a time."""
    assert wheel.queue_ttl(queue) is None


def test_the_documented_example_is_right():
    """12.3 s are 0x7b units: two hops, of 11.2 s and 1.1 s."""
    key = wheel.delayed_key(timedelta(seconds=12.3), "default.email.send")
    assert key == "0.0.0.0.0.7.b.default.email.send"
    assert wheel.queue_ttl("leveret.delay.1.7") == timedelta(seconds=11.2)
    assert wheel.queue_ttl("leveret.delay.0.b") == timedelta(seconds=1.1)
