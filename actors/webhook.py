"""``webhook.deliver``: one signed POST to somebody else's server."""

from __future__ import annotations

import json
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

import httpx
from pydantic import Field, JsonValue

import leveret
from actors.address import PinnedTransport
from actors.error import (
    DEAD_ON,
    RETRY_ON,
    ActorArgumentError,
    ActorSettingsError,
    RefusedError,
    UnavailableError,
)
from actors.job import delivery_key, job_id
from actors.settings import WebhookSettings, load, webhook_secrets
from actors.signature import headers as signed_headers

__all__ = ["deliver", "retry_after_seconds"]

_RETRIED = frozenset({408, 425, 429})
_REPEATING_REDIRECTS = frozenset({307, 308})
_SHOWN = 300


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    headers: httpx.Headers
    body: bytes


@leveret.actor(
    "webhook.deliver",
    queue="default",
    time_limit=timedelta(minutes=1),
    max_retries=10,
    backoff=leveret.Backoff(base=timedelta(seconds=10), cap=timedelta(hours=1)),
    retry_on=RETRY_ON,
    dead_on=DEAD_ON,
)
def deliver(
    *,
    url: Annotated[str, Field(max_length=2000, pattern=r"^https?://")],
    payload: JsonValue,
    secret: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")] | None = None,
) -> dict[str, Any]:
    """POST ``payload`` as JSON to ``url``, signed with the secret of that name (or the default).

    2xx is success. 408, 425, 429, 5xx and network errors are retried, after ``Retry-After`` where
    the answer has it; any other answer is final. ``webhook-id`` is the job's id in every attempt,
    and ``Idempotency-Key`` the job's key, so a receiver can tell a repeated delivery.
    """
    settings = load(WebhookSettings)
    target = _target(url)
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "leveret-webhook/1",
        "Accept-Encoding": "identity",
        "Idempotency-Key": delivery_key(),
        **signed_headers(
            body,
            message_id=job_id(),
            timestamp=int(time.time()),
            secrets=webhook_secrets(secret),
        ),
    }
    try:
        transport = PinnedTransport(
            verify=ssl.create_default_context(cafile=settings.ca_file)
            if settings.ca_file
            else True,
            allow_private=settings.allow_private,
        )
    except OSError as error:
        raise ActorSettingsError(
            f"LEVERET_WEBHOOK_CA_FILE: cannot read {settings.ca_file}: {error}"
        ) from error
    deadline = time.monotonic() + settings.total_seconds
    timeout = {"timeout": httpx.Timeout(settings.timeout_seconds).as_dict()}
    with transport:
        for hop in range(settings.redirects + 1):
            request = httpx.Request(
                "POST", target, content=body, headers=headers, extensions=timeout
            )
            answer = _send(transport, request, deadline=deadline, limit=settings.response_bytes)
            if answer.status not in _REPEATING_REDIRECTS or hop == settings.redirects:
                break
            target = _redirected(target, answer)
    _judge(target, answer, settings.retry_after_seconds)
    return {"status": answer.status}


def _target(url: str) -> httpx.URL:
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ActorArgumentError(f"{url[:_SHOWN]!r} is no URL: {error}") from error
    if target.scheme not in {"http", "https"} or not target.host or "%" in target.host:
        raise ActorArgumentError(f"{url[:_SHOWN]!r} is no http or https URL with a host")
    if target.userinfo:
        raise ActorArgumentError(
            f"the URL for {target.host} holds a login, which would be kept with the job: "
            "receivers check the signature instead"
        )
    return target


def _send(
    transport: PinnedTransport, request: httpx.Request, *, deadline: float, limit: int
) -> _Answer:
    """Send and read at most ``limit`` bytes of the answer, which is not decompressed."""
    try:
        with closing(transport.handle_request(request)) as response:
            content = bytearray()
            for chunk in response.iter_raw():
                content += chunk[: limit - len(content)]
                if len(content) >= limit:
                    break
                if time.monotonic() > deadline:
                    raise UnavailableError(f"{request.url.host} takes too long to answer")
            return _Answer(
                status=response.status_code, headers=response.headers, body=bytes(content)
            )
    except httpx.TransportError as error:
        raise UnavailableError(
            f"{request.url.host} cannot be reached now: {type(error).__name__}: {error}"
        ) from error


def _redirected(target: httpx.URL, answer: _Answer) -> httpx.URL:
    location = answer.headers.get("location", "")
    try:
        further = _target(str(target.join(location)))
    except (httpx.InvalidURL, ActorArgumentError) as error:
        raise RefusedError(f"{target.host} redirects to {location[:_SHOWN]!r}: {error}") from error
    if target.scheme == "https" and further.scheme != "https":
        raise RefusedError(f"{target.host} redirects from https to {further.scheme}")
    return further


def _judge(target: httpx.URL, answer: _Answer, longest: float) -> None:
    if 200 <= answer.status < 300:
        return
    said = answer.body.decode(errors="replace")[:_SHOWN]
    message = f"{target.host} answered {answer.status}: {said!r}"
    if answer.status in _RETRIED or answer.status >= 500:
        wait = retry_after_seconds(answer.headers.get("retry-after"), now=datetime.now(UTC))
        raise UnavailableError(message, retry_after=None if wait is None else min(wait, longest))
    if 300 <= answer.status < 400:
        message += "; redirects of status 307 and 308 are followed up to LEVERET_WEBHOOK_REDIRECTS"
    raise RefusedError(message)


def retry_after_seconds(header: str | None, *, now: datetime) -> float | None:
    """Return the wait that a ``Retry-After`` header asks for, in seconds (RFC 9110, 10.2.3).

    None when there is no header or it can be read neither as seconds nor as a date.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
