"""How long changes take until they are in force on a node."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from time import perf_counter

from benchmarks.figure import Figures, Rounds
from benchmarks.nodes.clients import running
from benchmarks.nodes.site import CLIENT_ERRORS, Node, Site, can_be_measured, site
from benchmarks.testbed import Testbed

_TENANTS = tuple(f"t{number}" for number in range(40))
_DEADLINE = 60.0
_GLANCE = 0.01
# What is repeated goes on for so long around the change.
_BEFORE, _AFTER = 1.0, 3.0


async def changes(_: Testbed, rounds: int) -> Figures:
    """A size, a tenant, a pause and a revoked credential: seconds until in force on a node."""
    if not can_be_measured("nodes_changes"):
        return {}
    found = Rounds()
    async with site(budget=60) as here:
        await here.add_tenants(_TENANTS)
        node = await here.add_node("edge")
        for number in range(rounds):
            await change(here, node, _TENANTS[4 * number : 4 * number + 4], found, len(_TENANTS))
    return found.figures()


async def change(here: Site, node: Node, tenants: Sequence[str], found: Rounds, of: int) -> None:
    """Measure each once, on four tenants that had no client yet; *of* so many on the node."""
    cold, resized, paused, revoked = tenants

    async def add(what: str, seconds: float) -> None:
        found.add(f"nodes_changes_{what}_s", seconds, of)
        await here.until_in_force(node)

    # The gate alone, and not a RELOAD with the tenant's size, which follows when a node has joined.
    await here.until_allotted(node)
    await add("gate", await _first_statement(here, node, cold))
    await add("size", await _resize(here, resized))
    added = f"new-{cold}"
    began = perf_counter()
    await here.add_tenants([added])
    await _first_statement(here, node, added)
    await add("tenant", perf_counter() - began)
    await add("pause", await _pause(here, node, paused))
    cut, refused = await _revoke(here, node, revoked)
    await add("cut", cut)
    await add("refused", refused)


async def _first_statement(here: Site, node: Node, tenant: str) -> float:
    """Seconds for a connection to a tenant that has none, and a statement; tried again."""
    began = perf_counter()
    async with asyncio.timeout(_DEADLINE):
        while True:
            with suppress(*CLIENT_ERRORS):
                connection = await here.connect(node, tenant)
                await connection.execute("SELECT 1")
                connection.terminate()
                return perf_counter() - began
            await asyncio.sleep(_GLANCE)


async def _resize(here: Site, tenant: str) -> float:
    """Seconds until the node has reported its share of another size of a tenant."""
    size = {"min_size": 0, "warmup_size": 0, "max_size": 8}
    [before] = (await here.ask("GET", f"/v1/tenants/{tenant}/pool"))["nodes"]
    began = perf_counter()
    await here.ask("PUT", f"/v1/tenants/{tenant}/pool", size)
    async with asyncio.timeout(_DEADLINE):
        while True:
            [shown] = (await here.ask("GET", f"/v1/tenants/{tenant}/pool"))["nodes"]
            if before["share"] != shown["share"] == shown["size"]:
                return perf_counter() - began
            await asyncio.sleep(_GLANCE)


async def _pause(here: Site, node: Node, tenant: str) -> float:
    """Seconds from a pause until the last statement began that was served."""
    connection = await here.connect(node, tenant)
    async with _repeated(lambda: connection.execute("SELECT 1")) as statements:
        await asyncio.sleep(_BEFORE)
        began = perf_counter()
        await here.ask("POST", f"/v1/tenants/{tenant}/pool/pause")
        await asyncio.sleep(_AFTER)
    connection.terminate()
    return max(0.0, statements[-1] - began)


async def _revoke(here: Site, node: Node, tenant: str) -> tuple[float, float]:
    """Seconds until the last statement of an open connection began, and the last login."""
    connection = await here.connect(node, tenant)

    async def log_in() -> None:
        (await here.connect(node, tenant)).terminate()

    async with (
        _repeated(lambda: connection.execute("SELECT 1")) as statements,
        _repeated(log_in) as logins,
    ):
        await asyncio.sleep(_BEFORE)
        began = perf_counter()
        await here.revoke(tenant)
        await asyncio.sleep(_AFTER)
    connection.terminate()
    return max(0.0, statements[-1] - began), max(0.0, logins[-1] - began)


@asynccontextmanager
async def _repeated(action: Callable[[], Awaitable[object]]) -> AsyncIterator[list[float]]:
    """Do something again and again beside a block; when those began that succeeded."""
    begun: list[float] = []

    async def repeat() -> None:
        while True:
            now = perf_counter()
            with suppress(*CLIENT_ERRORS):
                await action()
                begun.append(now)
            await asyncio.sleep(_GLANCE)

    async with running(repeat()):
        yield begun
