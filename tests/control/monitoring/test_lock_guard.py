"""What the lock guard logs of a server whose lock table it cannot read."""

import pytest
from structlog.testing import capture_logs

from app.control.monitoring import lock_guard
from app.control.monitoring.lock_guard import LockGuard
from app.domain.errors import TenantLoginFailed
from app.domain.lock_table import LockTable
from tests.fixtures.control import Control


async def test_the_same_trouble_is_logged_once(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_guard, "_PAUSE", 0.0)
    [server] = control.manager.servers.values()
    guard = LockGuard(server, control.manager, control.audit_outbox, limit=0.5)
    reasons: list[str | None] = ["password", "password", "password", "role", None, "role"]

    async def read(_: float) -> LockTable:
        if (reason := reasons.pop(0)) is not None:
            raise TenantLoginFailed(reason)
        return LockTable(used=0, capacity=1, holders=())

    monkeypatch.setattr(guard._monitor, "read", read)
    with capture_logs() as logged:
        while reasons:
            await guard.run_once()
    told = [each["reason"] for each in logged if each["event"] == "lock table not checked"]
    assert told == ["password", "role", "role"]
    guard.close()
