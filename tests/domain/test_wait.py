"""What callers wait for: the first limit that binds."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.wait import Use, WaitCause, WaitingTenant

TENANT = WaitingTenant(
    server="local",
    is_available=True,
    last_error=None,
    is_paused=False,
    leases=Use(4, None),
    pools=None,
    pools_setting="POOLKEEPER_PER_TENANT_MAX_POOLS",
    pool=Use(4, 5),
    is_shared_with_nodes=False,
    budget=Use(9, 20),
)
FULL = {"leases": Use(5, 5), "pools": Use(12, 12), "pool": Use(5, 5), "budget": Use(20, 20)}


@pytest.mark.parametrize(
    ("change", "cause", "detail"),
    [
        (
            FULL | {"is_paused": True, "is_available": False, "last_error": "It is away."},
            WaitCause.PAUSED,
            "the pool to be resumed",
        ),
        (
            FULL | {"is_available": False, "last_error": "It is away."},
            WaitCause.SERVER_UNAVAILABLE,
            "server local, which opens no connection: It is away.",
        ),
        (
            FULL | {"last_error": "It refuses more."},
            WaitCause.MAX_LEASES,
            "its own leases: it may have 5 at a time (max_leases)",
        ),
        (
            FULL | {"leases": Use(4, 5)},
            WaitCause.POOL_LIMIT,
            "another pool to close: 12 of 12 are open (POOLKEEPER_PER_TENANT_MAX_POOLS)",
        ),
        (
            FULL | {"leases": Use(4, 5), "pools": None},
            WaitCause.MAX_SIZE,
            "a lease to end: all 5 connections of the pool are on lease (max_size)",
        ),
        (
            {"login_error": "It refused the password.", "budget": Use(20, 20)},
            WaitCause.LOGIN_REFUSED,
            "its login to be accepted. It refused the password.",
        ),
        (
            {"login_error": "It refused the password.", "pool": Use(5, 5)},
            WaitCause.MAX_SIZE,
            "a lease to end: all 5 connections of the pool are on lease (max_size)",
        ),
        (
            {"pool": Use(7, 7), "is_shared_with_nodes": True},
            WaitCause.SHARE,
            (
                "a lease to end: all 7 connections of the pool's share are on lease; nodes "
                "may have the rest of its max_size"
            ),
        ),
        (
            {"budget": Use(1200, 1200), "server": "eu"},
            WaitCause.SERVER_BUDGET,
            "a connection of another pool: 1,200 of the 1,200 connections of server eu are in use",
        ),
        (
            {"budget": Use(77, 77), "on_nodes": 6},
            WaitCause.SERVER_BUDGET,
            (
                "a connection of another pool: 77 of the 77 connections of server local are in "
                "use; nodes may have 6 others"
            ),
        ),
        (
            {"budget": Use(0, 0), "on_nodes": 83},
            WaitCause.SERVER_BUDGET,
            "a connection that nodes give back: they may have all 83 of server local",
        ),
        (
            {"pool": Use(0, 0), "is_shared_with_nodes": True},
            WaitCause.SHARE,
            "its share: nodes may have all connections of the pool's max_size",
        ),
        (
            {"last_error": "It refuses more."},
            WaitCause.SERVER_UNAVAILABLE,
            "server local, which opens no connection: It refuses more.",
        ),
        ({}, WaitCause.CONNECTION, "a connection to be opened, or its turn"),
        ({"pools": Use(3, 12)}, WaitCause.CONNECTION, "a connection to be opened, or its turn"),
    ],
)
def test_the_first_limit_that_binds_is_what_callers_wait_for(
    change: dict[str, Any], cause: WaitCause, detail: str
) -> None:
    wait = replace(TENANT, **change).wait
    assert (wait.cause, wait.detail) == (cause, detail)


def test_a_limit_that_binds_is_given_with_its_use() -> None:
    wait = replace(TENANT, pool=Use(6, 5)).wait
    assert (wait.used, wait.limit) == (6, 5)
    assert (TENANT.wait.used, TENANT.wait.limit) == (None, None)
