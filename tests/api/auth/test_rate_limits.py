"""Rate limits: of a key's requests, and of failures from an address without a key."""

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.api.auth.authenticator import Authenticator
from app.api.auth.key_file import KeyFile
from app.api.auth.rate_limits import RateLimits
from app.main import create_app
from app.settings import Settings
from tests.fixtures.app import problem
from tests.fixtures.keys import Keyring, bearer

# Refused for its body, so that no service is needed; so it passed the rate limit.
ASK = "/v1/advisor/evaluate"


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys.json")


@pytest.fixture
def app(keys: Keyring) -> FastAPI:
    """An application without a service, whose keys may send four requests a second."""
    app = create_app(Settings.model_construct())
    app.state.authenticator = Authenticator(KeyFile(keys.path, required=True), RateLimits(4))
    return app


def client(app: FastAPI, address: str = "192.0.2.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.auth.rate_limits.monotonic", lambda: 1000.0)


async def test_a_key_above_its_rate_learns_when_to_retry(
    app: FastAPI, keys: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.make("eager")
    keys.make("other")
    async with client(app) as see:
        for _ in range(4):
            assert (await see.post(ASK, headers=keys.headers("eager"))).status_code == 422
        refused = await see.post(ASK, headers=keys.headers("eager"))
        assert problem(refused, 429, "too-many-requests")["retryable"]
        assert refused.headers["retry-after"] == "1"
        assert (await see.post(ASK, headers=keys.headers("other"))).status_code == 422
        monkeypatch.setattr("app.api.auth.rate_limits.monotonic", lambda: 1000.25)
        assert (await see.post(ASK, headers=keys.headers("eager"))).status_code == 422
        assert (await see.post(ASK, headers=keys.headers("eager"))).status_code == 429
    assert app.state.authenticator.rate_limited == {"key": 2}


async def test_a_key_can_have_its_own_limit(app: FastAPI, keys: Keyring) -> None:
    keys.make("slow", requests_per_second=1)
    async with client(app) as see:
        answers = [await see.post(ASK, headers=keys.headers("slow")) for _ in range(2)]
    assert [response.status_code for response in answers] == [422, 429]


async def test_open_paths_have_no_rate_limit(app: FastAPI, keys: Keyring) -> None:
    keys.make("slow", requests_per_second=1)
    async with client(app) as see:
        for _ in range(5):
            assert (await see.get("/livez", headers=keys.headers("slow"))).status_code == 200


async def test_failed_logins_of_an_address_are_limited_without_locking_keys_out(
    app: FastAPI, keys: Keyring
) -> None:
    keys.make("friend")
    async with client(app) as see:
        answers = [await see.get(ASK, headers=bearer(f"{n}")) for n in range(40)]
        assert [response.status_code for response in answers] == [401] * 30 + [429] * 10
        problem(answers[-1], 429, "too-many-requests")
        assert answers[-1].headers["retry-after"] == "2"
        assert (await see.post(ASK, headers=keys.headers("friend"))).status_code == 422
    async with client(app, "192.0.2.2") as elsewhere:
        assert (await elsewhere.get(ASK)).status_code == 401
    assert app.state.authenticator.rate_limited == {"address": 10}
    assert app.state.authenticator.failures == {"malformed": 40, "no_key": 1}


def test_a_credential_may_begin_with_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    def allowed() -> list[int]:
        return [sum(not limits.check_credential(user) for _ in range(20)) for user in "ab"]

    limits = RateLimits(1, credential_per_second=2, credential_burst=5)
    assert allowed() == [5, 5]
    monkeypatch.setattr("app.api.auth.rate_limits.monotonic", lambda: 1001.0)
    assert allowed() == [2, 2]
    monkeypatch.setattr("app.api.auth.rate_limits.monotonic", lambda: 1060.0)
    assert allowed() == [5, 5]
    limits = RateLimits(1, credential_per_second=7, credential_burst=5)
    assert allowed() == [7, 7]


def test_zero_means_no_limit() -> None:
    limits = RateLimits(0)
    assert not any(limits.check_key("a", None) for _ in range(1000))
    assert not any(limits.check_credential("a") for _ in range(1000))
    assert [limits.check_key("a", 1) > 0 for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "192.0.2.1", False),
    ],
)
def test_an_ipv6_address_counts_as_its_network(one: str, other: str, are_one: bool) -> None:  # noqa: FBT001
    limits = RateLimits(0)
    while not limits.check_address(one):
        pass
    assert bool(limits.check_address(other)) is are_one


def test_unknown_addresses_use_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.auth.rate_limits._MAX_ADDRESSES", 100)
    limits = RateLimits(0)
    for number in range(1000):
        limits.check_address(f"client-{number}")
    assert len(limits._failures) == 100


def test_the_key_that_was_not_used_for_longest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.api.auth.rate_limits._MAX_KEYS", 2)
    limits = RateLimits(1)
    for key in ("busy", "idle", "busy", "new"):
        limits.check_key(key, None)
    assert limits.check_key("busy", None)
    assert not limits.check_key("idle", None)


@pytest.mark.parametrize("now", [0.0, 1000.0, 31_536_000.1])
def test_a_burst_is_let_in_whole_and_then_an_even_rate(
    monkeypatch: pytest.MonkeyPatch,
    now: float,
) -> None:
    monkeypatch.setattr("app.api.auth.rate_limits.monotonic", lambda: now)
    limits = RateLimits(200)
    assert not any(limits.check_key("eager", None) for _ in range(200))
    assert limits.check_key("eager", None) == pytest.approx(0.005, abs=1e-6)
    for _ in range(10):
        now += 0.005
        assert not limits.check_key("eager", None)
        assert limits.check_key("eager", None)


def test_a_flood_does_not_fill_the_log() -> None:
    limits = RateLimits(0)
    assert sum(limits.should_log() for _ in range(1000)) == 30
