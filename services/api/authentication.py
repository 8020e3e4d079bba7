"""Who calls: keys verified, failures counted, refusals written to the audit log.

A key that was valid is believed for `TRUST_SECONDS`, so that a revocation takes effect within that
time and a busy client does not cost a query for each request. A client that fails too often is
answered 429 without a look at the database, unless it brings a key that has been right before:
who shares an address with an attacker is still served. Refusals are written down, but not each of a
thousand: an attacker fills neither the table nor the memory.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import structlog
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from leveret.store import api_keys, audit_log
from leveret.store.api_keys import Key, Scope
from services.api.failures import FailureLimit, block_of
from services.api.problem import Kind, Problem

__all__ = ["TRUST_SECONDS", "Authenticator", "Refusals"]

log = structlog.get_logger("leveret.api")

T = TypeVar("T")

#: How long a key is believed to be valid after it was looked up.
TRUST_SECONDS = 2.0
_REMEMBERED = 1000
_TOUCH_EVERY = timedelta(minutes=1)
_CHALLENGE = 'Bearer realm="leveret"'


class _Run(Protocol):
    def __call__(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> Awaitable[T]: ...


class Authenticator:
    """Turns an ``Authorization`` header into a key, or raises the `Problem` to answer with."""

    def __init__(self, run: _Run, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._clock = clock
        self._limit = FailureLimit()
        self._refusals = Refusals()
        self._trusted: OrderedDict[bytes, tuple[Key, float]] = OrderedDict()

    async def authenticate(self, authorization: str | None, address: str) -> Key:
        """Return the key of a request; raises a `Problem` of 401 or 429."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        now = self._clock()
        client = block_of(address)
        wait = self._limit.wait_seconds(client, token or None, now)
        if wait > 0:
            raise Problem(
                Kind.TOO_MANY_FAILURES,
                "too many requests without a valid key have come from your address; wait "
                f"{wait:.0f} s",
                headers={"Retry-After": str(max(1, round(wait)))},
            )
        if not token:
            self._limit.failed(client, now)
            raise Problem(
                Kind.NO_KEY,
                "send a key as `Authorization: Bearer lv_…`; `leveret keys create` makes one",
                headers={"WWW-Authenticate": _CHALLENGE},
            )
        key = self._trusted_key(token, now) or await self._look_up(token, now)
        fault = "not a key of this server" if key is None else key.fault(datetime.now(UTC))
        if key is not None and fault is None:
            return key
        self._limit.failed(client, now)
        parts = api_keys.parse(token)
        await self.refused(
            who="anonymous",
            action="authenticate",
            target=parts[0] if parts else None,
            address=address,
            detail={"why": fault},
            anonymous=client,
        )
        raise Problem(
            Kind.BAD_KEY,
            f"the key is {fault}",
            headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
        )

    async def authorize(self, key: Key, scope: Scope, *, action: str, address: str) -> None:
        """Raise a `Problem` of 403 unless the key has the scope."""
        if key.may(scope):
            return
        await self.refused(
            who=f"key:{key.id}",
            action=action,
            target=None,
            address=address,
            detail={"needs": scope},
        )
        raise Problem(
            Kind.MISSING_SCOPE,
            f"this needs the scope {scope!s}, and the key has {', '.join(key.scopes) or 'none'}",
            headers={
                "WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            },
        )

    async def refused(
        self,
        *,
        who: str,
        action: str,
        target: str | None,
        address: str,
        detail: Mapping[str, Any],
        anonymous: str | None = None,
    ) -> None:
        """Write a refusal to the audit log, unless much the same was written a moment ago."""
        times = self._refusals.due(anonymous or who, action, self._clock())
        if not times:
            return
        try:
            await self._run(
                audit_log.record,
                who=who,
                action=action,
                target=target,
                outcome="refused",
                detail={**detail, "times": times},
                address=address,
            )
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("api.audit_failed", action=action, who=who, error=type(error).__name__)

    def _trusted_key(self, token: str, now: float) -> Key | None:
        found = self._trusted.get(_digest(token))
        return found[0] if found is not None and now < found[1] else None

    async def _look_up(self, token: str, now: float) -> Key | None:
        if api_keys.parse(token) is None:
            return None
        key = await self._run(_verified, token)
        if key is None:
            return None
        self._limit.succeeded(token)
        if key.fault(datetime.now(UTC)) is None:
            digest = _digest(token)
            self._trusted[digest] = (key, now + TRUST_SECONDS)
            self._trusted.move_to_end(digest)
            while len(self._trusted) > _REMEMBERED:
                self._trusted.popitem(last=False)
        return key


class Refusals:
    """Says which refusals to write down: one a minute of a kind, so many a minute in all. Pure."""

    def __init__(
        self, *, every_seconds: float = 60.0, most: int = 60, remembered: int = 1000
    ) -> None:
        self._every = every_seconds
        self._most = most
        self._remembered = remembered
        self._written: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._window = (0.0, 0)

    def due(self, who: str, action: str, now: float) -> int:
        """Count a refusal; return 0, or for how many one entry is to be written now."""
        began, count = self._window
        if now - began >= self._every:
            began, count = now, 0
        last, unwritten = self._written.pop((who, action), (None, 0))
        unwritten += 1
        while len(self._written) >= self._remembered:
            self._written.popitem(last=False)
        if (last is not None and now - last < self._every) or count >= self._most:
            self._written[who, action] = (now if last is None else last, unwritten)
            self._window = (began, count)
            return 0
        self._written[who, action] = (now, 0)
        self._window = (began, count + 1)
        return unwritten


def _verified(connection: Connection, token: str) -> Key | None:
    key = api_keys.verify(connection, token)
    now = datetime.now(UTC)
    if (
        key is not None
        and key.fault(now) is None
        and (key.last_used_at is None or now - key.last_used_at > _TOUCH_EVERY)
    ):
        api_keys.touch(connection, key.id)
    return key


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
