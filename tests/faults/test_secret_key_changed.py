"""Another secret key, as docs/replicas.md says: no tenant can log in until it is rotated."""

from tests.fixtures.app import ApiWith, ok, problem


async def test_after_a_rotation_tenants_log_in_with_passwords_of_the_new_key(
    api_with: ApiWith,
) -> None:
    tenants = {"own": "per_tenant", "apart": "per_database", "small": "shared"}
    async with api_with() as before:
        urls = [await before.tenant(name, strategy) for name, strategy in tenants.items()]
        for url in urls:
            ok(await before.query(url, "SELECT 42"))
    another = "another secret key, which is as long as it must be"
    async with api_with(secret_key=another) as after:
        for url in urls:
            problem(await after.query(url, "SELECT 42"), 503, "tenant-login-failed")
            [found] = ok(await after.client.get("/v1/findings"))["items"]
            assert (found["check"], found["count"]) == ("tenant_login", 1)
            ok(await after.client.post(f"{url}/rotate-credentials", params={"scope": "pool"}))
            ok(await after.query(url, "SELECT 42"))
