"""``/v1/keys``: who may use this API."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from sqlalchemy.engine import Connection

from leveret.errors import ConfigurationError
from leveret.store import api_keys, audit_log
from leveret.store.api_keys import Key, Scope
from services.api.context import Caller, Shared, caller_of
from services.api.models import KeyInfo, KeyList, NewKey, NewKeyAnswer
from services.api.problem import Kind, Problem, answers
from services.api.route import ScopedRoute, needs

__all__ = ["router"]

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=ScopedRoute)

Who = Annotated[Caller, Depends(caller_of)]


@router.get("", name="key.list", openapi_extra=needs(Scope.ADMIN))
async def list_keys(context: Shared) -> KeyList:
    """List all keys, without their secrets."""
    return KeyList(keys=[_info(key) for key in await context.run(api_keys.listing)])


@router.post(
    "",
    name="key.create",
    status_code=201,
    openapi_extra=needs(Scope.ADMIN),
    responses=answers(400, 413, 415, 422),
)
async def create_key(wanted: NewKey, context: Shared, caller: Who) -> NewKeyAnswer:
    """Make a key. Its `token` is in this answer and nowhere else, ever."""
    try:
        key, token = await context.run(_create, wanted, caller)
    except ConfigurationError as error:
        raise Problem(Kind.INVALID, str(error)) from None
    return NewKeyAnswer(key=_info(key), token=token)


@router.delete(
    "/{key_id}", name="key.revoke", openapi_extra=needs(Scope.ADMIN), responses=answers(404, 422)
)
async def revoke_key(key_id: str, context: Shared, caller: Who) -> KeyInfo:
    """Revoke a key, for good; it is refused within two seconds. It stays in the list."""
    key = await context.run(_revoke, key_id, caller) if key_id.isalnum() else None
    if key is None:
        raise Problem(Kind.NOT_FOUND, f"there is no key {key_id[:200]!r}")
    return _info(key)


def _create(connection: Connection, wanted: NewKey, caller: Caller) -> tuple[Key, str]:
    key, token = api_keys.create(
        connection,
        name=wanted.name,
        scopes=wanted.scopes,
        created_by=caller.who,
        expires_at=wanted.expires_at,
    )
    audit_log.record(
        connection,
        who=caller.who,
        action="key.create",
        target=key.id,
        detail={"name": key.name, "scopes": list(key.scopes)},
        address=caller.address,
    )
    return key, token


def _revoke(connection: Connection, key_id: str, caller: Caller) -> Key | None:
    key = api_keys.revoke(connection, key_id)
    if key is not None:
        audit_log.record(
            connection,
            who=caller.who,
            action="key.revoke",
            target=key.id,
            address=caller.address,
        )
    return key


def _info(key: Key) -> KeyInfo:
    return KeyInfo(**asdict(key), state=key.fault(datetime.now(UTC)) or "valid")
