"""What clients of a node wait for: the first limit that binds, in words."""

from typing import Any

import pytest

from app.domain.nodes.client_wait import WaitingClients
from app.domain.nodes.gate import EntryState
from app.domain.wait import WaitCause


def clients(**changes: Any) -> WaitingClients:
    """Clients of an open tenant that has a connection free."""
    usual: dict[str, Any] = {
        "node": "edge",
        "server": "main",
        "is_available": True,
        "last_error": None,
        "state": EntryState.OPEN,
        "is_node_paused": False,
        "in_use": 1,
        "share": 4,
        "max_size": 5,
        "demand": 120,
        "allotment": 14,
        "limit": None,
    }
    return WaitingClients(**{**usual, **changes})


@pytest.mark.parametrize(
    ("changes", "cause", "detail"),
    [
        ({"state": EntryState.PAUSED}, WaitCause.PAUSED, "the pool to be resumed"),
        (
            {"state": EntryState.PAUSED, "is_node_paused": True},
            WaitCause.PAUSED,
            "node edge to be resumed",
        ),
        (
            {"is_available": False, "last_error": "It is away.", "state": EntryState.CLOSED},
            WaitCause.SERVER_UNAVAILABLE,
            "server main, which opens no connection: It is away.",
        ),
        (
            {"share": 0, "state": EntryState.CLOSED},
            WaitCause.SHARE,
            "its share on node edge: other places may have all connections of its max_size",
        ),
        (
            {"state": EntryState.CLOSED, "login_error": "It refused the password."},
            WaitCause.LOGIN_REFUSED,
            "its login to be accepted. It refused the password.",
        ),
        (
            {"state": EntryState.CLOSED, "limit": 20},
            WaitCause.SERVER_BUDGET,
            (
                "its turn on node edge: its tenants share the 14 connections of server main that "
                "the node may have (its part of the budget)"
            ),
        ),
        (
            {"state": EntryState.CLOSING, "limit": 14},
            WaitCause.NODE_LIMIT,
            (
                "its turn on node edge: its tenants share the 14 connections of server main that "
                "the node may have (its limit)"
            ),
        ),
        (
            {"in_use": 4},
            WaitCause.SHARE,
            (
                "a transaction to end on node edge: all 4 connections that it may have there are "
                "in use (its share of max_size)"
            ),
        ),
        (
            {"in_use": 4, "max_size": 4},
            WaitCause.MAX_SIZE,
            (
                "a transaction to end on node edge: all 4 connections that it may have there are "
                "in use (max_size)"
            ),
        ),
        (
            {"last_error": "Too many."},
            WaitCause.SERVER_UNAVAILABLE,
            "server main, which opens no connection: Too many.",
        ),
        (
            {"state": EntryState.CLOSED, "in_use": 0, "demand": 14},
            WaitCause.CONNECTION,
            "a connection to be opened on node edge, or its turn",
        ),
        ({}, WaitCause.CONNECTION, "a connection to be opened on node edge, or its turn"),
    ],
)
def test_clients_wait_for_the_first_limit_that_applies(
    changes: dict[str, Any], cause: WaitCause, detail: str
) -> None:
    wait = clients(**changes).wait
    assert (wait.cause, wait.detail) == (cause, detail)
