"""What a text takes elsewhere."""

from __future__ import annotations

__all__ = ["bytes_of", "storable"]


def bytes_of(text: str) -> int:
    """Count the bytes that a text takes in UTF-8; 0 when it has no such form."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return 0


def storable(text: str) -> str:
    """Write an id or a key, which may be any string, as PostgreSQL takes it: without U+0000."""
    return text.replace("\0", "\\0") if "\0" in text else text
