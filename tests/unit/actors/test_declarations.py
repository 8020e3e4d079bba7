"""What the actors declare: their arguments, and the reference page that describes them."""

import inspect
import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

import actors
from actors import settings
from leveret.arguments import Signature
from leveret.errors import InvalidJob

ACTORS = {each.actor_name: each for each in (getattr(actors, name) for name in actors.__all__)}
PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "actors.md").read_text()
GROUPS = (
    settings.StorageSettings,
    settings.EmailSettings,
    settings.WebhookSettings,
    settings.ReportSettings,
    settings.ImageSettings,
)

GOOD = {
    "data.aggregate": {"source": "flights", "group_by": ["carrier"], "measures": ["p95:delay"]},
    "email.send": {"to": "a@example.com", "subject": "Hi", "text": "x"},
    "image.resize": {"image": "a.jpg", "sizes": ["64x64"]},
    "report.generate": {"query": "a/b", "source": "flights", "parameters": {"day": 1, "x": None}},
    "storage.cleanup": {"prefix": "reports", "older_than": "P30D"},
    "webhook.deliver": {"url": "https://example.com/", "payload": {"a": [1, None]}},
}


def check(name, arguments):
    """Validate a job's arguments as a worker does, and return them."""
    return Signature(ACTORS[name].fn, name).check((), arguments)[1]


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_good_job_is_taken_and_an_unknown_argument_is_not(name):
    """Each actor has a schema, and a slip in an argument's name is not ignored."""
    assert check(name, GOOD[name]).keys() == GOOD[name].keys()
    with pytest.raises(InvalidJob, match="surplus"):
        check(name, {**GOOD[name], "surplus": 1})


def test_json_becomes_what_the_function_asks_for():
    """An age is a timedelta, and numbers and booleans keep their type as parameters."""
    assert check("storage.cleanup", GOOD["storage.cleanup"])["older_than"] == timedelta(days=30)
    assert check("storage.cleanup", {"prefix": "a", "older_than": 90})["older_than"] == timedelta(
        seconds=90
    )
    given = {"a": 1, "b": "1", "c": 1.5, "d": True, "e": None}
    taken = check("report.generate", {**GOOD["report.generate"], "parameters": given})
    assert {name: (type(value), value) for name, value in taken["parameters"].items()} == {
        name: (type(value), value) for name, value in given.items()
    }


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("email.send", {"to": "nobody"}),
        ("email.send", {"to": []}),
        ("email.send", {"to": ["a@example.com"] * 51}),
        ("email.send", {"to": "a@example.com\r\nBcc: b@example.com"}),
        ("email.send", {"subject": "Hi\r\nBcc: b@example.com"}),
        ("email.send", {"subject": ""}),
        ("email.send", {"text": "x" * 500_001}),
        ("email.send", {"template": "../secret"}),
        ("webhook.deliver", {"url": "file:///etc/passwd"}),
        ("webhook.deliver", {"url": "https://" + "a" * 2000}),
        ("webhook.deliver", {"secret": "../X"}),
        ("report.generate", {"source": "Flights"}),
        ("report.generate", {"format": "exe"}),
        ("report.generate", {"parameters": {"a": [1]}}),
        ("image.resize", {"sizes": []}),
        ("image.resize", {"sizes": ["0x1"]}),
        ("image.resize", {"sizes": ["64x64\n"]}),
        ("image.resize", {"format": "svg"}),
        ("data.aggregate", {"measures": []}),
        ("data.aggregate", {"measures": ["sum"]}),
        ("data.aggregate", {"group_by": ["a"] * 21}),
        ("storage.cleanup", {"prefix": ""}),
        ("storage.cleanup", {"older_than": 0}),
        ("storage.cleanup", {"older_than": "-P1D"}),
        ("storage.cleanup", {"max_count": 0}),
    ],
)
def test_an_argument_out_of_bounds_is_refused_before_the_run(name, changed):
    """Limits stand in the annotations, so a publisher can know them."""
    with pytest.raises(InvalidJob, match=next(iter(changed))):
        check(name, {**GOOD[name], **changed})


def spell(duration):
    """Write a duration as the reference page does."""
    for unit, name in ((3600, "h"), (60, "min"), (1, "s")):
        if duration.total_seconds() % unit == 0:
            return f"{duration.total_seconds() / unit:g} {name}"
    raise AssertionError(duration)


@pytest.mark.parametrize("name", sorted(ACTORS))
def test_the_reference_says_what_the_actor_declares(name):
    """Queue, limits, retries and the names of the arguments on the page are those of the code."""
    actor = ACTORS[name]
    backoff = actor.options["backoff"]
    row = (
        f"| `{name}` | `{actor.queue_name}` | {spell(actor.options['time_limit'])} "
        f"| {actor.options['max_retries']} "
        f"| {spell(backoff.base)}, doubling to {spell(backoff.cap)} |"
    )
    assert row in PAGE
    section = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
    described = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert described == list(inspect.signature(actor.fn).parameters)


def test_the_reference_lists_every_setting_with_its_default():
    """No variable is missing on the page, none is invented, and the defaults are right."""
    described = dict(re.findall(r"^\| `(LEVERET_\S+)` \| (.*?)\|", PAGE, re.MULTILINE))
    expected = {}
    for group in GROUPS:
        for field in fields(group):
            value = field.default
            if isinstance(value, tuple):
                text = ",".join(value)
            elif isinstance(value, bool):
                text = str(int(value))
            elif isinstance(value, float):
                text = f"{value:g}"
            else:
                text = "" if value is None else str(value)
            expected[field.metadata["variable"]] = f"`{text}`" if text else ""
    named = {
        "LEVERET_WEBHOOK_SECRET",
        "LEVERET_WEBHOOK_SECRET_<NAME>",
        "LEVERET_SOURCE_<NAME>_URL",
    }
    assert described.keys() - named == expected.keys()
    assert {name: described[name].strip() for name in expected} == expected


def test_the_catalogue_and_templates_on_the_page_are_those_in_the_box():
    """What the page says is in the box can be used."""
    root = Path(actors.__file__).parent
    for query in (root / "queries").rglob("*.sql"):
        assert f"`{query.relative_to(root / 'queries').with_suffix('')}`" in PAGE
    for template in (root / "templates").iterdir():
        assert f"`{template.name.partition('.')[0]}`" in PAGE
