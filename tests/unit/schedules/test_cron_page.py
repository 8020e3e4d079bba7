"""The page about cron expressions says what is so."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest

from leveret.errors import InvalidSchedule
from leveret.schedules import Cron, Doubled, Skipped
from leveret.schedules.cron import MACROS
from tests.support.pages import ROOT

PAGE = (ROOT / "docs/reference/cron.md").read_text()


def table(title):
    """Return the rows of the table whose header begins so."""
    _, _, rest = PAGE.partition(f"| {title}")
    lines = takewhile(lambda line: line.startswith("|"), rest.splitlines()[2:])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) >= 4
    return rows


@pytest.mark.parametrize("row", table("a field may say"))
def test_the_next_times_are_right(row):
    """Of each example in the table of what a field may say."""
    *_, expression, wanted = row
    after = datetime(2026, 1, 1, tzinfo=UTC)
    slot = next(Cron(expression.strip("`")).slots(after))
    assert slot == datetime.fromisoformat(wanted).replace(tzinfo=UTC)


@pytest.mark.parametrize("row", table("expression | column"))
def test_the_refusals_are_right(row):
    """With their column and reason."""
    expression, column, reason = row
    with pytest.raises(InvalidSchedule) as caught:
        Cron(expression.strip("`"))
    assert (caught.value.position, caught.value.reason) == (int(column), reason)


@pytest.mark.parametrize("row", table("expression | policy"))
def test_the_slots_of_days_on_which_clocks_change_are_right(row):
    """In Lisbon, without a policy and with one."""
    expression, policy, *days = row
    limit = re.search(r"until (\d\d):00", expression)
    policies = re.findall("`(.*?)`", policy)
    skipped = Skipped(policies[0]) if policies else None
    doubled = Doubled(policies[1]) if policies else None
    trigger = Cron(re.search("`(.*?)`", expression)[1], "Europe/Lisbon", skipped, doubled)
    for day, wanted in zip(("2026-03-29", "2026-10-25"), days, strict=True):
        begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
        end = begin + timedelta(hours=int(limit[1]) if limit else 23)
        slots = list(takewhile(lambda s: s < end, trigger.slots(begin - timedelta(seconds=1))))  # noqa: B023
        assert (", ".join(f"{slot:%H:%M}" for slot in slots) or "none") == wanted


def test_every_macro_is_named_with_what_it_stands_for():
    """And none that there is not."""
    assert set(re.findall("`(@[a-z]+)`", PAGE)) == set(MACROS)
    assert all(f"`{expression}`" in PAGE for expression in MACROS.values())
