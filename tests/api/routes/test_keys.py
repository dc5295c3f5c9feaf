"""The names of API keys over HTTP, and nothing secret."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.api.auth import authenticator
from tests.fixtures.app import Api, ApiWith, ok, problem
from tests.fixtures.keys import Keyring

URL = "/v1/keys"


async def test_without_keys_the_list_is_empty(api: Api) -> None:
    body = ok(await api.client.get(URL))
    assert (body["required"], body["items"]) == (False, [])


async def test_an_admin_sees_every_keys_name_and_nothing_secret(
    api_with: ApiWith, tmp_path: Path
) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.make("ops")
    keys.make("bound", "read", tenants=("acme",), requests_per_second=7)
    keys.make("bound-admin", "admin", tenants=("acme",))
    keys.make("old", "query", expires_at=datetime.now(UTC) - timedelta(days=1))
    async with api_with(keys_file=keys.path) as api:
        listed = await api.client.get(URL, headers=keys.headers("ops"))
        body = ok(listed)
        for name, code in [("bound", "missing-scope"), ("bound-admin", "bound-to-tenants")]:
            problem(await api.client.get(URL, headers=keys.headers(name)), 403, code)
    assert body["required"] is True
    shown = {key["name"]: key for key in body["items"]}
    assert list(shown) == ["bound", "bound-admin", "old", "ops"]
    assert (shown["bound"]["scopes"], shown["bound"]["tenants"]) == (["read"], ["acme"])
    assert (shown["bound"]["requests_per_second"], shown["ops"]["tenants"]) == (7, None)
    assert {name for name, key in shown.items() if key["expired"]} == {"old"}
    for token in keys.tokens.values():
        _, key_id, secret = token.split("_")
        assert key_id not in listed.text
        assert secret not in listed.text
    assert "sha256" not in listed.text


async def test_who_replaces_a_key_sees_whether_the_old_one_is_still_used(
    api_with: ApiWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.make("ops")
    keys.make("unused")
    keys.make("reader", "read")
    keys.make("old", "read", expires_at=datetime.now(UTC) - timedelta(days=1))
    async with api_with(keys_file=keys.path) as api:

        async def last_uses() -> dict[str, datetime | None]:
            body = ok(await api.client.get(URL, headers=keys.headers("ops")))
            since = datetime.fromisoformat(body["uses_since"])
            shown = {each["name"]: each["last_used_at"] for each in body["items"]}
            found = {name: at and datetime.fromisoformat(at) for name, at in shown.items()}
            assert all(at is None or at >= since for at in found.values())
            return found

        for name in ("reader", "old"):
            await api.client.get("/v1/tenants", headers=keys.headers(name))
        first = await last_uses()
        assert {name for name, at in first.items() if at} == {"ops", "reader"}
        assert (await last_uses())["ops"] == first["ops"]
        monkeypatch.setattr(authenticator, "_USE_PRECISION", 0.0)
        assert (await last_uses())["ops"] != first["ops"]
        api.app.state.authenticator.begin_serving()
        assert (await last_uses())["reader"] is None
