"""What is to be done before this tree can be released."""

from __future__ import annotations


def main() -> int:
    """Print it; return 1 when there is something."""
    return 0
