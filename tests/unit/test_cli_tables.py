"""What `leveret` prints for people."""

from __future__ import annotations

from leveret.cli.common import print_table


def test_brackets_in_a_table_are_text(capsys):
    """An optional argument is shown as `[name]`, and not taken for a style."""
    print_table(("arguments",), [("to, [subject], [bold]",)])
    assert "to, [subject], [bold]" in capsys.readouterr().out
