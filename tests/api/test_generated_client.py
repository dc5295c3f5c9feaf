"""Clients that others generate from the document work, with types."""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.served import Serve, Served

DOCUMENT = Path("openapi/openapi.json").resolve()

PYTHON = """
import sys

from client import AuthenticatedClient
from client.api.pools import evict_pool, get_tenant_pool
from client.api.query import run_query
from client.api.tenants import get_tenant, provision_tenant, put_tenant
from client.models import PoolEviction, PoolView, Problem, Provisioning, QueryBody, QueryResult
from client.models import PoolStrategy, TenantBody, TenantView

client = AuthenticatedClient(base_url=sys.argv[1], token="unused")
body = TenantBody(strategy=PoolStrategy.PER_TENANT)
created = put_tenant.sync("acme", client=client, body=body)
assert isinstance(created, TenantView)
provisioned = provision_tenant.sync("acme", client=client)
assert isinstance(provisioned, Provisioning)
result = run_query.sync("acme", client=client, body=QueryBody(sql="SELECT 42"))
assert isinstance(result, QueryResult)
pool = get_tenant_pool.sync("acme", client=client)
assert isinstance(pool, PoolView)
size: int = pool.desired.max_size
evicted = evict_pool.sync("acme", client=client)
assert isinstance(evicted, PoolEviction)
problem = get_tenant.sync("nobody", client=client)
assert isinstance(problem, Problem)
print(created.id, result.rows, evicted.closed, problem.code)
"""

TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const client = createClient<paths>({ baseUrl: process.argv[2] });
const acme = { params: { path: { tenant: "acme" } } };
const body = { strategy: "per_tenant" as const };
const created = await client.PUT("/v1/tenants/{tenant}", { ...acme, body });
await client.POST("/v1/tenants/{tenant}/provision", acme);
const result = await client.POST("/v1/tenants/{tenant}/query", {
  ...acme,
  body: { sql: "SELECT 42" },
});
const evicted = await client.DELETE("/v1/tenants/{tenant}/pool", acme);
const nobody = { params: { path: { tenant: "nobody" } } };
const missing = await client.GET("/v1/tenants/{tenant}", nobody);
if (!created.data || !("id" in created.data)) throw new Error(created.error?.detail);
if (!result.data || !("rows" in result.data)) throw new Error(result.error?.detail);
if (!evicted.data || !("closed" in evicted.data)) throw new Error(evicted.error?.detail);
const rows: unknown[][] = result.data.rows;
console.log(created.data.id, JSON.stringify(rows), evicted.data.closed, missing.error?.code);
"""

OUTCOME = "acme [[42]] 1 tenant-not-found"


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[Served]:
    async with serve() as running:
        yield running


def run(*command: str, within: Path) -> str:
    done = subprocess.run(
        command, cwd=within, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.long
async def test_a_python_client_is_complete_and_typed(service: Served, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("post_hooks: []\n")
    generate = ["generate", "--path", str(DOCUMENT), "--output-path", "client", "--meta", "none"]
    python = (sys.executable, "-m")
    run(
        *(*python, "openapi_python_client", *generate, "--config", str(config)),
        "--fail-on-warning",
        within=tmp_path,
    )
    (tmp_path / "use.py").write_text(PYTHON)
    run(*python, "mypy", "--strict", "--config-file", os.devnull, "use.py", within=tmp_path)
    assert run(sys.executable, "use.py", str(service.client.base_url), within=tmp_path) == OUTCOME


@pytest.mark.long
async def test_a_typescript_client_is_complete_and_typed(service: Served, tmp_path: Path) -> None:
    modules = os.environ.get("NODE_MODULES")
    if shutil.which("node") is None or modules is None:
        pytest.skip("NODE_MODULES names no directory with openapi-typescript and openapi-fetch.")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "use.mts").write_text(TYPESCRIPT)
    tools = tmp_path / "node_modules" / ".bin"
    options = ["--default-non-nullable", "false", "-o", "schema.d.ts"]
    run(str(tools / "openapi-typescript"), str(DOCUMENT), *options, within=tmp_path)
    compiler = ["--strict", "--target", "es2022", "--module", "nodenext", "--types", "node"]
    run(str(tools / "tsc"), *compiler, "use.mts", within=tmp_path)
    assert run("node", "use.mjs", str(service.client.base_url), within=tmp_path) == OUTCOME
