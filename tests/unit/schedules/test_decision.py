"""What becomes of slots that are due: fired, skipped, or left for the next time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import ClassVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leveret.schedules import At, Cron, Every, Missed
from leveret.schedules.decision import MOST_COUNTED, MOST_FIRED, Range, count, decide, latest
from leveret.schedules.definition import Definition

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
GRACE = 30 * SECOND


def at(minutes):
    """Return a time, so many minutes from the beginning."""
    return BEGIN + minutes * MINUTE


def definition(missed=Missed.ONCE, **changes):
    """Return a schedule each minute."""
    values = {"name": "a", "actor": "b", "trigger": Every(MINUTE), "missed": missed}
    return Definition(**(values | changes))


def ask(made, after, now, grace=GRACE):
    """Return the decision."""
    return decide(made, after=after, now=now, grace=grace)


@pytest.mark.parametrize("missed", Missed)
def test_nothing_is_decided_before_a_slot_is_due(missed):
    """The next slot is told, and when it is due."""
    decision = ask(definition(missed), at(0), at(1) - timedelta(microseconds=1))
    assert (decision.fire, decision.skipped, decision.last) == ((), (), None)
    assert (decision.next_slot, decision.next_due) == (at(1), at(1))


@pytest.mark.parametrize("missed", Missed)
@pytest.mark.parametrize("late", [timedelta(0), SECOND, GRACE])
def test_a_slot_that_is_due_is_fired_whatever_happens_to_missed_ones(missed, late):
    """From the moment on that it is due, to the end of the grace."""
    decision = ask(definition(missed), at(0), at(1) + late)
    assert (decision.fire, decision.skipped, decision.last) == ((at(1),), (), at(1))
    assert (decision.next_slot, decision.next_due) == (at(2), at(2))


@pytest.mark.parametrize("missed", Missed)
def test_within_the_grace_all_slots_are_fired(missed):
    """A take-over loses none, however many there are."""
    made = definition(missed, trigger=Every(SECOND), window=SECOND)
    decision = ask(made, BEGIN, BEGIN + 31 * SECOND)
    assert decision.fire == tuple(BEGIN + n * SECOND for n in range(1, 32))
    assert (decision.skipped, decision.last) == ((), BEGIN + 31 * SECOND)


def test_missed_slots_are_skipped_fired_once_or_fired_all():
    """As the policy says; what is not fired is told as one range."""
    now = at(5) + SECOND
    skip = ask(definition(Missed.SKIP), at(0), now)
    assert (skip.fire, skip.skipped) == ((), (Range(at(1), at(5), 5, "missed"),))
    once = ask(definition(Missed.ONCE), at(0), now)
    assert (once.fire, once.skipped) == ((at(5),), (Range(at(1), at(4), 4, "missed"),))
    each = ask(definition(Missed.ALL), at(0), now)
    assert (each.fire, each.skipped) == (tuple(map(at, range(1, 6))), ())
    assert {(d.last, d.next_slot) for d in (skip, once, each)} == {(at(5), at(6))}


def test_one_missed_slot_is_the_latest():
    """There is nothing to skip, then."""
    decision = ask(definition(), at(0), at(1) + GRACE + SECOND)
    assert (decision.fire, decision.skipped, decision.last) == ((at(1),), (), at(1))


def test_what_is_older_than_the_window_is_not_fired():
    """Whatever the policy says; the edge of the window is within it."""
    now, window = at(10), 3 * MINUTE
    each = ask(definition(Missed.ALL, window=window), at(0), now)
    assert each.fire == (at(7), at(8), at(9), at(10))
    assert each.skipped == (Range(at(1), at(6), 6, "missed"),)
    once = ask(definition(window=window), at(0), now)
    assert once.fire == (at(10),)
    daily = definition(trigger=Every(timedelta(days=1)), window=window)
    old = ask(daily, BEGIN - MINUTE, BEGIN + 4 * MINUTE)
    assert (old.fire, old.skipped) == ((), (Range(BEGIN, BEGIN, 1, "missed"),))
    old = ask(definition(Missed.ALL, trigger=daily.trigger, window=window), at(-1), at(4))
    assert (old.fire, old.last) == ((), BEGIN)


def test_more_than_a_thousand_are_fired_in_turns():
    """The next is due at once, and the rest follows until all are fired."""
    made, after, now, fired = definition(Missed.ALL), BEGIN, at(2500) + SECOND, []
    while True:
        decision = ask(made, after, now)
        if decision.last is None:
            break
        assert len(decision.fire) <= MOST_FIRED
        fired += decision.fire
        after = decision.last
        if len(fired) < 2500:
            assert decision.next_slot == fired[-1] + MINUTE
            assert decision.next_due <= now
    assert fired == [at(n) for n in range(1, 2501)]


def test_a_schedule_ends():
    """There is no next slot; and one date is decided on once."""
    decision = ask(definition(trigger=At(at(1))), at(0), at(1))
    assert (decision.fire, decision.next_slot, decision.next_due) == ((at(1),), None, None)
    decision = ask(definition(trigger=At(at(1))), at(1), at(9))
    assert (decision.fire, decision.last, decision.next_slot) == ((), None, None)
    decision = ask(definition(start=at(3), end=at(4)), at(0), at(9))
    assert (decision.fire, decision.skipped) == ((at(4),), (Range(at(3), at(3), 1, "missed"),))
    assert decision.next_slot is None


def test_a_clock_that_goes_back_decides_nothing():
    """Slots that were decided on are not asked for again."""
    decision = ask(definition(), at(5), at(2))
    assert (decision.last, decision.next_slot) == (None, at(6))


def test_a_slot_with_jitter_is_late_only_after_its_time():
    """An hour's jitter is no lateness."""
    made = definition(trigger=Every(timedelta(hours=3)), jitter=timedelta(hours=1))
    slot = next(made.slots(BEGIN))
    due = made.due(slot)
    assert ask(made, BEGIN, due - SECOND).next_due == due
    assert ask(made, BEGIN, due).fire == (slot,)
    late = ask(definition(Missed.SKIP, trigger=made.trigger, jitter=made.jitter), BEGIN, due)
    assert late.fire == (slot,)


def test_ten_thousand_slots_are_counted_and_more_are_not():
    """None stands for too many."""
    made = definition(trigger=Every(SECOND))
    for slots, counted in ((1, 1), (10_000, 10_000), (10_001, None)):
        assert count(made, BEGIN, BEGIN + (slots - 1) * SECOND) == counted


# -------------------------------------------------------------------------- against going through

TRIGGERS = st.one_of(
    st.integers(1000, 100_000).map(lambda ms: Every(timedelta(milliseconds=ms), BEGIN)),
    st.sampled_from(
        [
            Cron("*/7 * * * * *"),
            Cron("* * * * *", "Europe/Lisbon"),
            Cron("*/20 0-1 * * *"),
            Cron("0,1 * * * *"),
            At(at(3)),
            Cron("* * * * *", "Africa/Cairo"),
        ]
    ),
)
SHORT = st.timedeltas(timedelta(0), timedelta(minutes=10))


@dataclass(frozen=True)
class Jittered:
    """A trigger whose slots may be put off beyond the next one."""

    inner: Every | Cron | At
    shortest: ClassVar[timedelta | None] = None

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Yield the slots."""
        return self.inner.slots(after)


@given(
    st.sampled_from(Missed),
    TRIGGERS,
    SHORT,
    st.none() | SHORT.filter(bool),
    st.tuples(SHORT, SHORT, st.timedeltas(timedelta(0), MINUTE)),
)
@example(
    Missed.ALL, Every(SECOND), 4 * SECOND, 366 * SECOND, (0 * SECOND, 368 * SECOND, 0 * SECOND)
)
def test_the_decision_is_what_going_through_all_slots_finds(missed, trigger, jitter, window, times):
    """With any jitter, even one that would turn the order of slots round: they wait."""
    made = definition(missed, trigger=Jittered(trigger), jitter=jitter, window=window)
    after, now = BEGIN + times[0], BEGIN + times[0] + times[1]
    grace = times[2]
    # From the beginning of all that can matter, each with the time from when it is ready.
    ready, slots = datetime.min.replace(tzinfo=UTC), []
    for slot in islice(made.slots(BEGIN - timedelta(hours=1)), 20_000):
        ready = max(ready, made.due(slot))
        if slot > after:
            if ready > now:
                break
            slots.append((slot, ready))
    decision = ask(made, after, now, grace)
    if not slots:
        assert (decision.fire, decision.skipped, decision.last) == ((), (), None)
        return
    late = now - slots[0][1] > grace
    young = [slot for slot, ready in slots if window is None or now - ready <= window]
    if not late:
        fire = [slot for slot, _ in slots]
    elif missed is Missed.SKIP:
        fire = []
    elif missed is Missed.ONCE:
        fire = young[-1:]
    else:
        fire = young
    skipped = [slot for slot, _ in slots if slot not in fire]
    assert list(decision.fire) == fire
    assert decision.last == slots[-1][0]
    assert list(decision.skipped) == (
        [Range(skipped[0], skipped[-1], len(skipped), "missed")] if skipped else []
    )
    assert latest(made, after, now) == slots[-1][0]
    if decision.next_due is not None:
        assert decision.next_due > now


@pytest.mark.parametrize("missed", Missed)
def test_a_month_without_a_leader_is_decided_on_by_looking_at_few_slots(missed):
    """Of two and a half million; so it takes some 20 ms, and no seconds."""
    looked_at = 0

    class Counting(Jittered):
        def slots(self, after: datetime) -> Iterator[datetime]:
            nonlocal looked_at
            for slot in self.inner.slots(after):
                looked_at += 1
                yield slot

    trigger = Counting(Cron("* * * * * *", "Europe/Lisbon"))
    now = BEGIN + timedelta(days=31)
    decision = ask(definition(missed, trigger=trigger, window=MINUTE), BEGIN, now)
    assert decision.last == now
    assert decision.skipped[0].count is None
    assert looked_at < MOST_COUNTED + 200
