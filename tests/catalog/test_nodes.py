"""Nodes are stored with their events, and their liabilities outlive the service."""

from dataclasses import replace

import pytest

from app.catalog.catalog import Catalog
from app.domain.errors import StaleVersion
from app.domain.nodes.declaration import DeclaredNode, NodeSpec
from tests.catalog.values import actions, event

EDGE = NodeSpec(
    name="edge",
    address="pools.example:6432",
    labels={"zone": "a"},
    selector={"plan": "gold"},
    limits={"local": 40},
)


async def save(catalog: Catalog, spec: NodeSpec = EDGE, **how: object) -> DeclaredNode:
    switches = {"paused": False, "draining": False, "event": event("node.created"), **how}
    saved, _ = await catalog.nodes.save(spec, **switches)  # type: ignore[arg-type]
    return saved


async def test_a_node_is_loaded_as_it_was_saved(catalog: Catalog) -> None:
    saved = await save(catalog, draining=True)
    assert (saved.spec, saved.paused, saved.draining, saved.generation) == (EDGE, False, True, 1)
    assert await catalog.nodes.load() == (saved,)
    assert await save(catalog, draining=True, event=event("no")) == saved
    changed = await save(catalog, replace(EDGE, selector={}), event=event("node.updated"))
    assert (changed.generation, changed.draining) == (2, False)
    assert await actions(catalog) == ["node.updated", "node.created"]
    with pytest.raises(StaleVersion):
        await save(catalog, expected_generation=1)


async def test_what_a_node_can_have_is_stored_and_goes_with_it(catalog: Catalog) -> None:
    await save(catalog)
    await save(catalog, NodeSpec(name="other"))
    await catalog.nodes.save_liabilities({("edge", "a"): 3, ("edge", "b"): 4, ("other", "a"): 5})
    await catalog.nodes.save_liabilities({("edge", "a"): 9})
    await catalog.nodes.save_liabilities({})
    expected = {("edge", "a"): 9, ("edge", "b"): 4, ("other", "a"): 5}
    assert await catalog.nodes.load_liabilities() == expected
    for action in ("node.deleted", "no"):
        await catalog.nodes.delete("edge", event=event(action))
    assert await catalog.nodes.load_liabilities() == {("other", "a"): 5}
    assert [node.spec.name for node in await catalog.nodes.load()] == ["other"]
    assert (await actions(catalog))[0] == "node.deleted"
