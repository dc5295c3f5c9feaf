"""Unfinished changes are finished server by server, and no server waits for another."""

import asyncio

import pytest

from app.control import server_queues
from app.control.server_queues import work_off


async def test_no_server_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = asyncio.Event()
    order: list[str] = []

    async def finish(change: str) -> bool:
        if change.startswith("hangs"):
            await ends.wait()
        order.append(change)
        if change == "last":
            ends.set()
        return change != "refused"

    hanging = {f"server {number}": [f"hangs {number}"] for number in range(6)}
    works = {"works": ["first", "refused", "last"]}
    assert await work_off({**hanging, **works}, finish) == 8
    assert order[:3] == ["first", "refused", "last"]

    # One that takes too long is left for the next time, with what it has finished.
    ends.clear()
    monkeypatch.setattr(server_queues, "_SERVER_DEADLINE", 0.01)
    assert await work_off({"slow": ["first", "hangs", "never"]}, finish) == 1
    assert await work_off({}, finish) == 0
