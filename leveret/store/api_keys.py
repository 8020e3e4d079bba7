"""Keys to the HTTP API.

A key is ``lv_<id>_<secret>``. The secret has 256 random bits and is shown once, when the key is
made; the table has its SHA-256 alone (a slow hash protects guessable secrets, and this is none).
What a key may do is its scopes:

===========  ===================================================================================
``publish``  publish jobs, and see what became of the publishing; reads nothing else
``read``     see jobs with their arguments and results, dead letters, queues, workers, actors
``operate``  cancel, retry, replay, discard; includes ``read``
``admin``    make, list and revoke keys, read the audit log; includes ``operate``
===========  ===================================================================================

No scope includes ``publish``, so that who watches over jobs cannot make new ones unless told to.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection, RowMapping

from leveret.errors import ConfigurationError
from leveret.store.schema import ApiKey

__all__ = ["Key", "Scope", "create", "find", "listing", "parse", "revoke", "touch", "verify"]

_TOKEN = re.compile(r"lv_([0-9a-f]{12})_([0-9a-f]{64})")
_LONGEST_NAME = 100


class Scope(StrEnum):
    """What a key may do."""

    PUBLISH = "publish"
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


_INCLUDES: Mapping[Scope, frozenset[Scope]] = {
    Scope.PUBLISH: frozenset({Scope.PUBLISH}),
    Scope.READ: frozenset({Scope.READ}),
    Scope.OPERATE: frozenset({Scope.OPERATE, Scope.READ}),
    Scope.ADMIN: frozenset({Scope.ADMIN, Scope.OPERATE, Scope.READ}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A key, as far as it is known: everything but its secret."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def may(self, scope: Scope) -> bool:
        """Tell whether its scopes include this one."""
        return any(scope in _INCLUDES[own] for own in self.scopes)

    def fault(self, now: datetime) -> str | None:
        """Say why it is not valid any more: revoked or expired; None while it is."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return None


def create(
    connection: Connection,
    *,
    name: str,
    scopes: Collection[Scope | str],
    created_by: str,
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    """Make a key; return it, and the one time that it can be seen, the whole of it.

    Raises `ConfigurationError` for a name, a scope or an expiry that makes no sense.
    """
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ConfigurationError(
            f"a key's name has 1 to {_LONGEST_NAME} printable characters, not {name[:200]!r}"
        )
    try:
        wanted = tuple(scope for scope in Scope if scope in {Scope(word) for word in scopes})
    except ValueError:
        wanted = ()
    if not wanted:
        raise ConfigurationError(
            f"a key's scopes are some of {', '.join(Scope)}, not {', '.join(scopes) or 'none'}"
        )
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise ConfigurationError(f"the key would have expired at {expires_at}, before it is made")
    key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    row = connection.execute(
        insert(ApiKey)
        .values(
            id=key_id,
            name=name,
            hash=_digest(secret),
            scopes=list(wanted),
            created_by=created_by,
            expires_at=expires_at,
        )
        .returning(*_COLUMNS)
    )
    return _key(row.mappings().one()), f"lv_{key_id}_{secret}"


def listing(connection: Connection) -> list[Key]:
    """Return all keys, the newest first; the revoked and the expired, too."""
    rows = connection.execute(select(*_COLUMNS).order_by(ApiKey.created_at.desc(), ApiKey.id))
    return [_key(row) for row in rows.mappings()]


def find(connection: Connection, key_id: str) -> Key | None:
    """Return a key; None when there is none of that id."""
    row = connection.execute(select(*_COLUMNS).where(ApiKey.id == key_id)).mappings().first()
    return None if row is None else _key(row)


def revoke(connection: Connection, key_id: str) -> Key | None:
    """End a key's validity; return it, or None when there is none. Twice is harmless."""
    row = (
        connection.execute(
            update(ApiKey)
            .where(ApiKey.id == key_id)
            .values(revoked_at=func.coalesce(ApiKey.revoked_at, func.now()))
            .returning(*_COLUMNS)
        )
        .mappings()
        .first()
    )
    return None if row is None else _key(row)


def parse(token: str) -> tuple[str, str] | None:
    """Take a key apart into its id and its secret; None for what is no key."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else (match[1], match[2])


def verify(connection: Connection, token: str) -> Key | None:
    """Return the key that a token is; None when there is none, or its secret is another.

    Whether it is still valid is for the caller to ask (`Key.fault`). Takes as long for a wrong
    secret as for the right one.
    """
    parts = parse(token)
    if parts is None:
        return None
    key_id, secret = parts
    row = connection.execute(select(*_COLUMNS, ApiKey.hash).where(ApiKey.id == key_id)).mappings()
    found = row.first()
    stored = bytes(32) if found is None else bytes(found["hash"])
    if not hmac.compare_digest(_digest(secret), stored) or found is None:
        return None
    return _key(found)


def touch(connection: Connection, key_id: str) -> None:
    """Take note that a key is in use."""
    connection.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=func.now()))


_COLUMNS = (
    ApiKey.id,
    ApiKey.name,
    ApiKey.scopes,
    ApiKey.created_at,
    ApiKey.created_by,
    ApiKey.expires_at,
    ApiKey.revoked_at,
    ApiKey.last_used_at,
)


def _key(row: RowMapping) -> Key:
    fields = {column.key: row[column.key] for column in _COLUMNS}
    # A scope of a later release means nothing here.
    known = tuple(Scope(word) for word in fields.pop("scopes") if word in set(Scope))
    return Key(scopes=known, **fields)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
