"""A login as a tenant's role, tried after its password or its objects were set."""

from __future__ import annotations

import asyncio

from app.domain.desired_state import Tenant
from app.domain.errors import ProvisioningFailed, ServerFull, ServerUnavailable, TenantLoginFailed
from app.pools.manager import TenantPoolManager

_LOGIN_DEADLINE = 15.0


async def check_login(manager: TenantPoolManager, tenant: Tenant) -> None:
    """Log in as the tenant's connections do, in place of an admin connection.

    Raises:
        ProvisioningFailed: Postgres refuses the role, and says why.
        ServerFull: the server takes no further connection now, so nothing is known.
        ServerUnavailable: the server cannot be reached.
    """
    spec = tenant.spec
    server, isolation = manager.server(spec.server), manager.isolations[spec.strategy]
    login = isolation.login(server, spec)
    try:
        async with asyncio.timeout(_LOGIN_DEADLINE), server.admin(login) as connection:
            await connection.execute(isolation.session_setup(spec))
    except TenantLoginFailed as error:
        raise ProvisioningFailed(
            f"Role {login.user} is set up, but it cannot log in. {error.detail}"
        ) from error
    except ServerFull as error:
        raise ServerFull(
            f"Role {login.user} is set up, but its login could not be tried: "
            f"{error.detail} Repeat the request."
        ) from error
    except TimeoutError as error:
        raise ServerUnavailable(f"The login as {login.user} took too long.") from error


def lock_of_role(server: str, role: str) -> str:
    """The lock of a role's password; provisioning sets the shared role's for each tenant."""
    return f"role {role} on {server}"
