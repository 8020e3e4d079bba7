"""What can keep the demonstration from running."""

from __future__ import annotations


class DemoError(Exception):
    """The demonstration cannot run; the message names the remedy."""
