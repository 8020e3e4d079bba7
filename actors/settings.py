"""The settings of the actors: ``LEVERET_*`` variables, read when an actor first needs them.

Each class below is one group. A field's metadata names its variable; the reference page lists the
same fields, and a test compares the two. ``load(Group)`` reads a group from the environment once
per process; ``reset()`` forgets what was read (for tests). Like the library's, a setting that is a
secret may be in the file that its variable with ``_FILE`` behind it names.

Two groups have variables with a name of your choice inside: ``LEVERET_SOURCE_<NAME>_URL`` (see
`source_url`) and ``LEVERET_WEBHOOK_SECRET_<NAME>`` (see `webhook_secrets`).
"""
# ruff: noqa: RUF009 - `_variable` is `dataclasses.field`

from __future__ import annotations

import json
import os
import re
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from actors.error import ActorArgumentError, ActorSettingsError
from leveret.errors import ConfigurationError
from leveret.settings import secret_from

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "EmailSettings",
    "ImageSettings",
    "ReportSettings",
    "StorageSettings",
    "WebhookSettings",
    "load",
    "reset",
    "source_url",
    "webhook_secrets",
]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def _variable(name: str, default: Any, *, secret: bool = False) -> Any:
    return field(default=default, metadata={"variable": name}, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """Where the actors read and write files."""

    #: Root of the storage: a path or an fsspec URL. Nothing outside it is read or written.
    url: str = _variable("LEVERET_STORAGE_URL", "", secret=True)
    #: Protocols that storages and data sources may use.
    protocols: tuple[str, ...] = _variable("LEVERET_STORAGE_PROTOCOLS", ("file", "memory", "s3"))
    #: JSON object of options for the storage's file system, such as an S3 endpoint.
    options: dict[str, Any] | None = _variable("LEVERET_STORAGE_OPTIONS", None, secret=True)


@dataclass(frozen=True, kw_only=True)
class EmailSettings:
    """How mail leaves."""

    #: ``smtps://user:password@host:465`` or ``smtp://user:password@host:587`` (STARTTLS).
    #: ``smtp://host:25?tls=off`` sends in clear text, without login.
    url: str = _variable("LEVERET_SMTP_URL", "", secret=True)
    #: The sender of jobs that name none.
    sender: str = _variable("LEVERET_SMTP_FROM", "")
    #: File of CA certificates to trust instead of the system's.
    ca_file: Path | None = _variable("LEVERET_SMTP_CA_FILE", None)
    #: Seconds that each step of the SMTP dialogue may take.
    timeout_seconds: float = _variable("LEVERET_SMTP_TIMEOUT_SECONDS", 15.0)
    #: Folder of templates that is searched before those in the box.
    templates: Path | None = _variable("LEVERET_EMAIL_TEMPLATES", None)
    #: Limit of all attachments of a mail together, before encoding.
    attachment_bytes: int = _variable("LEVERET_EMAIL_ATTACHMENT_BYTES", 10 * 1024 * 1024)


@dataclass(frozen=True, kw_only=True)
class WebhookSettings:
    """What a webhook may reach, and how long it may take."""

    #: Deliver to private, loopback and link-local addresses too.
    allow_private: bool = _variable("LEVERET_WEBHOOK_ALLOW_PRIVATE", default=False)
    #: Redirects (307 and 308) to follow; 0 refuses them.
    redirects: int = _variable("LEVERET_WEBHOOK_REDIRECTS", 0)
    #: File of CA certificates to trust instead of the usual ones.
    ca_file: Path | None = _variable("LEVERET_WEBHOOK_CA_FILE", None)
    #: Seconds to connect, and between two pieces of the answer.
    timeout_seconds: float = _variable("LEVERET_WEBHOOK_TIMEOUT_SECONDS", 10.0)
    #: Seconds for one delivery with all its redirects.
    total_seconds: float = _variable("LEVERET_WEBHOOK_TOTAL_SECONDS", 30.0)
    #: Bytes of an answer that are read; the rest is left.
    response_bytes: int = _variable("LEVERET_WEBHOOK_RESPONSE_BYTES", 64 * 1024)
    #: A longer ``Retry-After`` is cut to this many seconds.
    retry_after_seconds: float = _variable("LEVERET_WEBHOOK_RETRY_AFTER_SECONDS", 3600.0)


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Where queries come from, and what DuckDB may use."""

    #: Folder of ``.sql`` files that is searched before those in the box.
    queries: Path | None = _variable("LEVERET_QUERIES", None)
    #: Memory of one DuckDB query; beyond it DuckDB spills to disk.
    duckdb_memory: str = _variable("LEVERET_DUCKDB_MEMORY", "512MB")
    #: Threads of one DuckDB query.
    duckdb_threads: int = _variable("LEVERET_DUCKDB_THREADS", 2)
    #: JSON object of options for the file systems of data sources.
    source_options: dict[str, Any] | None = _variable("LEVERET_SOURCE_OPTIONS", None, secret=True)


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How large a picture may be."""

    #: Width times height of a picture that will still be decoded.
    max_pixels: int = _variable("LEVERET_IMAGE_MAX_PIXELS", 50_000_000)
    #: Size of a picture's file.
    max_bytes: int = _variable("LEVERET_IMAGE_MAX_BYTES", 50 * 1024 * 1024)


Group = TypeVar(
    "Group", StorageSettings, EmailSettings, WebhookSettings, ReportSettings, ImageSettings
)


_loaded: dict[type, Any] = {}


def load(group: type[Group], environ: Mapping[str, str] | None = None) -> Group:
    """Read ``group`` from ``environ``; from the process's environment once, then from memory.

    Raises `ActorSettingsError`, naming the variable, when a value cannot be read.
    """
    if environ is not None:
        return _read(group, environ)
    if group not in _loaded:
        _loaded[group] = _read(group, os.environ)
    return cast("Group", _loaded[group])


def reset() -> None:
    """Forget what was read from the environment, so that the next `load` reads it again."""
    _loaded.clear()


def _read(group: type[Group], environ: Mapping[str, str]) -> Group:
    values = {}
    for item in fields(group):
        variable = item.metadata["variable"]
        text = environ.get(variable, "").strip() if item.repr else _secret(environ, variable)
        if text:
            values[item.name] = _value(item, text)
    return group(**values)


def _value(item: Field[Any], text: str) -> Any:
    variable, kind = item.metadata["variable"], str(item.type)
    try:
        return _PARSERS[kind](text)
    except ValueError as error:
        shown = "its value" if not item.repr else repr(text)
        raise ActorSettingsError(f"{variable}: {shown} is not right: {error}") from error


def _flag(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError("say 1 or 0")


def _number(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError("it must be more than 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError("it must not be negative")
    return number


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ValueError("it must be a JSON object")  # noqa: TRY004 - a wrong text, not a wrong type
    return value


_PARSERS: dict[str, Any] = {
    "str": str,
    "bool": _flag,
    "int": _count,
    "float": _number,
    "Path | None": Path,
    "tuple[str, ...]": lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
    "dict[str, Any] | None": _object,
}


def source_url(name: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the URL of the data source ``name``, from ``LEVERET_SOURCE_<NAME>_URL``."""
    _check_name("data source", name)
    variable = f"LEVERET_SOURCE_{name.upper()}_URL"
    url = _secret(os.environ if environ is None else environ, variable)
    if not url:
        raise ActorSettingsError(f"the data source {name!r} is not known here: set {variable}")
    return url


def webhook_secrets(
    name: str | None = None, environ: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return the signing secrets of ``LEVERET_WEBHOOK_SECRET``, or of that with ``_<NAME>``.

    Several, separated by spaces, let receivers move from one to the next; all of them sign.
    """
    variable = "LEVERET_WEBHOOK_SECRET"
    if name is not None:
        _check_name("signing secret", name)
        variable += f"_{name.upper()}"
    secrets = tuple(_secret(os.environ if environ is None else environ, variable).split())
    if not secrets:
        raise ActorSettingsError(f"there is no secret to sign webhooks with: set {variable}")
    return secrets


def _secret(environ: Mapping[str, str], variable: str) -> str:
    try:
        return secret_from(environ, variable)
    except ConfigurationError as error:
        raise ActorSettingsError(str(error)) from error


def _check_name(what: str, name: str) -> None:
    if name == "file":  # LEVERET_WEBHOOK_SECRET_FILE is that of the secret without a name
        raise ActorArgumentError(f"{name!r} cannot name a {what}: take another word")
    if not _NAME.fullmatch(name):
        raise ActorArgumentError(
            f"{name!r} cannot name a {what}: use lower-case letters, digits and underscores"
        )
