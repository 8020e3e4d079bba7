"""Schedules as people declare them: next to actors, in files, in plain values."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from leveret import actor
from leveret.broker import LeveretBroker
from leveret.errors import ConfigurationError, InvalidSchedule
from leveret.schedules import At, Cron, Every, Missed, Overlap, Schedule, form
from leveret.schedules.declared import gather
from leveret.schedules.definition import Definition
from leveret.schedules.file import load
from leveret.settings import Settings

MINUTE = Every(timedelta(minutes=1))


@pytest.fixture
def broker() -> LeveretBroker:
    """Return a broker without actors."""
    return LeveretBroker()


def declare(broker: LeveretBroker, name: str, schedule) -> None:
    """Declare an actor with a schedule."""

    @actor(name, schedule=schedule, broker=broker)
    def run(to: str = "ada") -> None: ...


# ----------------------------------------------------------------------------------- next to actors


def test_an_actor_has_a_schedule_of_its_name(broker):
    """A trigger alone is enough; the function stays an actor."""
    trigger = Cron("0 9 * * 1-5", tz="Europe/Lisbon")
    declare(broker, "report.build", trigger)
    assert dict(broker.schedules) == {
        "report.build": Definition(name="report.build", actor="report.build", trigger=trigger)
    }
    assert "report.build" in broker.actors


def test_a_schedule_says_more_and_a_list_more_than_one(broker):
    """Numbers are seconds, words are policies."""
    declare(
        broker,
        "mail.send",
        [
            MINUTE,
            Schedule(
                Every(timedelta(hours=1)),
                name="mail.hourly",
                arguments={"to": "grace"},
                queue="bulk",
                options={"priority": 1},
                jitter=30,
                missed="all",
                window=3600,
                overlap=Overlap.SKIP,
            ),
        ],
    )
    assert set(broker.schedules) == {"mail.send", "mail.hourly"}
    hourly = broker.schedules["mail.hourly"]
    assert (hourly.actor, hourly.jitter, hourly.window) == (
        "mail.send",
        timedelta(seconds=30),
        timedelta(hours=1),
    )
    assert (hourly.missed, hourly.overlap) == (Missed.ALL, Overlap.SKIP)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("0 9 * * *", r"Cron\(…\)"),
        ([MINUTE, MINUTE], "two schedules 'a.b'"),
        (Schedule(MINUTE, name="no blanks"), "no spaces"),
        (Schedule(MINUTE, missed="never"), "skip or once or all"),
        (Schedule(MINUTE, options={"delay": 5}), "no such option"),
        (Schedule(MINUTE, arguments={"x": object()}), "cannot be written"),
        (Schedule(MINUTE, jitter="soon"), "number of seconds"),
    ],
)
def test_a_declaration_that_makes_no_sense_names_its_actor(broker, schedule, words):
    """It fails when the module is imported."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        declare(broker, "a.b", schedule)
    assert "'a.b'" in str(caught.value)
    assert not broker.schedules


def test_two_actors_cannot_have_one_schedule(broker):
    """The error names both."""
    declare(broker, "a.b", Schedule(MINUTE, name="mine"))
    with pytest.raises(ConfigurationError, match=r"'a\.b' and one of 'c\.d'"):
        declare(broker, "c.d", Schedule(MINUTE, name="mine"))


def test_declaring_a_schedule_loads_no_sqlalchemy():
    """A worker that runs the actors does without it."""
    program = (
        "import sys; from leveret import actor; from leveret.schedules import Cron, Schedule\n"
        "@actor('a.b', schedule=Schedule(Cron('@daily'), name='x'))\n"
        "def run(): ...\n"
        "assert not any(name.partition('.')[0] == 'sqlalchemy' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_what_is_declared_is_checked_together(broker, tmp_path):
    """Arguments against the actor, queues against the settings, names against each other."""
    file = tmp_path / "schedules.toml"
    settings = Settings(schedules=(str(file),))
    declare(broker, "a.b", MINUTE)

    def write(text: str) -> None:
        file.write_text(text)

    write('[schedules.x]\nactor = "a.b"\nevery = "1h"\narguments = { to = "grace" }')
    found = gather(broker, settings)
    assert {name: one.origin for name, one in found.schedules.items()} == {
        "a.b": "code",
        "x": "file",
    }
    assert found.warnings == []
    write('[schedules."a.b"]\nactor = "a.b"\nevery = 60')
    with pytest.raises(ConfigurationError, match=r"next to the actor a\.b, and one in .*toml"):
        gather(broker, settings)
    write('[schedules.x]\nactor = "a.b"\nevery = 60\narguments = { of = 1 }')
    with pytest.raises(ConfigurationError, match=r"'x' in .*refuses them: of: Extra"):
        gather(broker, settings)
    write('[schedules.x]\nactor = "a.b"\nevery = 60\nqueue = "gpu"')
    with pytest.raises(ConfigurationError, match=r"queue 'gpu': there is none; there are critical"):
        gather(broker, settings)
    write('[schedules.x]\nactor = "other.team"\nevery = 60')
    (warning,) = gather(broker, settings).warnings
    assert "no actor is called 'other.team' here" in warning


# ------------------------------------------------------------------------------------------- files


def test_a_file_has_all_that_a_schedule_can_have(tmp_path):
    """TOML's own times and tables included."""
    file = tmp_path / "schedules.toml"
    file.write_text(
        """
        [schedules."report.nightly"]
        actor = "report.build"
        description = "For the board"
        cron = "0 3 * * *"
        tz = "Europe/Lisbon"
        skipped = "skip"
        arguments = { of = "yesterday", since = 2026-01-01 }
        queue = "bulk"
        options = { max_retries = 2 }
        jitter = "1m30s"
        start = 2026-04-01
        end = 2027-01-01T00:00:00Z
        missed = "all"
        window = "2d"
        overlap = "queue"

        [schedules.once]
        actor = "report.build"
        at = 2026-06-01T09:00:00
        tz = "Europe/Lisbon"

        [schedules.steady]
        actor = "report.build"
        every = 7.5
        anchor = 2026-01-01T00:00:03Z
        """
    )
    nightly, once, steady = load(file)
    assert nightly == Definition(
        name="report.nightly",
        actor="report.build",
        description="For the board",
        trigger=Cron("0 3 * * *", "Europe/Lisbon", skipped="skip"),
        arguments=nightly.arguments,
        queue="bulk",
        options={"max_retries": 2},
        jitter=timedelta(seconds=90),
        start=datetime(2026, 3, 31, 23, tzinfo=UTC),
        end=datetime(2027, 1, 1, tzinfo=UTC),
        missed=Missed.ALL,
        window=timedelta(days=2),
        overlap=Overlap.QUEUE,
    )
    assert nightly.arguments["of"] == "yesterday"
    assert once.trigger == At(datetime(2026, 6, 1, 8, tzinfo=UTC), "Europe/Lisbon")
    assert steady.trigger == Every(
        timedelta(seconds=7.5), datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[schedules.x", "is not TOML"),
        ("[x]\nactor = 'a.b'", r"no table 'x'; a schedule is a table \[schedules"),
        ("schedules = 1", "holds tables"),
        ("[schedules]\nx = 1", r"table \[schedules.x\]: it is a table"),
        ("[schedules.x]\nevery = 60", "actor '': it has to be given"),
        ("[schedules.x]\nactor = 'a.b'", "cron '': give one of cron, every and at"),
        (
            "[schedules.x]\nactor = 'a.b'\nevery = 60\ncron = '@daily'",
            "every '60': .*not cron and every",
        ),
        (
            "[schedules.x]\nactor = 'a.b'\ncron = '0 25 * * *'",
            r"\[schedules.x\]: cron '0 25 \* \* \*', column 3",
        ),
        (
            "[schedules.x]\nactor = 'a.b'\ncron = '@daily'\ntz = 'Europe/Lisboa'",
            "tz 'Europe/Lisboa'.*mean Europe/Lisbon",
        ),
        ("[schedules.x]\nactor = 'a.b'\nevry = 60", "evry '60'.*mean every"),
        ("[schedules.x.y]\nactor = 'a.b'", "a name with dots in it is written in quotes"),
        ("[schedules.x]\nactor = 'a.b'\nevery = 'soon'", "every 'soon': it is a number"),
        ("[schedules.x]\nactor = 'a.b'\nevery = true", "every 'True': it is a number"),
        ("[schedules.x]\nactor = 'a.b'\nevery = 60\nskipped = 'next'", "goes with cron or at"),
        ("[schedules.x]\nactor = 'a.b'\nevery = 60\narguments = 1", "names with values"),
        ("[schedules.x]\nactor = 'a.b'\nevery = 60\nqueue = 1", "queue '1': it is a text"),
        ("[schedules.x]\nactor = 'a.b'\nevery = 60\nmissed = 'x'", "skip or once or all"),
        (
            "[schedules.x]\nactor = 'a.b'\nat = 2026-03-29T01:30:00\ntz = 'Europe/Lisbon'",
            "at '2026-03-29 01:30:00': clocks in Europe/Lisbon leave it out",
        ),
        ("[schedules.x]\nactor = 'a.b'\nat = 'tomorrow'", "at 'tomorrow': it is a time such as"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_table_and_key(tmp_path, text, words):
    """One line says where it is wrong, and how."""
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=words) as caught:
        load(file)
    assert "wrong.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    """With the setting that names it."""
    with pytest.raises(ConfigurationError, match=r"LEVERET_SCHEDULES names .*gone\.toml"):
        load(tmp_path / "gone.toml")


# ------------------------------------------------------------------------------------ plain values


def test_what_is_written_is_read_back():
    """For each kind of trigger."""
    for trigger in (
        Cron("*/5 * * * *", "Europe/Lisbon"),
        Every(timedelta(seconds=90), datetime(2026, 1, 1, tzinfo=UTC)),
        At(datetime(2026, 6, 1, 8, tzinfo=UTC), "Europe/Lisbon"),
    ):
        definition = Definition(
            name="x",
            actor="a.b",
            trigger=trigger,
            jitter=timedelta(seconds=1),
            window=timedelta(hours=1),
            options={"once": True},
        )
        fields = form.write(definition)
        assert form.read(fields.pop("name"), fields) == definition


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("90s", 90),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172800),
        ("1w", 604800),
        ("250ms", 0.25),
        ("1h 5m", 3900),
    ],
)
def test_durations_are_seconds_or_texts(text, seconds):
    """As people write them."""
    assert form.duration("every", text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "s", "1x", "h1", "-", "1e400", "nan", None, [], True])
def test_what_is_no_duration_is_refused(value):
    """With its field."""
    with pytest.raises(InvalidSchedule) as caught:
        form.duration("jitter", value)
    assert caught.value.field == "jitter"


def test_a_change_keeps_what_it_does_not_name():
    """Another kind of trigger takes nothing over but the zone; policies that followed follow."""
    daily = Definition(
        name="x",
        actor="a.b",
        trigger=Cron("30 2 * * *", "Europe/Lisbon"),
        arguments={"to": "ada"},
        end=datetime(2030, 1, 1, tzinfo=UTC),
    )
    steady = form.merge(daily, {"cron": "*/15 * * * *"})
    assert steady.trigger == Cron("*/15 * * * *", "Europe/Lisbon")
    assert (steady.arguments, steady.end) == (daily.arguments, daily.end)
    chosen = form.merge(daily, {"doubled": "both"})
    kept = form.merge(chosen, {"cron": "30 1 * * *"})
    assert kept.trigger == Cron("30 1 * * *", "Europe/Lisbon", doubled="both")
    assert form.merge(daily, {"every": "1h"}).trigger == Every(timedelta(hours=1))
    local = form.merge(daily, {"at": "2026-06-01T09:00"})
    assert local.trigger == At(datetime(2026, 6, 1, 8, tzinfo=UTC), "Europe/Lisbon")
    assert form.merge(daily, {"tz": "UTC"}).trigger == Cron("30 2 * * *", "UTC")
    assert form.merge(daily, {"end": None}).end is None
    assert form.merge(daily, {}) == daily
    with pytest.raises(InvalidSchedule, match="it has to be given"):
        form.merge(daily, {"actor": None})
