"""The pages are true: generated ones are fresh, links lead somewhere, tables are complete."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest

from docs.tools import generate
from leveret import asyncapi, names, wheel
from leveret.arguments import Signature
from leveret.broker import LeveretBroker
from leveret.message import Reason
from tests.support import clients
from tests.support.pages import ROOT
from tests.support.processes import bare_environment

PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
#: Where the pages may link to beside this tree.
_ELSEWHERE = ("https://", "http://")


def prose(page: str) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", (ROOT / page).read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Markdown viewers make them."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_generated_pages_are_fresh():
    """What follows from the code is what stands in the pages; `make docs` writes it anew."""
    stale = [
        path.relative_to(ROOT).as_posix()
        for path, wanted in generate.pages().items()
        if not path.exists() or path.read_text() != wanted
    ]
    assert not stale, f"stale: {', '.join(stale)}; run `make docs`"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Every link within the tree names a file that exists, and a heading that it has."""
    for link in _LINK.findall(prose(page)):
        if link.startswith(_ELSEWHERE):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page} links to {link}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_every_page_can_be_found(page):
    """Some other page links to it, so that nobody has to list the folder."""
    linked = {
        ((ROOT / other).parent / link.partition("#")[0]).resolve()
        for other in PAGES
        if other != page
        for link in _LINK.findall(prose(other))
        if not link.startswith(_ELSEWHERE)
    }
    assert (ROOT / page).resolve() in linked


def test_every_reason_of_a_dead_letter_is_explained():
    """The wire contract's table has each reason that the code knows, and no other."""
    section = prose("docs/reference/wire-contract.md").partition("## Dead letters")[2]
    table = section.partition("| reason |")[2]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", table, re.MULTILINE)) == set(Reason)


def test_the_worked_delays_are_right():
    """Units, base-16 number and digits of the examples belong together."""
    page = (ROOT / "docs/reference/wire-contract.md").read_text()
    worked = re.findall(
        r"^(\S+) (\w+) += ([\d,]+)(?: units)? += 0x([0-9a-f]+) +-> +([0-9a-f.]+)\.any\.",
        page,
        re.MULTILINE,
    )
    seconds = {"s": 1, "h": 3600, "days": 86_400}
    assert len(worked) == 3
    for number, unit, units, written, digits in worked:
        delay = timedelta(seconds=float(number) * seconds[unit])
        assert wheel.units_of(delay) == int(units.replace(",", "")) == int(written, 16)
        assert wheel.delayed_key(delay, "any.email.send") == f"{digits}.any.email.send"


@pytest.mark.parametrize("page", PAGES)
def test_paths_into_the_tree_exist(page):
    """A path that a page names in its own words leads to a file or folder of this tree."""
    folders = "actors|compose|docs|k8s|leveret|scheduler|services|tests"
    for path in re.findall(rf"`((?:{folders})/[\w/.-]*)`", prose(page)):
        assert (ROOT / path).exists(), f"{page} names {path}"


# ----------------------------------------------------------------------------------------- AsyncAPI


@pytest.mark.timeout(300)  # its schema may have to be installed first
def test_the_committed_contract_is_valid_asyncapi():
    """The AsyncAPI initiative's own schema accepts the document."""
    modules = clients.npm("@asyncapi/specs@6")
    schema = json.loads((modules / "@asyncapi/specs/schemas/3.0.0.json").read_text())
    document = json.loads((ROOT / "docs/reference/asyncapi.json").read_text())
    errors = jsonschema.Draft7Validator(schema).iter_errors(document)
    assert [f"{error.json_path}: {error.message[:200]}" for error in errors] == []


def test_the_command_prints_the_committed_contract():
    """`leveret asyncapi` prints what stands in the reference."""
    environment = bare_environment()
    done = subprocess.run(
        [sys.executable, "-c", "from leveret.cli import main; main()", "asyncapi"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == (ROOT / "docs/reference/asyncapi.json").read_text()


def test_every_reference_in_the_contract_resolves():
    """Each `$ref` leads to something within the document."""
    document = json.loads((ROOT / "docs/reference/asyncapi.json").read_text())
    found = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert found
    for reference in found:
        place = document
        for word in reference.split("/"):
            assert word in place, reference
            place = place[word]


def test_a_model_within_the_arguments_is_a_schema_of_its_own():
    """Definitions move under the actor's name, references follow, and job data validates."""
    arguments = {
        "type": "object",
        "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}}},
        "required": ["lines"],
        "$defs": {
            "Line": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Line"}}},
        },
    }
    actor = asyncapi.Described(name="order.pack", queue="default", arguments=arguments)
    document = asyncapi.document([actor], names.DEFAULT_QUEUES)
    schemas = document["components"]["schemas"]
    assert set(schemas) == {"order.pack", "order.pack.Line"}
    whole = {**document, "$ref": "#/components/schemas/order.pack"}
    validator = jsonschema.Draft202012Validator(whole)
    assert validator.is_valid({"lines": [{"next": {"next": {}}}]})
    assert not validator.is_valid({"lines": [{"next": 3}]})


def test_the_contract_describes_what_the_worker_checks():
    """A declared actor's schema, address and queue are in the document as they are declared."""
    broker = LeveretBroker()

    @generate_actor(broker)
    def pack(number: int, label: str = "plain") -> None:
        """Pack an order."""

    document = asyncapi.document(asyncapi.describe(broker), ("default", "slow"))
    assert (
        document["components"]["schemas"]["order.pack"]
        == Signature(pack.fn, "order.pack").json_schema()
    )
    channel = document["channels"]["order.pack.later"]
    assert channel["address"] == "{delay}.{pool}.order.pack"
    assert channel["parameters"]["pool"]["enum"] == ["any", "default", "slow"]
    assert document["operations"]["order.pack"]["summary"] == "Pack an order."


def generate_actor(broker):
    """Return the decorator that declares `order.pack` on a broker of the test's own."""
    import leveret  # noqa: PLC0415 - the module under test is all that the others need

    return leveret.actor("order.pack", queue="slow", broker=broker)


# ------------------------------------------------------------------------------------------- README


def test_the_readme_names_targets_that_exist():
    """Every `make` target in README and CONTRIBUTING is one of the Makefile's."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(
            re.findall(r"(?:^ *|`)make ([a-z0-9-]+)", (ROOT / page).read_text(), re.MULTILINE)
        )
        assert named <= targets, page


PROOFS = re.findall(r'`make test ARGS="([^"]+)"`', (ROOT / "README.md").read_text())


@pytest.mark.parametrize("arguments", PROOFS)
def test_the_proofs_in_the_readme_are_tests(arguments):
    """Each word by which the README selects a proof is in the name of a test of that folder."""
    folder, _, words = shlex.split(arguments)
    names_ = [
        f"{path.name}::{name}"
        for path in (ROOT / folder).rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    ]
    for word in words.split(" or "):
        assert any(word in name for name in names_), f"no test in {folder} has {word!r} in its name"


def test_the_readme_knows_every_supported_python():
    """The README's lowest Python is the one that the package asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = project["requires-python"].removeprefix(">=")
    assert f"Python {lowest}" in (ROOT / "README.md").read_text()
