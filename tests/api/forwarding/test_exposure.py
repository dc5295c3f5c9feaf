"""No standby forwards passwords in clear if the client's own connection is private."""

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Scope

from app.api.forwarding.exposure import would_expose_passwords
from app.api.http.idempotency import mark_secret
from app.api.routes.node_agents import require_private_connection
from app.main import create_app
from app.settings import Settings

CONFIGURATION = ("GET", "/v1/nodes/self/configuration")
NEW_CREDENTIAL = ("POST", "/v1/tenants/acme/credentials")
REMOTE = "http://10.0.0.7:8080"


def scope(method: str, path: str, *, scheme: str = "http", host: str = "127.0.0.1") -> Scope:
    return {"method": method, "path": path, "scheme": scheme, "client": (host, 4711)}


@pytest.mark.parametrize("asked", [CONFIGURATION, NEW_CREDENTIAL])
@pytest.mark.parametrize(
    ("scheme", "host", "url", "is_exposed"),
    [
        ("http", "127.0.0.1", REMOTE, True),
        ("http", "::1", REMOTE, True),
        ("https", "10.0.0.9", REMOTE, True),
        ("https", "10.0.0.9", "http://poolkeeper-1.internal", True),
        ("https", "10.0.0.9", "https://poolkeeper-1.internal", False),
        ("https", "10.0.0.9", "http://localhost:8080", False),
        ("https", "10.0.0.9", "http://[::1]:8080", False),
        # The active instance refuses what must use TLS from the client on.
        ("http", "10.0.0.9", REMOTE, False),
    ],
)
def test_a_hop_is_no_less_private_than_the_clients_connection(
    asked: tuple[str, str], scheme: str, host: str, url: str, *, is_exposed: bool
) -> None:
    assert would_expose_passwords(scope(*asked, scheme=scheme, host=host), url) is is_exposed


def _methods(route: APIRoute) -> set[str]:
    return route.methods or set()


def _has_passwords(route: APIRoute) -> bool:
    calls = {each.call for each in route.dependant.dependencies}
    return mark_secret in calls or (
        require_private_connection in calls and "GET" in _methods(route)
    )


def test_every_request_whose_response_has_passwords_is_known() -> None:
    app: FastAPI = create_app(Settings.model_construct())
    known = {}
    for route in app.routes:
        if isinstance(route, APIRoute):
            path = route.path.replace("{", "").replace("}", "")
            for method in _methods(route):
                known[method, path] = would_expose_passwords(scope(method, path), REMOTE)
                assert known[method, path] is _has_passwords(route), (method, path)
    assert [each for each, is_exposed in known.items() if is_exposed] == [
        ("GET", "/v1/nodes/node/configuration"),
        ("POST", "/v1/tenants/tenant/credentials"),
    ]
