"""What `leveret` prints for people."""

from __future__ import annotations

import pytest

from leveret.cli.common import print_table
from leveret.cli.queues import drains_in


def test_brackets_in_a_table_are_text(capsys):
    """An optional argument is shown as `[name]`, and not taken for a style."""
    print_table(("arguments",), [("to, [subject], [bold]",)])
    assert "to, [subject], [bold]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("messages", "consumers", "publish_rate", "ack_rate", "seconds"),
    [
        (0, 1, 5.0, 0.0, 0.0),
        (100, 1, 0.0, 10.0, 10.0),
        (100, 1, 8.0, 10.0, 50.0),
        (100, 1, 10.0, 10.0, None),
        (100, 1, 0.0, 0.0, None),
        (100, 0, 0.0, 10.0, None),
    ],
)
def test_a_queue_is_empty_when_more_goes_out_than_comes_in(
    messages, consumers, publish_rate, ack_rate, seconds
):
    """And never, when it does not."""
    rates = {"publish_rate": publish_rate, "ack_rate": ack_rate}
    assert drains_in(messages, consumers=consumers, **rates) == seconds
