"""Another secret key, as docs/replicas.md says: no tenant can log in until it is rotated."""

from tests.fixtures.app import Api, ApiWith, ok, problem
from tests.fixtures.waiting import eventually

TENANTS = {"apart": "per_database", "own": "per_tenant", "small": "shared"}
ANOTHER = "another secret key, which is as long as it must be"


async def unreadable(api: Api) -> list[str]:
    """The tenants whose role has a password of another key."""
    items = ok(await api.client.get("/v1/findings"))["items"]
    found = [each for each in items if each["check"] == "secret_key"]
    assert len(found) <= 1
    return [tenant for each in found for tenant in each["tenants"]]


async def test_after_a_rotation_tenants_log_in_with_passwords_of_the_new_key(
    api_with: ApiWith,
) -> None:
    async with api_with() as before:
        urls = [await before.tenant(*each) for each in TENANTS.items()]
        for url in urls:
            ok(await before.query(url, "SELECT 42"))
    async with api_with(secret_key=ANOTHER) as after:
        for url in urls:
            problem(await after.query(url, "SELECT 42"), 503, "tenant-login-failed")
            items = ok(await after.client.get("/v1/findings"))["items"]
            [refused] = [each for each in items if each["check"] == "tenant_login"]
            assert refused["count"] == 1
            ok(await after.client.post(f"{url}/rotate-credentials", params={"scope": "pool"}))
            ok(await after.query(url, "SELECT 42"))
        assert ok(await after.client.get("/v1/findings")) == {"items": []}


async def test_whose_password_is_of_another_key_is_listed_before_anybody_logs_in(
    api_with: ApiWith,
) -> None:
    async with api_with() as before:
        for each in TENANTS.items():
            await before.tenant(*each)
        assert await unreadable(before) == []

    async def lists_all() -> bool:
        return await unreadable(after) == list(TENANTS)

    async with api_with(secret_key=ANOTHER) as after:
        await eventually(lists_all)
        ok(await after.client.post("/v1/tenants/own/rotate-credentials"))
        assert await unreadable(after) == ["apart", "small"]
    # The key in use again, as after a mistake: now it is the rotated password that is of another.
    async with api_with() as before:
        await eventually(lambda: _lists_own(before))


async def _lists_own(api: Api) -> bool:
    return await unreadable(api) == ["own"]
