"""The demo: tenants and traffic beside a running service, so that there is something to watch.

An HTTP client of that service and nothing else; it knows no pool and no setting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx
import structlog
import typer
import uvicorn

from app.cli.demo_traffic import Burst, Traffic
from app.domain.tenant import PoolStrategy

_READY_DEADLINE = 180.0
# The service gives a caller 5 seconds to get a connection and 5 to use it.
_REQUEST_DEADLINE = 15.0
# Below this many requests at a time two cores stay responsive.
_MOST_REQUESTS = 48
_TELL_EVERY = 10.0
_GLANCE = 0.1

# In each strategy the busiest first.
_NAMES: Mapping[PoolStrategy, str] = {
    PoolStrategy.PER_TENANT: "bakery florist pharmacy bookshop butcher grocer tailor jeweller",
    PoolStrategy.SHARED: (
        "barber cafe cinema dentist garage gym hotel laundry museum optician school zoo"
    ),
    PoolStrategy.PER_DATABASE: "brewery foundry shipyard winery",
}
_CROWDS = (
    Burst(tenants=["demo-bakery"], callers=12, delay=2, duration=25, pause=40),
    Burst(
        tenants=["demo-cafe", "demo-gym", "demo-hotel"], callers=14, delay=6, duration=4, pause=60
    ),
    Burst(tenants=["demo-brewery"], callers=10, delay=30, duration=20, pause=50),
    Burst(tenants=["demo-florist"], callers=8, delay=55, duration=10, pause=35),
)

_log = structlog.get_logger(__name__)


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


async def serve_with_traffic(server: uvicorn.Server) -> None:
    """Run *server* until it is asked to end, with tenants and traffic beside it.

    Raises:
        DemoFailed: the service does not do what the demo needs; it was stopped in order.
    """
    company = asyncio.create_task(_accompany(server), name="demo: company")
    try:
        await server.serve()
    finally:
        server.should_exit = True
        await company


async def _accompany(server: uvicorn.Server) -> None:
    """End the traffic when the service is to end, and the service when the traffic fails."""
    guests = asyncio.create_task(_entertain(server), name="demo: guests")
    while not (server.should_exit or guests.done()):  # noqa: ASYNC110 - uvicorn sets no event
        await asyncio.sleep(_GLANCE)
    server.should_exit = True
    guests.cancel()
    await asyncio.wait([guests])
    if not guests.cancelled():
        guests.result()


async def _entertain(server: uvicorn.Server) -> None:
    try:
        async with asyncio.timeout(_READY_DEADLINE):
            # Before it listens itself, another service may answer on the same port.
            while not server.started:  # noqa: ASYNC110 - uvicorn sets no event
                await asyncio.sleep(_GLANCE)
    except TimeoutError as error:
        raise DemoError("the service did not start in time") from error
    base_url = _address(server)
    async with httpx.AsyncClient(
        base_url=base_url,
        timeout=_REQUEST_DEADLINE,
        limits=httpx.Limits(max_connections=_MOST_REQUESTS),
        trust_env=False,  # no proxy stands between us and ourselves
    ) as client:
        tenants = await _move_in(client)
        typer.echo(_welcome(base_url, len(tenants)))
        traffic = Traffic(client, tenants, _CROWDS)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(traffic.run(), name="demo: traffic")
                group.create_task(_tell(client, traffic), name="demo: teller")
        except ExceptionGroup as failures:
            raise DemoError(f"the demo's traffic failed: {_first_of(failures)!r}") from failures


def _first_of(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _address(server: uvicorn.Server) -> str:
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _move_in(client: httpx.AsyncClient) -> list[str]:
    """Wait until the service is ready, then declare and provision every tenant; their ids."""
    try:
        async with asyncio.timeout(_READY_DEADLINE):
            while not (await client.get("/readyz")).is_success:  # noqa: ASYNC110 - asked, not told
                await asyncio.sleep(_GLANCE)
            tenants = []
            for strategy, names in _NAMES.items():
                for tenant in (f"demo-{name}" for name in names.split()):
                    body = {"strategy": strategy, "labels": {"from": "demo"}}
                    (await client.put(f"/v1/tenants/{tenant}", json=body)).raise_for_status()
                    (await client.post(f"/v1/tenants/{tenant}/provision")).raise_for_status()
                    tenants.append(tenant)
    except (httpx.HTTPError, TimeoutError) as error:
        raise DemoError(f"the demo's tenants could not move in: {error}") from error
    return tenants


def _welcome(base_url: str, tenants: int) -> str:
    return f"""
Poolkeeper's demo: {tenants} tenants and their traffic, until Ctrl-C.

  Look around    {base_url}/docs
  Who waits?     curl -s '{base_url}/v1/pools?sort=-wait_p99_ms&limit=3'
  What to do?    curl -s '{base_url}/v1/recommendations?status=open'
  And who is it? curl -s '{base_url}/v1/tenants/demo-bakery/stats'
"""


async def _tell(client: httpx.AsyncClient, traffic: Traffic) -> None:
    while True:
        await asyncio.sleep(_TELL_EVERY)
        try:
            stats = (await client.get("/v1/stats?limit=1")).raise_for_status().json()
            advice = (await client.get("/v1/recommendations?status=open")).raise_for_status().json()
        except httpx.HTTPError as error:
            _log.warning("demo cannot look", reason=str(error))
            continue
        _log.info(
            "demo",
            tenants=stats["tenants"],
            pools=stats["pools"]["open"],
            waiting=stats["totals"]["waiting_requests"],
            recommendations=len(advice["items"]),
            answered=traffic.succeeded,
            refused=dict(traffic.failed),
        )
