"""Which failures are one: a short name for the cause of a dead letter. Pure.

Ten thousand dead letters of one cause are one group. A cause is the actor, the reason, the type of
the exception, its message without what differs from job to job, and the frames of the actor's own
code. Line numbers do not count, so that a deployment does not begin every group anew; neither do
frames of the standard library and of installed packages.
"""

from __future__ import annotations

import re
from hashlib import sha256

__all__ = ["fingerprint", "frames", "normalise"]

_LENGTH = 16
_MAX_TEXT = 2_000
_MAX_FRAMES = 40

_UUID = re.compile(
    r"(?<![0-9a-zA-Z])[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?![0-9a-zA-Z])"
)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s'\"<>]+")
_QUOTED = re.compile(r"\"[^\"\n]*\"|(?<![0-9A-Za-z])'[^'\n]*'(?![0-9A-Za-z])|`[^`\n]*`|«[^»\n]*»")
_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:\\|~?/|\.{1,2}/)[\w.@%+~\\/-]+")
_HEX = re.compile(
    r"(?<![0-9a-zA-Z.])"
    r"(?:0[xX][0-9a-fA-F]+|(?=\d*[a-fA-F])(?=[a-fA-F]*\d)[0-9a-fA-F]{6,})"
    r"(?![0-9a-zA-Z])"
)
_NUMBER = re.compile(r"[-+]?\d+(?:[.,:_]\d+)*(?:[eE][-+]?\d+)?")
_SPACE = re.compile(r"\s+")

_SLASH = re.compile(r"[\\/]")
_FRAME = re.compile(r'^  File "([^"\n]*)", line \d+, in (.+)$', re.MULTILINE)
_NOT_OWN = re.compile(
    r"(?:^|[\\/])(?:site-packages|dist-packages|lib[\\/]python\d|lib64[\\/]python\d)"
)


def normalise(message: str) -> str:
    """Replace what differs from one failure to the next by placeholders."""
    text = message[:_MAX_TEXT]
    text = _UUID.sub("<id>", text)
    text = _URL.sub("<url>", text)
    text = _QUOTED.sub("<text>", text)
    text = _PATH.sub("<path>", text)
    text = _HEX.sub("<n>", text)
    text = _NUMBER.sub("<n>", text)
    return _SPACE.sub(" ", text).strip()


def frames(trace: str) -> list[str]:
    """Return the frames of own code in a traceback, as ``file:function``, outermost first."""
    return [
        f"{_SLASH.split(file)[-1]}:{function.strip()}"
        for file, function in _FRAME.findall(trace)
        if _NOT_OWN.search(file) is None and not file.startswith("<frozen")
    ][-_MAX_FRAMES:]


def fingerprint(
    *,
    actor: str | None,
    reason: str,
    error_type: str | None,
    error: str | None,
    trace: str | None,
) -> str:
    """Name the cause of a failure: 16 hexadecimal digits."""
    parts = [actor or "", reason, error_type or "", normalise(error or ""), *frames(trace or "")]
    text = "\0".join(parts).encode(errors="backslashreplace")
    return sha256(text).hexdigest()[:_LENGTH]
