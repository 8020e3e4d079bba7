"""Dead letters for people and programs: bytes as text, with nothing that a terminal would obey."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from leveret.deadletters import wire
from leveret.deadletters.query import History, Letter

__all__ = ["body_document", "body_text", "document", "properties_document", "visible"]

#: Bytes of a body that are shown, unless more are asked for.
SHOWN_BYTES = 16 * 1024
_HEX_BYTES = 512
_HEX_COLUMNS = 16
_KEPT = frozenset("\n\t")
_HIDDEN = frozenset({"Cc", "Cs", "Co", "Cn"})
#: They change the order in which a terminal shows what follows.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """Write control characters, half characters and changes of direction as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in _KEPT
        or (unicodedata.category(character) not in _HIDDEN and character not in _DIRECTIONS)
        else character.encode("unicode_escape", errors="surrogatepass").decode()
        for character in text
    )


def body_text(body: bytes, *, limit: int = SHOWN_BYTES) -> str:
    """Write a body for people: JSON indented, other text as it is, anything else as hex."""
    part = body[:limit]
    try:
        text = part.decode() if len(body) <= limit else _whole_characters(part)
    except UnicodeDecodeError:
        return _ending(_hex_dump(body[:_HEX_BYTES]), len(body), _HEX_BYTES)
    if len(body) <= limit:
        with suppress(ValueError, RecursionError):
            text = json.dumps(_from_json(text), indent=2, ensure_ascii=False)
    return _ending(visible(text), len(body), limit)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what would not show all of an object: it is shown as it was written."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name is given twice")
    return dict(pairs)


_from_json = json.JSONDecoder(object_pairs_hook=_object).decode


def _whole_characters(part: bytes) -> str:
    """Decode a text that was cut, maybe within its last character."""
    for missing in range(4):
        try:
            return part[: len(part) - missing].decode()
        except UnicodeDecodeError as error:
            if error.start < len(part) - 3:
                raise
            last = error
    raise last


def _ending(text: str, size: int, limit: int) -> str:
    return text if size <= limit else f"{text}\n… of {size:,} bytes in all"


def _hex_dump(data: bytes) -> str:
    lines = []
    for start in range(0, len(data), _HEX_COLUMNS):
        row = data[start : start + _HEX_COLUMNS]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:08x}  {row.hex(' '):<{_HEX_COLUMNS * 3}} {text}")
    return "\n".join(lines)


def body_document(body: bytes) -> dict[str, Any]:
    """Write all of a body for programs: as text when it is UTF-8, in base64 when it is not."""
    try:
        return {"bytes": len(body), "encoding": "utf-8", "text": body.decode()}
    except UnicodeDecodeError:
        text = base64.b64encode(body).decode()
        return {"bytes": len(body), "encoding": "base64", "text": text}


def properties_document(properties: bytes) -> dict[str, Any]:
    """Decode properties and headers as far as they can be; what is no text is in base64."""
    try:
        pieces = wire.split(properties)
        headers = wire.split_table(pieces.pop("headers", b"\0\0\0\0"))
    except wire.Malformed as error:
        return {"unreadable": str(error), "raw": base64.b64encode(properties).decode()}
    shown: dict[str, Any] = {}
    for name, raw in pieces.items():
        match name:
            case "delivery_mode" | "priority" | "timestamp":
                shown[name] = int.from_bytes(raw, "big")
            case _:
                shown[name] = _text(raw[1:])
    shown["headers"] = {_text(name): _plain(wire.decode(encoded)) for name, encoded in headers}
    return shown


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def _plain(value: Any) -> Any:
    """Make a header's value fit for JSON."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, bool | str):
        return value
    return int(value) if isinstance(value, int) else str(value)


def document(letter: Letter, history: History) -> dict[str, Any]:
    """Write a dead letter, and all that is known of its job, for programs."""
    shown = asdict(letter)
    for name in ("body", "headers", "properties"):
        del shown[name]
    return {
        **shown,
        "body": body_document(letter.body),
        "properties": properties_document(letter.properties),
        "job": None if history.job is None else asdict(history.job),
        "attempts": [asdict(attempt) for attempt in history.attempts],
        "letters": [asdict(other) for other in history.letters],
        "replays": [
            {**asdict(replay), "selection": replay.selection.to_dict()}
            for replay in history.replays
        ],
        "new_job": None if history.new_job is None else asdict(history.new_job),
    }
