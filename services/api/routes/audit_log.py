"""``/v1/audit-log``: who changed what, or tried to."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from leveret.store import audit_log
from leveret.store.api_keys import Scope
from services.api.context import Shared
from services.api.models import AuditLine, AuditPage, AuditQuery
from services.api.problem import answers
from services.api.route import ScopedRoute, needs

__all__ = ["router"]

router = APIRouter(prefix="/v1/audit-log", tags=["keys"], route_class=ScopedRoute)


@router.get("", name="audit.list", openapi_extra=needs(Scope.ADMIN), responses=answers(422))
async def list_entries(wanted: Annotated[AuditQuery, Query()], context: Shared) -> AuditPage:
    """Page through the audit log, the newest entries first."""
    limit = wanted.limit
    found = await context.run(audit_log.entries, before=wanted.before, limit=limit + 1)
    shown = found[:limit]
    return AuditPage(
        entries=[AuditLine(**asdict(entry)) for entry in shown],
        next=shown[-1].id if len(found) > limit else None,
    )
