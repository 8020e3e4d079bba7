"""What runs the commands of the runbooks: it must not let one pass that was not run."""

from __future__ import annotations

import pytest

from tests.support.runbooks import Console, Page, Said

TEXT = """# Runbook: a page

## First

```bash
printf 'queue  ready\\n%s   1\\n' QUEUE   # how long is it?
printf 'said '; printf '%s\\n' \\
  "JOB"
```

```text
what was seen
```

- more

  ```sh
  kubectl -n leveret scale deployment NAME
  ```

## Second

```console
$ printf 'job 12  state\\n%s  dead\\n' 0191f2a0-0000-7000-8000-000000000001
job 7  state
0191f2a0-0000-7000-8000-000000000001  dead
```
"""


@pytest.fixture
def page(tmp_path):
    """Return a page of its own."""
    made = Page("jobs")
    made.path = tmp_path / "page.md"
    made.path.write_text(TEXT)
    return made


@pytest.fixture
def console():
    """Return where commands are run, and a stand-in for kubectl."""
    return Console(environment={}, stand_ins={"kubectl": lambda words: f"{words[-1]} scaled\n"})


def test_a_section_is_run_in_its_order(page, console):
    """Each command with its placeholders filled in; what is no command is left alone."""
    page.walks("First")
    with page.section("First", console) as section:
        table, said = section.run(QUEUE="bulk", JOB="j-1")
        assert table.row("bulk") == {"queue": "bulk", "ready": "1"}
        assert said == "said j-1\n"
        assert section.run(NAME="pool") == ["pool scaled\n"]


def test_a_block_that_was_not_run_fails_its_section(page, console):
    """Or a page would promise what nobody has tried."""
    page.walks("First")
    with (
        pytest.raises(AssertionError, match="not run:"),
        page.section("First", console) as section,
    ):
        section.run(QUEUE="bulk", JOB="j-1")


def test_sections_without_a_test_are_named(page):
    """And a test of a section that is not there is none."""
    page.walks("First")
    assert page.left_out() == ["Second"]
    page.walks("Second")
    assert page.left_out() == []
    with pytest.raises(AssertionError, match="nothing to run"):
        page.walks("Third")


def test_a_placeholder_must_be_filled_in(page, console):
    """A command is never run with a word in capitals that stands for something."""
    page.walks("First")
    with (
        pytest.raises(AssertionError, match=r"nothing is given for \['JOB'\]"),
        page.section("First", console) as section,
    ):
        section.run(QUEUE="bulk")


def test_a_command_that_fails_fails_its_test(page, console):
    """Unless the test says that it may."""
    page.path.write_text("## First\n\n```bash\nfalse\n```\n")
    page.walks("First")
    with (
        pytest.raises(AssertionError, match="false ended with 1"),
        page.section("First", console) as section,
    ):
        section.run()
    with page.section("First", console) as section:
        assert section.run(may_fail=["false"])[0].status == 1


def test_what_was_printed_must_be_what_is_printed(page, console):
    """Ids and numbers may differ, headings may not."""
    page.walks("Second")
    with page.section("Second", console) as section:
        (said,) = section.run(JOB="0191f2a0-0000-7000-8000-000000000002")
        assert said.endswith("2  dead\n")
    page.path.write_text(TEXT.replace("job 7  state", "job 7  status"))
    with (
        pytest.raises(AssertionError, match="line"),
        page.section("Second", console) as section,
    ):
        section.run(JOB="0191f2a0-0000-7000-8000-000000000002")


def test_tables_are_read_by_their_columns():
    """Also where a cell is empty, and where a heading has two words."""
    said = Said("queue  empty in  oldest\nbulk   -         5 s ago\nodd              -      \n")
    assert said.row("bulk") == {"queue": "bulk", "empty in": "-", "oldest": "5 s ago"}
    assert said.row("odd")["empty in"] == ""
