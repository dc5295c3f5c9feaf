"""Sessions of deleted tenants end, wherever they come from; no others do."""

from dataclasses import replace

import asyncpg
import pytest

from app.pools import left_sessions
from app.pools.left_sessions import LeftSessions
from tests.fixtures.control import PERSON, Control, spec_of
from tests.fixtures.pools import ROLE_PASSWORDS
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


async def test_sessions_of_a_deleted_tenant_end_after_a_while_and_no_others_do(
    control: Control, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those on a node that has not heard of the deletion."""
    left = LeftSessions(control.manager)
    sessions: dict[str, asyncpg.Connection] = {}
    for name in ("gone", "again", "kept", "locked", "elsewhere"):
        await control.tenant(name)
        password = ROLE_PASSWORDS.password("local", f"tenant_{name}")
        sessions[name] = await replace(database, user=f"tenant_{name}", password=password).connect()
    try:
        for name in ("gone", "again"):
            await control.deletions.delete(control.state(name), PERSON, deadline=0)
        await control.declare(spec_of("again"))
        # One is a tenant of another installation on the same server.
        control.manager.tenants.forget("elsewhere")
        async with database.connected() as admin:
            await admin.execute("ALTER ROLE tenant_locked NOLOGIN")
            await admin.execute("ALTER ROLE tenant_elsewhere NOLOGIN")
        await left.run_once()
        assert await sessions["gone"].fetchval("SELECT 42") == 42, "a transaction may still end"
        monkeypatch.setattr(left_sessions, "_GRACE", 0.0)
        await left.run_once()
        await eventually(lambda: sessions["gone"].is_closed() and sessions["again"].is_closed())
        for name in ("kept", "locked", "elsewhere"):
            assert await sessions[name].fetchval("SELECT 42") == 42
    finally:
        for session in sessions.values():
            session.terminate()
