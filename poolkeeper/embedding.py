"""The service inside an application: leases without HTTP, in one process.

    service = create_service()

    async with running_pools(service) as pools, pools.lease("acme") as connection:
        await connection.fetch("select * from notes")

A lease that fails raises a `PoolkeeperError` of the service; `status_of` returns its HTTP status.
The settings are those of `poolkeeper serve`, and the same tasks run in the background. *service* is
the API, which the application may mount. A second process on the same catalog refuses to start.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.api.http.error_responses import status_of
from app.domain.errors import PoolkeeperError
from app.main import create_app
from app.pools.manager import TenantPoolManager
from app.settings import SettingsError, load_settings

__all__ = ["PoolkeeperError", "TenantPoolManager", "create_service", "running_pools", "status_of"]


def create_service() -> FastAPI:
    """Create the service from the settings in the environment; this starts nothing.

    Raises:
        SettingsError: they are invalid, or configure standbys, which cannot lend connections.
    """
    settings = load_settings()
    if settings.advertise_url is not None:
        raise SettingsError("POOLKEEPER_ADVERTISE_URL is for `poolkeeper serve` only.")
    return create_app(settings)


@asynccontextmanager
async def running_pools(service: FastAPI) -> AsyncIterator[TenantPoolManager]:
    """Run *service* inside a block; its pools' `lease` lends connections of a tenant.

    Raises:
        PoolkeeperError, OSError: it cannot start, see `app.runtime.lifecycle.STARTUP_ERRORS`.
    """
    async with service.router.lifespan_context(service):
        yield service.state.service.manager
