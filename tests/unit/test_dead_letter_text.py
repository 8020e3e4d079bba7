"""Dead letters as text: readable, whole, and harmless to a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.deadletters.text import body_document, body_text, properties_document, visible
from tests.support.letters import wire


@given(st.text())
def test_what_is_shown_has_nothing_that_a_terminal_would_obey(text):
    """And words stay as they are."""
    shown = visible(text)
    for character in shown:
        assert character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cs"}
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 世界 👩‍🚀", "Grüße, 世界 👩‍🚀"),
        ("a\x1b[31mred\x07", "a\\x1b[31mred\\x07"),
        ("nul\0", "nul\\x00"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_control_characters_are_escapes(text, shown):
    """U+0000, escape sequences, and what turns a line around."""
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"b":1,"a":"\xc3\xbc"}', '{\n  "b": 1,\n  "a": "ü"\n}'),
        (b'{"n":1,"n":2}', '{"n":1,"n":2}'),
        (b'{"n":', '{"n":'),
        (b"", ""),
        (b'{"a":"\\u0000\\u001b"}', '{\n  "a": "\\u0000\\u001b"\n}'),
        (b"[" * 100_000, None),
    ],
)
def test_a_body_is_shown_as_what_it_is(body, shown):
    """JSON is indented unless that would hide something of it."""
    found = body_text(body, limit=200_000)
    assert found == (body.decode() if shown is None else shown)


def test_bytes_are_shown_in_hexadecimal():
    """With their text beside them."""
    assert body_text(b"\xff\xfeab\n") == f"00000000  {'ff fe 61 62 0a':<48} ..ab."


def test_a_huge_body_is_cut_and_says_so():
    """Between characters."""
    body = ("é" * 600_000).encode()
    shown = body_text(body, limit=1001)
    assert shown == "é" * 500 + "\n… of 1,200,000 bytes in all"
    assert body_text(b"\xff" * 2**20).endswith("… of 1,048,576 bytes in all")


@given(st.binary(max_size=300))
def test_programs_get_all_bytes_of_a_body(body):
    """In JSON, whatever they are."""
    document = json.loads(json.dumps(body_document(body)))
    assert document["bytes"] == len(body)
    if document["encoding"] == "utf-8":
        assert document["text"].encode() == body


@given(st.binary(max_size=100))
def test_any_properties_can_be_shown(raw):
    """Even those that cannot be read."""
    assert json.dumps(properties_document(raw))


def test_properties_and_headers_are_shown_by_name():
    """With what the broker has written, such as x-death."""
    shown = properties_document(
        wire(
            message_id="job-1",
            priority=3,
            timestamp=1_700_000_000,
            headers={"x-death": [{"count": 2, "queue": "leveret.default"}], "raw": b"\xff"},
        )
    )
    assert shown == {
        "message_id": "job-1",
        "priority": 3,
        "timestamp": 1_700_000_000,
        "headers": {"x-death": [{"count": 2, "queue": "leveret.default"}], "raw": "/w=="},
    }
