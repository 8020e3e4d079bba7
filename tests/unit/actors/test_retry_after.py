"""Reading `Retry-After`."""

from datetime import UTC, datetime

import pytest

from actors.webhook import retry_after_seconds

NOW = datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1.5", None),
        ("-1", None),
        ("soon", None),
        ("٣", None),
        ("Fri, 02 Jan 2026 03:05:30 GMT", 90.0),
        ("Friday, 02-Jan-26 03:05:30 GMT", 90.0),
        ("Fri Jan  2 03:05:30 2026", 90.0),
        ("Fri, 02 Jan 2026 02:00:00 GMT", 0.0),
    ],
)
def test_seconds_and_the_three_date_forms_are_read(header, seconds):
    """RFC 9110 allows seconds and dates; what is past means now, what is unreadable nothing."""
    assert retry_after_seconds(header, now=NOW) == seconds
