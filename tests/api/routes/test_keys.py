"""The names of API keys over HTTP, and nothing secret."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.fixtures.app import Api, ApiWith, ok, problem
from tests.fixtures.keys import Keyring

URL = "/v1/keys"


async def test_without_keys_the_list_is_empty(api: Api) -> None:
    assert ok(await api.client.get(URL)) == {"required": False, "items": []}


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
