"""The audit log: each event is stored with its change, read newest first, and never altered.

An event is logged, too, once its change is committed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from sqlalchemy import RowMapping, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.catalog.database import Store, after_commit
from app.catalog.tables import events
from app.domain.audit import SERVICE_ACTORS, Actor, AuditEvent, Origin

_log = structlog.get_logger(__name__)


async def record(connection: AsyncConnection, *recorded: AuditEvent) -> None:
    """Store events in the transaction of *connection*, together with their change; log them."""
    await _store(connection, recorded)
    for event in recorded:
        after_commit(connection, partial(log, event))


def log(event: AuditEvent) -> None:
    """Log a change once it is done."""
    _log.info(
        "change applied",
        action=event.action,
        tenant=event.tenant,
        pool=event.pool,
        actor=event.actor.name,
    )


class AuditLog(Store):
    async def append(self, recorded: Sequence[AuditEvent]) -> None:
        """Store events of changes outside the catalog: all or none. They were logged before."""
        async with self._database.transaction() as connection:
            await _store(connection, recorded)

    async def page(
        self,
        *,
        tenant: str | None = None,
        pool: str | None = None,
        action: str | None = None,
        actor: str | None = None,
        origin: Origin | None = None,
        since: datetime | None = None,
        before_id: int | None = None,
        limit: int = 100,
        among: Collection[str] | None = None,
    ) -> tuple[AuditEvent, ...]:
        """Return the events that match all filters, newest first.

        *before_id* is the last event of the previous page; *among* are tenants.
        """
        columns = events.c
        equal = {"tenant": tenant, "pool": pool, "action": action, "actor": actor}
        wanted = [columns[name] == value for name, value in equal.items() if value is not None]
        if origin is not None:
            is_service = columns.actor.in_([each.name for each in SERVICE_ACTORS])
            wanted.append(is_service if origin is Origin.SERVICE else ~is_service)
        if among is not None:
            wanted.append(columns.tenant.in_(among))
        if since is not None:
            wanted.append(columns.at >= since)
        if before_id is not None:
            wanted.append(columns.id < before_id)
        statement = select(events).where(*wanted).order_by(columns.id.desc()).limit(limit)
        return await self._database.load(statement, _event)


async def _store(connection: AsyncConnection, recorded: Sequence[AuditEvent]) -> None:
    if recorded:
        await connection.execute(insert(events), [_values(event) for event in recorded])


def _values(event: AuditEvent) -> Mapping[str, Any]:
    # Not `asdict`, which copies everything in them: hundreds are stored at once.
    values = {each.name: getattr(event, each.name) for each in fields(event) if each.name != "id"}
    return {**values, "actor": event.actor.name, "request_id": event.actor.request_id}


def _event(row: RowMapping) -> AuditEvent:
    values = dict(row)
    actor = Actor(name=values.pop("actor"), request_id=values.pop("request_id"))
    return AuditEvent(actor=actor, **values)
