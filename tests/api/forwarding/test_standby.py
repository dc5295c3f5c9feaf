"""A standby answers an orchestrator's probes itself, and takes over."""

import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.domain.errors import CatalogInUse
from tests.fixtures.app import Api, ApiWith, ok, serving
from tests.fixtures.keys import Keyring
from tests.fixtures.listening import listening
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually


async def serves(api: Api) -> bool:
    """Whether it is the active instance."""
    return (await api.client.get("/v1/tenants")).status_code == 200


async def test_a_standby_names_the_active_instance_and_takes_over_when_that_ends(
    database: Database,
    catalog_database: Database,
    scrub_roles: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.api.forwarding.forwarder._HOLD", 0.0)  # nobody listens there
    databases = database, catalog_database
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            serving(*databases, tmp_path / "a", advertise_url="http://127.0.0.1:9")
        )
        url = await first.tenant("acme")
        async with serving(*databases, tmp_path / "b", advertise_url="http://b:8080") as second:
            assert ok(await second.client.get("/livez")) == {"status": "alive"}
            for method, path in (("GET", "/v1/tenants"), ("POST", f"{url}/query"), ("GET", "/")):
                refused = await second.client.request(method, path)
                assert refused.headers["retry-after"] == "1"
                problem = ok(refused, 503)
                assert (problem["code"], problem["retryable"]) == ("standby", True)
                assert problem["detail"] == (
                    "This instance is a standby. The active instance is http://127.0.0.1:9."
                    " It cannot be reached from here: Connection refused. Check that it runs, and"
                    " check its POOLKEEPER_ADVERTISE_URL."
                )

            async def is_cut_off() -> bool:
                return (await second.client.get("/readyz")).status_code == 503

            await eventually(is_cut_off)
            check, keys, active = (await second.client.get("/readyz")).json()["checks"]
            assert (keys["name"], keys["required"]) == ("keys", True)
            assert (check["name"], check["required"]) == ("leadership", True)
            assert check["detail"] == "State standby. The active instance is http://127.0.0.1:9."
            assert active == {
                "name": "active_instance",
                "ok": False,
                "required": True,
                "detail": "The active instance is http://127.0.0.1:9. It cannot be reached from"
                " here: Connection refused. Check that it runs, and check its"
                " POOLKEEPER_ADVERTISE_URL.",
            }
            ok(await first.query(url, "SELECT 42"))
            instances = ok(await first.client.get("/v1/instances"))["items"]
            epoch = first.service.election.epoch or 0
            assert [(each["url"], each["state"], each["epoch"]) for each in instances] == [
                ("http://127.0.0.1:9", "active", epoch),
                ("http://b:8080", "standby", None),
            ]
            await stack.aclose()
            await eventually(lambda: serves(second))
            ok(await second.query(url, "SELECT 42"))
            assert (second.service.election.epoch or 0) > epoch > 0


async def test_a_standby_that_cannot_reach_an_active_instance_that_works_is_not_ready(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> None:
    databases = database, catalog_database
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        async with (
            FaultProxy(*listener.getsockname()) as between,
            serving(
                *databases, tmp_path / "a", advertise_url=f"http://127.0.0.1:{between.port}"
            ) as first,
            listening(first.app, listener=listener),
            serving(*databases, tmp_path / "b", advertise_url="http://b:8080") as standby,
        ):

            async def is_ready() -> bool:
                answer = await standby.client.get("/readyz")
                *_, active = answer.json()["checks"]
                assert active["name"] == "active_instance"
                assert answer.status_code == (503 if active["required"] else 200)
                return bool(active["ok"])

            async def is_not_ready() -> bool:
                return (await standby.client.get("/readyz")).status_code == 503

            await eventually(is_ready)
            between.black_hole()
            await eventually(is_not_ready)
            await between.reset()
            await between.pass_through()
            await eventually(is_ready)
            between.refuse()
            await eventually(is_not_ready)


async def test_an_instance_with_other_api_keys_is_not_ready_until_they_are_the_same(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> None:
    databases = database, catalog_database
    first, second = (Keyring(tmp_path / f"{name}.json") for name in ("first", "second"))
    first.make("ops")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with (
            serving(*databases, tmp_path / "a", advertise_url=url, keys_file=first.path) as active,
            listening(active.app, listener=listener),
            serving(
                *databases, tmp_path / "b", advertise_url="http://b:8080", keys_file=second.path
            ) as standby,
        ):
            await same_keys_are_needed(standby, first, second)


async def same_keys_are_needed(standby: Api, first: Keyring, second: Keyring) -> None:
    async def is_refused() -> bool:
        answer = await standby.client.get("/readyz")
        [keys] = [each for each in answer.json()["checks"] if each["name"] == "keys"]
        assert answer.status_code == (200 if keys["ok"] else 503)
        return not keys["ok"]

    async def is_ready() -> bool:
        return not await is_refused()

    await eventually(is_refused)
    second.path.write_text(first.path.read_text())
    await eventually(is_ready)
    checks = ok(await standby.client.get("/readyz", headers=first.headers("ops")))["checks"]
    assert checks[1]["detail"] == "No active instance has others."


async def test_a_service_without_a_url_is_refused_beside_another(
    database: Database,
    catalog_database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.runtime.lifecycle._LOCK_PATIENCE", 0.0)
    databases = database, catalog_database
    async with serving(*databases, tmp_path / "a", advertise_url="http://a:8080"):
        with pytest.raises(CatalogInUse, match=r"in use by poolkeeper .* POOLKEEPER_ADVERTISE_URL"):
            async with serving(*databases, tmp_path / "b"):
                pass


@pytest.mark.parametrize(
    "url", ["http://user:secret@a", "http://a/path", "http://a?query", "ftp://a", "a:8080"]
)
async def test_an_instance_is_named_by_scheme_host_and_port_alone(
    api_with: ApiWith, url: str
) -> None:
    with pytest.raises(ValueError, match="advertise_url"):
        async with api_with(advertise_url=url):
            pass
