"""Finding the slots that are missing: what a schedule's trigger names, and no row accounts for.

**A gap.** Every slot of a schedule is decided on once, and the decision is a row: fired, skipped or
queued, or one row for a run of skipped ones. `last_slot` says how far the decisions have come, and
none before it is looked at again. So a slot up to there without a row is lost for good, unless
somebody repairs it; that is a gap. None should ever be found.

**Overdue.** A slot behind `last_slot` that was due a while ago waits for a scheduler that leads.
There is nothing to repair: the next leader decides by the schedule's own policy.

**A slot without a job.** It was fired, and neither the outbox nor the ledger knows its job after
`JOB_GRACE`: its message was published and lost, or nobody folded it.

**What is looked at**: slots after the schedule's `since` (what its trigger named before, it does
not tell), within the period that is asked for, and never so far back that retention may have
removed their rows. A paused schedule has no gaps from its pause on.

**Bounded work.** A schedule is asked for so many slots at most. Of one that has more in the period,
its end is looked at: the period is halved until what is left is few enough. Slots are compared with
rows in sets, many schedules in one statement, so that ten thousand hourly schedules cost a few
round trips.

It only reads; `leveret.schedules.repair` does something about it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

from sqlalchemy import select, text
from sqlalchemy.engine import Connection

from leveret.errors import LeveretError
from leveret.schedules.row import StoredSchedule, stored
from leveret.store.retention import KEEP
from leveret.store.schema import Schedule

__all__ = [
    "GRACE",
    "JOB_GRACE",
    "PERIOD",
    "Gap",
    "Gaps",
    "Overdue",
    "Unreadable",
    "WithoutJob",
    "find",
    "grace_for",
]

#: How far back is looked, unless somebody says.
PERIOD = timedelta(days=1)
#: A slot may be undecided for so long after it was due: a take-over, and the decision.
GRACE = timedelta(seconds=60)
#: A job may be unknown for so long after it was fired: a relay and a recorder that lag.
JOB_GRACE = timedelta(minutes=10)
#: The most slots of one schedule that are looked at, and the most fired slots of all.
MOST_SLOTS = 10_000
MOST_FIRED = 100_000
#: The most findings of a kind that are named.
MOST_NAMED = 1000
#: Schedules that are read at once, and slots that are compared in one statement.
_SCHEDULES = 1000
_COMPARED = 50_000
#: Rows are not looked for so close to where retention cuts.
_MARGIN = timedelta(hours=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A slot that was passed over: it has no row, and no scheduler looks at it again."""

    schedule: str
    slot: datetime


@dataclass(frozen=True, kw_only=True)
class Overdue:
    """Slots that no scheduler has decided on, though they were due a while ago."""

    schedule: str
    #: The first of them.
    slot: datetime
    #: How many there are, as far as was looked.
    count: int


@dataclass(frozen=True, kw_only=True)
class WithoutJob:
    """A slot that was fired, and whose job nobody knows."""

    schedule: str
    slot: datetime
    job_id: str
    fired_at: datetime


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A schedule whose slots cannot be told, such as one of a time zone that is not known here."""

    schedule: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """What was found."""

    #: The database's clock.
    checked_at: datetime
    #: The period whose slots were looked at.
    since: datetime
    until: datetime
    #: How many schedules, and how many slots of them.
    schedules: int
    slots: int
    gaps: tuple[Gap, ...] = ()
    overdue: tuple[Overdue, ...] = ()
    without_job: tuple[WithoutJob, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    #: Schedules with more slots than are looked at: from when on theirs were.
    shortened: Mapping[str, datetime]
    #: Whether there are more findings than are named.
    more: bool = False
    #: Who has the scheduler's lease; None when nobody has.
    leader: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether everything is accounted for."""
        return not (self.gaps or self.overdue or self.without_job or self.unreadable)


def grace_for(lease: timedelta) -> timedelta:
    """Return for how long a slot may be undecided where schedulers have such a term.

    A leader may take over after one, and what it finds then is late up to three.
    """
    return max(GRACE, 4 * lease)


def find(
    connection: Connection,
    *,
    schedule: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    keep: timedelta = KEEP,
    grace: timedelta = GRACE,
    job_grace: timedelta = JOB_GRACE,
    most: int = MOST_SLOTS,
) -> Gaps:
    """Look for slots that are missing, of one schedule or of all.

    The period is the last `PERIOD` unless ``since`` and ``until`` say otherwise; it is cut to what
    ``keep``, the time that retention keeps, and ``grace`` leave of it. Times are the database's.
    For one consistent look, call it in a transaction of REPEATABLE READ.
    """
    now: datetime = connection.execute(_NOW).scalar_one()
    end = min(now - grace, until or now)
    begin = max(since or now - PERIOD, now - keep + _MARGIN)
    search = _Search(connection, begin=begin, end=end, grace=grace, most=most)
    for known in _schedules(connection, schedule, search.unreadable):
        search.add(known)
    search.compare()
    lost = connection.execute(
        _WITHOUT_JOB,
        {
            "schedule": schedule,
            "begin": begin,
            "kept": now - keep + _MARGIN,
            "end": min(now - job_grace, until or now),
            "fired": MOST_FIRED,
            "most": MOST_NAMED + 1,
        },
    ).all()
    gaps = sorted(search.gaps, key=lambda gap: (gap.schedule, gap.slot))
    found = (gaps, search.overdue, lost, search.unreadable)
    return Gaps(
        checked_at=now,
        since=begin,
        until=end,
        schedules=search.schedules,
        slots=search.slots,
        gaps=tuple(gaps[:MOST_NAMED]),
        overdue=tuple(search.overdue[:MOST_NAMED]),
        without_job=tuple(WithoutJob(**row._mapping) for row in lost[:MOST_NAMED]),  # noqa: SLF001
        unreadable=tuple(search.unreadable[:MOST_NAMED]),
        shortened=search.shortened,
        more=search.more or any(len(kind) > MOST_NAMED for kind in found),
        leader=connection.execute(_LEADER).scalar(),
    )


_NOW = text("SELECT clock_timestamp()")
_LEADER = text(
    "SELECT holder FROM leases WHERE name = 'scheduler' AND expires_at > clock_timestamp()"
)
#: Which of many slots have no row of their own: one probe for each.
_MISSING = text(
    "SELECT w.number FROM unnest(CAST(:schedules AS text[]), CAST(:slots AS bigint[]))"
    " WITH ORDINALITY AS w (schedule, milliseconds, number)"
    " LEFT JOIN LATERAL (SELECT true AS there FROM schedule_slots s"
    "   WHERE s.schedule = w.schedule"
    "   AND s.slot = to_timestamp(0) + w.milliseconds * interval '1 millisecond' LIMIT 1) s ON true"
    " WHERE s.there IS NULL ORDER BY w.number"
)
#: The runs of skipped slots that reach into what is missing of each schedule.
_RUNS = text(
    "SELECT s.schedule, s.slot, s.until FROM unnest(CAST(:schedules AS text[]),"
    "   CAST(:first AS timestamptz[]), CAST(:last AS timestamptz[])) AS w (schedule, first, last)"
    " JOIN schedule_slots s ON s.schedule = w.schedule AND s.until IS NOT NULL"
    "   AND s.slot <= w.last AND s.until >= w.first"
    " ORDER BY s.schedule, s.slot"
)
# One probe for each slot, of the partition that its job is in: the time of a slot's job is the
# slot, unless `job_ids` says otherwise.
_WITHOUT_JOB = text(
    "WITH fired AS MATERIALIZED ("
    "   SELECT schedule, slot, job_id, fired_at FROM schedule_slots"
    "   WHERE fired_at >= :begin AND fired_at < :end AND slot >= :kept AND outcome = 'fired'"
    "     AND job_id IS NOT NULL"
    "     AND (CAST(:schedule AS text) IS NULL OR schedule = :schedule)"
    "   ORDER BY fired_at DESC LIMIT :fired),"
    " unknown AS MATERIALIZED ("
    "   SELECT f.* FROM fired f LEFT JOIN LATERAL (SELECT true AS there FROM jobs"
    "     WHERE jobs.id = f.job_id AND jobs.created_at = f.slot LIMIT 1) j ON true"
    "   WHERE j.there IS NULL)"
    " SELECT u.schedule, u.slot, u.job_id, u.fired_at FROM unknown u"
    " WHERE NOT EXISTS (SELECT FROM leveret_outbox o WHERE o.job_id = u.job_id)"
    "   AND NOT EXISTS (SELECT FROM job_ids i, LATERAL (SELECT FROM jobs"
    "     WHERE jobs.id = i.id AND jobs.created_at = i.created_at LIMIT 1) j"
    "     WHERE i.id = u.job_id)"
    " ORDER BY u.schedule, u.slot LIMIT :most"
)


def _schedules(
    connection: Connection, name: str | None, unreadable: list[Unreadable]
) -> Iterator[StoredSchedule]:
    """Yield the schedules by name, read a page at a time."""
    after = ""
    while True:
        page = select(Schedule.__table__).order_by(Schedule.name).limit(_SCHEDULES)
        page = page.where(Schedule.name == name if name is not None else Schedule.name > after)
        rows = connection.execute(page).mappings().all()
        for row in rows:
            try:
                yield stored(row)
            except LeveretError as error:
                unreadable.append(Unreadable(schedule=row["name"], detail=str(error)))
        if name is not None or len(rows) < _SCHEDULES:
            return
        after = rows[-1]["name"]


class _Search:
    """The slots that are to be compared, and what has come of those that were."""

    def __init__(
        self,
        connection: Connection,
        *,
        begin: datetime,
        end: datetime,
        grace: timedelta,
        most: int,
    ) -> None:
        self._connection = connection
        self._begin = begin
        self._end = end
        self._grace = grace
        self._most = most
        self._waiting: list[tuple[StoredSchedule, Sequence[datetime]]] = []
        self._compared = 0
        self.schedules = 0
        self.slots = 0
        self.gaps: list[Gap] = []
        self.overdue: list[Overdue] = []
        self.unreadable: list[Unreadable] = []
        self.shortened: dict[str, datetime] = {}
        self.more = False

    def add(self, known: StoredSchedule) -> None:
        """Take the slots of a schedule; compare when there are enough of them."""
        self.schedules += 1
        end = self._end
        if known.paused_at is not None:
            end = min(end, known.paused_at - self._grace)
        # A slot counts when even the latest moment of its jitter is over.
        end -= known.definition.jitter
        begin = max(self._begin, known.since)
        try:
            named = _named(known, begin, end, self._most)
        except (LeveretError, ValueError, OverflowError) as error:
            self.unreadable.append(Unreadable(schedule=known.name, detail=str(error)))
            return
        if named is None:
            return
        if named.begin > begin:
            self.shortened[known.name] = named.begin
        self.slots += len(named.slots)
        self._compared += len(named.slots)
        self._waiting.append((known, named.slots))
        if self._compared >= _COMPARED:
            self.compare()

    def compare(self) -> None:
        """Compare what was taken with the rows that there are."""
        pairs = [(known, slot) for known, slots in self._waiting for slot in slots]
        self._waiting.clear()
        self._compared = 0
        if not pairs:
            return
        numbers = self._connection.execute(
            _MISSING,
            {
                "schedules": [known.name for known, _ in pairs],
                "slots": [(slot - _EPOCH) // _MILLISECOND for _, slot in pairs],
            },
        ).scalars()
        missing: dict[str, tuple[StoredSchedule, list[datetime]]] = {}
        for number in numbers:
            known, slot = pairs[number - 1]
            missing.setdefault(known.name, (known, []))[1].append(slot)
        runs = self._runs(missing)
        for name, (known, slots) in missing.items():
            self._found(known, _outside(slots, runs.get(name, ())))

    def _runs(
        self, missing: Mapping[str, tuple[StoredSchedule, list[datetime]]]
    ) -> Mapping[str, list[tuple[datetime, datetime]]]:
        if not missing:
            return {}
        values = {
            "schedules": list(missing),
            "first": [slots[0] for _, slots in missing.values()],
            "last": [slots[-1] for _, slots in missing.values()],
        }
        found: dict[str, list[tuple[datetime, datetime]]] = {}
        for row in self._connection.execute(_RUNS, values):
            found.setdefault(row.schedule, []).append((row.slot, row.until))
        return found

    def _found(self, known: StoredSchedule, slots: Sequence[datetime]) -> None:
        passed = bisect_right(slots, known.last_slot) if known.last_slot is not None else 0
        room = MOST_NAMED + 1 - len(self.gaps)
        self.more = self.more or passed > room
        self.gaps += [Gap(schedule=known.name, slot=slot) for slot in slots[: min(passed, room)]]
        # Whoever resumes a schedule says what becomes of the slots that passed meanwhile.
        if known.paused_at is None and (undecided := slots[passed:]):
            self.overdue.append(
                Overdue(schedule=known.name, slot=undecided[0], count=len(undecided))
            )


@dataclass(frozen=True, slots=True)
class _Named:
    """The slots that a trigger names after a time."""

    begin: datetime
    slots: Sequence[datetime]


def _named(known: StoredSchedule, begin: datetime, end: datetime, most: int) -> _Named | None:
    """Return the slots of a period, or of the end of it that has no more than ``most``."""
    while begin < end:
        ahead = takewhile(lambda slot: slot <= end, known.definition.slots(begin))
        slots = list(islice(ahead, most + 1))
        if len(slots) <= most:
            return _Named(begin, slots)
        # Slots are as dense at the end as at the beginning, or are halved again.
        begin = max(end - (end - begin) / 2, begin + _MILLISECOND)
    return None


def _outside(
    slots: Iterable[datetime], runs: Sequence[tuple[datetime, datetime]]
) -> list[datetime]:
    """Return the slots that are in no run; both are in order."""
    found = []
    ends: datetime | None = None
    ahead = iter(runs)
    run = next(ahead, None)
    for slot in slots:
        while run is not None and run[0] <= slot:
            ends = run[1] if ends is None else max(ends, run[1])
            run = next(ahead, None)
        if ends is None or slot > ends:
            found.append(slot)
    return found
