"""The demo: sample tenants and traffic beside a running service.

It is an HTTP client of that service, and knows no pools or settings.
"""

import asyncio
from collections.abc import Mapping

import httpx
import structlog
import typer
import uvicorn

from app.cli.demo_traffic import Burst, Traffic

_READY_TIMEOUT = 180.0
# The service gives a caller 5 seconds to get a connection and 5 to use it.
_REQUEST_TIMEOUT = 15.0
# With fewer concurrent requests than this, two cores stay responsive.
_MAX_CONCURRENT_REQUESTS = 48
_LOG_INTERVAL = 10.0
_CHECK_INTERVAL = 0.1

# By strategy, the busiest first.
_TENANTS: Mapping[str, str] = {
    "per_tenant": "bakery florist pharmacy bookshop butcher grocer tailor jeweller",
    "shared": "barber cafe cinema dentist garage gym hotel laundry museum optician school zoo",
    "per_database": "brewery foundry shipyard winery",
}
_BURSTS = (
    Burst(tenants=["demo-bakery"], callers=12, delay=2, duration=25, pause=40),
    Burst(
        tenants=["demo-cafe", "demo-gym", "demo-hotel"], callers=14, delay=6, duration=4, pause=60
    ),
    Burst(tenants=["demo-brewery"], callers=10, delay=30, duration=20, pause=50),
    Burst(tenants=["demo-florist"], callers=8, delay=55, duration=10, pause=35),
)

_log = structlog.get_logger(__name__)


class DemoError(Exception):
    """The demo cannot continue; the text says why."""


async def serve_with_traffic(server: uvicorn.Server) -> None:
    """Run *server* with tenants and traffic until it is asked to exit.

    Raises:
        DemoError: the service does not do what the demo needs; it was stopped cleanly.
    """
    watch = asyncio.create_task(_watch(server), name="demo: watch")
    try:
        await server.serve()
    finally:
        server.should_exit = True
        await watch


async def _watch(server: uvicorn.Server) -> None:
    """Stop the traffic when the service exits, and the service when the traffic fails."""
    traffic = asyncio.create_task(_run(server), name="demo: run")
    while not (server.should_exit or traffic.done()):  # noqa: ASYNC110 - uvicorn sets no event
        await asyncio.sleep(_CHECK_INTERVAL)
    server.should_exit = True
    traffic.cancel()
    await asyncio.wait([traffic])
    if not traffic.cancelled():
        traffic.result()


async def _run(server: uvicorn.Server) -> None:
    try:
        async with asyncio.timeout(_READY_TIMEOUT):
            # Until this service listens, another one may respond on the same port.
            while not server.started:  # noqa: ASYNC110 - uvicorn sets no event
                await asyncio.sleep(_CHECK_INTERVAL)
    except TimeoutError as error:
        raise DemoError("the service did not start in time") from error
    base_url = _base_url(server)
    async with httpx.AsyncClient(
        base_url=base_url,
        timeout=_REQUEST_TIMEOUT,
        limits=httpx.Limits(max_connections=_MAX_CONCURRENT_REQUESTS),
        trust_env=False,  # no proxy between the service and its demo
    ) as client:
        tenants = await _create_tenants(client)
        typer.echo(_welcome(base_url, len(tenants), await _connection_string(client)))
        traffic = Traffic(client, tenants, _BURSTS)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(traffic.run(), name="demo: traffic")
                group.create_task(_log_statistics(client, traffic), name="demo: statistics")
        except ExceptionGroup as failures:
            raise DemoError(f"the demo's traffic failed: {_first_of(failures)!r}") from failures


def _first_of(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _base_url(server: uvicorn.Server) -> str:
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _create_tenants(client: httpx.AsyncClient) -> list[str]:
    """Declare and provision every tenant once the service is ready; return their ids."""
    try:
        async with asyncio.timeout(_READY_TIMEOUT):
            while not (await client.get("/readyz")).is_success:  # noqa: ASYNC110 - HTTP: polling only
                await asyncio.sleep(_CHECK_INTERVAL)
            tenants = []
            for strategy, names in _TENANTS.items():
                for tenant in (f"demo-{name}" for name in names.split()):
                    body = {"strategy": strategy, "labels": {"from": "demo"}}
                    (await client.put(f"/v1/tenants/{tenant}", json=body)).raise_for_status()
                    (await client.post(f"/v1/tenants/{tenant}/provision")).raise_for_status()
                    tenants.append(tenant)
    except (httpx.HTTPError, TimeoutError) as error:
        raise DemoError(f"the demo's tenants could not be created: {error}") from error
    return tenants


async def _connection_string(client: httpx.AsyncClient) -> str | None:
    """The connection string of a tenant at the node beside the service, if there is one."""
    try:
        nodes = (await client.get("/v1/nodes")).raise_for_status().json()["items"]
        if not any(node["state"] == "ready" for node in nodes):
            return None
        url = "/v1/tenants/demo-bakery/credentials"
        issued = (await client.post(url, json={"name": "demo"})).raise_for_status().json()
    except httpx.HTTPError as error:
        raise DemoError(f"the demo's credential could not be created: {error}") from error
    return str(issued["node_connection_string"])


def _welcome(base_url: str, tenants: int, connection_string: str | None) -> str:
    by_driver = f"\n  Any driver         psql '{connection_string}'" if connection_string else ""
    return f"""
Poolkeeper demo: {tenants} tenants with traffic. Press Ctrl-C to stop and delete them.

  Page               {base_url}/
  API                {base_url}/docs
  Longest waits      curl -s '{base_url}/v1/pools?sort=-wait_p99_ms&limit=3'
  Recommendations    curl -s '{base_url}/v1/recommendations?status=open'
  One tenant         curl -s '{base_url}/v1/tenants/demo-bakery/stats'{by_driver}
"""


async def _log_statistics(client: httpx.AsyncClient, traffic: Traffic) -> None:
    while True:
        await asyncio.sleep(_LOG_INTERVAL)
        try:
            stats = (await client.get("/v1/stats?limit=1")).raise_for_status().json()
            advice = (await client.get("/v1/recommendations?status=open")).raise_for_status().json()
        except httpx.HTTPError as error:
            _log.warning("demo statistics unavailable", reason=str(error))
            continue
        _log.info(
            "demo statistics",
            tenants=stats["tenants"],
            pools=stats["pools"]["open"],
            waiting=stats["totals"]["waiting_requests"],
            recommendations=len(advice["items"]),
            succeeded=traffic.succeeded,
            failed=dict(traffic.failed),
        )
