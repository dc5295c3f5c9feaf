"""The declared servers over HTTP."""

import pytest

from app.api.views.pool import PoolSummary
from tests.fixtures.app import Api, ok, problem
from tests.fixtures.turns import counted_turns


async def test_a_server_shows_its_budget_and_where_its_connections_went(api: Api) -> None:
    await api.value(await api.tenant("acme"), "select 1")
    shown = ok(await api.client.get("/v1/servers/local"))
    assert (shown["name"], shown["host"], shown["state"]) == ("local", "127.0.0.1", "available")
    assert (shown["version"].partition(".")[0], shown["max_connections"]) == ("18", 200)
    budget = shown["budget"]
    assert budget["limit"] + budget["kept_free"] == 200
    assert (budget["used"], budget["contended"]) == (1, False)
    assert shown["pools"] == [
        {
            "pool_id": "acme",
            "state": "ready",
            "pause": None,
            "size": 1,
            "idle": 1,
            "active": 0,
            "waiting": 0,
        }
    ]
    assert shown["last_error"] is None
    assert ok(await api.client.get("/v1/servers")) == {"items": [shown], "next_cursor": None}


@pytest.mark.parametrize("path", ["", "/local"])
async def test_the_event_loop_has_its_turn_while_a_servers_pools_are_shown(
    api: Api, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for number in range(3):
        await api.value(await api.tenant(f"t{number}"), "select 1")
    async with counted_turns() as turns:
        monkeypatch.setattr(PoolSummary, "of", turns.counted(PoolSummary.of))
        ok(await api.client.get(f"/v1/servers{path}"))
    assert (turns.calls, turns.most) == (3, 1)


async def test_nothing_of_the_servers_login_is_shown(api: Api) -> None:
    login = api.service.manager.servers["local"].admins.login
    text = (await api.client.get("/v1/servers/local")).text
    assert login.password not in text
    assert login.user not in text


async def test_a_server_that_is_not_declared_is_not_found(api: Api) -> None:
    for name in ("mars", "LOCAL", "%00", "%E2%80%AE", "a" * 48):
        problem(await api.client.get(f"/v1/servers/{name}"), 404, "server-not-found")
    problem(await api.client.get("/v1/servers/" + "a" * 49), 422, "validation-failed")
