"""The tenants of a node over HTTP: sorted, searched, page by page."""

from typing import Any

from app.domain.nodes.documents import as_document
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.gate import EntryState
from tests.fixtures.app import Api, ok, pointers, problem
from tests.fixtures.keys import Keyring
from tests.fixtures.reporting import entry, node_report

NODE = "/v1/nodes/edge"
URL = f"{NODE}/tenants"
# Clients, those that wait, and how long the first of them has waited.
TENANTS = {"acme": (9, 0, 0.0), "beta": (1, 1, 4.5), "coyote": (5, 3, 0.5), "delta": (0, 0, 0.0)}


def report(session: int, sequence: int) -> dict[str, Any]:
    """An agent's report; each tenant had ten transactions of 100 ms since the previous one."""
    entries = tuple(
        entry(
            name,
            state=EntryState.CLOSED if waiting == clients else EntryState.OPEN,
            connections=2,
            in_use=clients - waiting,
            clients=clients,
            waiting=waiting,
            longest_wait=wait,
            totals=EntryTotals(transactions=10 * sequence, transaction_seconds=1.0 * sequence),
        )
        for name, (clients, waiting, wait) in TENANTS.items()
    )
    document: dict[str, Any] = as_document(node_report(session, sequence, entries))
    return document


async def names(api: Api, query: str = "") -> list[str]:
    return [each["tenant"] for each in ok(await api.client.get(f"{URL}{query}"))["items"]]


async def test_who_waits_longest_on_a_node_comes_first(api: Api) -> None:
    problem(await api.client.get(URL), 404, "node-not-found")
    ok(await api.client.put(NODE, json={}), 201)
    assert ok(await api.client.get(URL)) == {"matches": 0, "items": [], "next_cursor": None}
    session = ok(await api.client.post(f"{NODE}/session"), 201)["session"]
    for sequence in (1, 2):
        ok(await api.client.post(f"{NODE}/reports", json=report(session, sequence)))
    first = ok(await api.client.get(f"{URL}?limit=1"))
    [waiter] = first["items"]
    assert (first["matches"], waiter["tenant"], waiter["state"]) == (4, "beta", "closed")
    assert (waiter["node"], waiter["longest_wait_ms"], waiter["waiting"]) == ("edge", 4500.0, 1)
    assert (waiter["estimated"], round(waiter["hold_ms"])) == (True, 100)
    assert await names(api, f"?cursor={first['next_cursor']}") == ["coyote", "acme", "delta"]
    assert await names(api, "?sort=-waiting") == ["coyote", "beta", "acme", "delta"]
    assert await names(api, "?sort=-clients&limit=2&offset=1") == ["coyote", "beta"]
    assert await names(api, "?sort=-active") == ["acme", "coyote", "beta", "delta"]
    assert await names(api, "?sort=tenant&search=e") == ["acme", "beta", "coyote", "delta"]
    assert await names(api, "?search=lt") == ["delta"]
    other = await api.client.get(f"{URL}?sort=tenant&cursor={first['next_cursor']}")
    assert pointers(other) == ["/query/cursor"]


async def test_a_key_bound_to_tenants_sees_neither_nodes_nor_their_totals(
    keyed_api: tuple[Api, Keyring],
) -> None:
    api, keys = keyed_api
    ok(await api.client.put(NODE, json={}), 201)
    api.client.headers.update(keys.headers("bound"))
    problem(await api.client.get(URL), 403, "bound-to-tenants")
    assert ok(await api.client.get("/v1/stats"))["nodes"] is None
