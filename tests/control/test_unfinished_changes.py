"""Unfinished changes are finished server by server, and no server waits for another."""

import asyncio

import pytest

from app.control import unfinished_changes
from app.control.unfinished_changes import finish_on_servers


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
    assert await finish_on_servers({**hanging, **works}, finish) == 8
    assert order[:3] == ["first", "refused", "last"]

    # One that takes too long is left for the next time, with what it has finished.
    ends.clear()
    monkeypatch.setattr(unfinished_changes, "_SERVER_DEADLINE", 0.01)
    assert await finish_on_servers({"slow": ["first", "hangs", "never"]}, finish) == 1
    assert await finish_on_servers({}, finish) == 0
