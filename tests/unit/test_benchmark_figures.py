"""The arithmetic that turns rounds into promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.figures import percentile, ratio, rotated, spread

numbers = st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=50)


def test_spread_of_an_odd_number_of_rounds_has_the_middle_one_as_its_median():
    """One wild round moves the bounds and leaves the median alone."""
    seen = spread([10.0, 1000.0, 12.0])
    assert (seen.median, seen.low, seen.high, seen.rounds) == (12.0, 10.0, 1000.0, 3)


def test_spread_of_an_even_number_of_rounds_takes_the_mean_of_the_two_middle_ones():
    """Two rounds are judged by their mean."""
    assert spread([1.0, 2.0]).median == 1.5


def test_width_is_a_share_of_the_median():
    """Rounds from 9 to 11 around 10 lie a fifth apart."""
    assert spread([9.0, 10.0, 11.0]).width == pytest.approx(0.2)


def test_width_around_a_median_of_nothing_is_nothing():
    """Counts such as 'lost' are 0 in good rounds and must not divide."""
    assert spread([0.0, 0.0]).width == 0.0


@pytest.mark.parametrize("function", [spread, lambda values: percentile(values, 0.5)])
def test_no_values_are_refused(function):
    """A scenario that measured nothing cannot be mistaken for a fast one."""
    with pytest.raises(ValueError, match="measure at least one"):
        function([])


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_percentile_is_the_nearest_rank(share, expected):
    """Of 1 to 100 the 99th percentile is 99."""
    assert percentile(range(1, 101), share) == expected


@pytest.mark.parametrize("share", [-0.1, 1.1, 99])
def test_percentile_refuses_a_share_beyond_its_bounds(share):
    """Someone who means 99 per cent and writes 99 is told so."""
    with pytest.raises(ValueError, match=f"not {share}"):
        percentile([1.0], share)


@given(numbers, st.floats(min_value=0, max_value=1))
def test_percentile_is_always_a_measured_value_that_covers_its_share(values, share):
    """At least the share of all values lies at or below the percentile."""
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_ratio_divides_median_by_median():
    """Ours of 30 over a base of 10 is 3."""
    assert ratio([10.0, 30.0, 90.0], [5.0, 10.0, 100.0]) == 3.0


@pytest.mark.parametrize(("ours", "base"), [([], [1.0]), ([1.0], []), ([1.0], [0.0])])
def test_ratio_of_what_was_not_measured_is_none(ours, base):
    """A missing side gives no figure rather than a wrong one."""
    assert ratio(ours, base) is None


@given(st.lists(st.integers(), max_size=8), st.integers(min_value=0, max_value=30))
def test_rotation_keeps_all_and_begins_with_the_next_one_each_round(items, by):
    """Round-robin: nobody is left out, nobody is always first."""
    turned = rotated(items, by)
    assert sorted(turned) == sorted(items)
    if items:
        assert turned[0] == items[by % len(items)]
