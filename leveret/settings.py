"""The settings: environment variables ``LEVERET_*``, read once into one frozen object.

A setting that is a secret may be in a file instead, as Docker and Kubernetes hand secrets out:
``LEVERET_AMQP_URL_FILE`` names the file with what ``LEVERET_AMQP_URL`` would be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from leveret.errors import ConfigurationError
from leveret.names import DEFAULT_QUEUES, is_queue_name

__all__ = ["Settings", "secret_from"]

PREFIX = "LEVERET_"
#: Behind the name of a secret's variable: the file that holds it.
_IN_FILE = "_FILE"


def _text(value: str) -> str:
    return value


def _words(value: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _queues(value: str) -> tuple[str, ...]:
    words = _words(value)
    if not words or len(set(words)) != len(words) or not all(map(is_queue_name, words)):
        raise ValueError(
            "queues separated by commas, each named once, each a lower-case word other than 'any'"
        )
    return words


def _between(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not low <= int(value[:20]) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return read


def _seconds(value: str) -> timedelta:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 1e-6 <= seconds < 1e9:
        raise ValueError("a number of seconds above 0")
    return timedelta(seconds=seconds)


def _term(value: str) -> timedelta:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise ValueError("a number of seconds from 1 to 3600")
    return timedelta(seconds=seconds)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value.lower() not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return value.lower()

    return read


def _truth(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return value.lower() == "true"


def _setting(
    read: Callable[[str], Any], default: Any, description: str, *, secret: bool = False
) -> Any:
    return field(
        default=default, metadata={"read": read, "description": description, "secret": secret}
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set from outside; `from_env` reads it."""

    amqp_url: str | None = _setting(
        _text, None, "RabbitMQ; several URLs with commas are a cluster's nodes", secret=True
    )
    database_url: str | None = _setting(_text, None, "PostgreSQL, or PgBouncer", secret=True)
    database_listen_url: str | None = _setting(
        _text,
        None,
        "PostgreSQL itself, for LISTEN and migrations, when LEVERET_DATABASE_URL is PgBouncer",
        secret=True,
    )
    result_store: str | None = _setting(
        _text,
        None,
        "folder for results too large for the ledger: an fsspec URL; none loses them",
        secret=True,
    )
    outbox_urls: str | None = _setting(
        _text,
        None,
        "databases whose outboxes the relay serves, separated by commas; without it, "
        "LEVERET_DATABASE_URL",
        secret=True,
    )
    outbox_listen_urls: str | None = _setting(
        _text,
        None,
        "one for each of LEVERET_OUTBOX_URLS, for LISTEN, where those are PgBouncer",
        secret=True,
    )
    claims_url: str | None = _setting(
        _text,
        None,
        "PostgreSQL with the effects of jobs that are once, and their claims; by default "
        "LEVERET_DATABASE_URL",
        secret=True,
    )
    claim_lease: timedelta = _setting(  # noqa: RUF009 - timedelta is immutable
        _seconds, timedelta(seconds=30), "seconds until the claim of a dead worker is free"
    )
    claim_keep: timedelta = _setting(  # noqa: RUF009 - timedelta is immutable
        _seconds, timedelta(days=30), "seconds for which it is remembered what was done once"
    )
    scheduler_lease: timedelta = _setting(  # noqa: RUF009 - timedelta is immutable
        _term,
        timedelta(seconds=10),
        "term of the scheduler's lease: seconds until another takes the place of a dead one",
    )
    retention_days: int = _setting(
        _between(1, 36500), 30, "days that ended jobs, their attempts and dead letters are kept"
    )
    housekeeping: bool = _setting(
        _truth,
        default=True,
        description="whether Leveret's own schedules run, such as retention: true or false",
    )
    management_url: str | None = _setting(_text, None, "RabbitMQ's management API", secret=True)
    actors: tuple[str, ...] = _setting(
        _words, ("actors",), "modules that declare the actors a worker runs"
    )
    schedules: tuple[str, ...] = _setting(
        _words, (), "files of schedules, TOML, beside those that are declared next to actors"
    )
    queues: tuple[str, ...] = _setting(_queues, DEFAULT_QUEUES, "the work queues")
    app_id: str | None = _setting(
        _text, None, "name of the publishing service, carried by its jobs"
    )
    publish_timeout: timedelta = _setting(  # noqa: RUF009 - timedelta is immutable
        _seconds, timedelta(seconds=30), "seconds until an unconfirmed publish fails"
    )
    max_body_bytes: int = _setting(_between(1, 128 * 1024**2), 1024 * 1024, "largest body of a job")
    prefetch: int = _setting(
        _between(0, 65535), 0, "deliveries a worker process holds of each queue; 0 adapts it"
    )
    edited_replay: bool = _setting(
        _truth,
        default=False,
        description="whether dead letters may be replayed with other arguments: true or false",
    )
    http_host: str = _setting(_text, "127.0.0.1", "where a process answers health checks")
    http_port: int = _setting(
        _between(0, 65535), 0, "the port of /livez, /readyz and /metrics; 0 for none"
    )
    http_trusted_proxies: tuple[str, ...] = _setting(
        _words, (), "addresses of proxies whose X-Forwarded-For the API believes"
    )
    log_level: str = _setting(
        _one_of("debug", "info", "warning", "error"), "info", "debug, info, warning or error"
    )
    log_format: str = _setting(
        _one_of("auto", "json", "console"), "auto", "json, console, or auto (by terminal)"
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings; raises `ConfigurationError` naming the variable that is wrong."""
        environ = os.environ if environ is None else environ
        values = {}
        for setting in fields(cls):
            variable = PREFIX + setting.name.upper()
            if setting.metadata["secret"]:
                text = secret_from(environ, variable)
            else:
                text = environ.get(variable, "").strip()
            if text:
                try:
                    values[setting.name] = setting.metadata["read"](text)
                except ValueError as error:
                    shown = "…" if setting.metadata["secret"] else repr(text)
                    raise ConfigurationError(f"{variable} is {shown}; it must be {error}") from None
        return cls(**values)

    def require_amqp_url(self) -> str:
        """Return the broker's URL; raises `ConfigurationError` when it is not set."""
        if self.amqp_url is None:
            raise ConfigurationError(
                "LEVERET_AMQP_URL is not set; give the broker's address, such as "
                "amqp://user:password@host:5672/leveret"
            )
        return self.amqp_url

    def require_database_url(self) -> str:
        """Return the database's URL; raises `ConfigurationError` when it is not set."""
        if self.database_url is None:
            raise ConfigurationError(
                "LEVERET_DATABASE_URL is not set; give the database's address, such as "
                "postgresql://user:password@host:5432/leveret"
            )
        return self.database_url

    def require_listen_url(self) -> str:
        """Return the URL for what needs a session of PostgreSQL's own."""
        return self.database_listen_url or self.require_database_url()

    def outboxes(self) -> tuple[tuple[str, str], ...]:
        """Return the databases whose outboxes a relay serves: of each its URL, and for LISTEN.

        Raises `ConfigurationError` when none is set, or not one for LISTEN for each.
        """
        if self.outbox_urls is None:
            return ((self.require_database_url(), self.require_listen_url()),)
        urls = _split_urls(self.outbox_urls)
        listen = urls if self.outbox_listen_urls is None else _split_urls(self.outbox_listen_urls)
        if len(listen) != len(urls):
            raise ConfigurationError(
                f"LEVERET_OUTBOX_LISTEN_URLS has {len(listen)} URLs and LEVERET_OUTBOX_URLS "
                f"{len(urls)}; give one for each, in the same order"
            )
        return tuple(zip(urls, listen, strict=True))

    def masked(self) -> dict[str, str]:
        """Show every variable and its value, secrets masked."""
        shown = {}
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.metadata["secret"] and value is not None:
                value = ",".join(_mask(part) for part in value.split(","))
            elif isinstance(value, tuple):
                value = ",".join(value)
            elif isinstance(value, bool):
                value = str(value).lower()
            elif isinstance(value, timedelta):
                value = f"{value.total_seconds():g}"
            shown[PREFIX + setting.name.upper()] = "" if value is None else str(value)
        return shown


def secret_from(environ: Mapping[str, str], variable: str) -> str:
    """Return the secret in ``variable``, or in the file that ``<variable>_FILE`` names.

    White space around it is dropped; without either it is empty. Raises `ConfigurationError` when
    both are set, or the file cannot be read or is empty.
    """
    text = environ.get(variable, "").strip()
    file = environ.get(variable + _IN_FILE, "").strip()
    if not file:
        return text
    if text:
        raise ConfigurationError(f"{variable} and {variable}{_IN_FILE} are both set; unset one")
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{variable}{_IN_FILE} names {file!r}, which is no text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"{variable}{_IN_FILE} names {file!r}, which cannot be read: {reason}"
        ) from None
    if not text:
        raise ConfigurationError(f"{variable}{_IN_FILE} names {file!r}, which is empty")
    return text


def _split_urls(text: str) -> list[str]:
    """Take a list of URLs apart, at the commas before a scheme."""
    return [url.strip(" ,") for url in re.split(r",(?=\s*[a-z+0-9]+://)", text)]


_PASSWORD = re.compile(r"(password|passwd|pwd|secret|token)=[^&\s]*", re.IGNORECASE)


def _mask(url: str) -> str:
    """Write an address without its password, wherever that stands in it."""
    url = _PASSWORD.sub(r"\1=***", url)
    if "@" not in url:
        return url
    try:
        pieces = urlsplit(url)
        user = pieces.username
    except ValueError:
        user = None
    if user is None or not pieces.netloc.count("@"):
        return "***"  # an address that cannot be taken apart may have its password anywhere
    if pieces.password is None:
        return url
    where = pieces.netloc.rpartition("@")[2]
    return urlunsplit(pieces._replace(netloc=f"{user}:***@{where}"))
