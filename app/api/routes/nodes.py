"""Nodes: declare, show, list, pause, resume, drain, delete."""

import re
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Response, status
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from app.api.http.authentication import REQUIRE_ADMIN_ALL, REQUIRE_READ_ALL
from app.api.http.dependencies import CursorQuery, FleetDep, LimitQuery, name_in_path, provided
from app.api.http.error_responses import problem_responses, validation_error
from app.api.http.etags import Preconditions, PreconditionsDep, etag, instance_of
from app.api.http.field_types import Labels, Name, RequestBody, counted_first, examples
from app.api.http.paging import NextCursor, page_of_names
from app.api.http.strict_route import StrictRoute
from app.api.views.node import NodeView
from app.api.views.plan import OperationDep, OperationRequest, PlanView
from app.control.nodes.declaration import NodeDeclarations, NodeSwitch
from app.control.nodes.fleet import Fleet
from app.control.nodes.tracked_node import TrackedNode
from app.domain.nodes.declaration import OWN_NODE, DeclaredNode, NodeSpec

_MAX_LIMIT = 100_000
_MOST_LIMITS = 1000
# A name, an IPv4 address, or an IPv6 address in brackets; and a port.
_is_address = re.compile(
    r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})"
).fullmatch
_LAST_PORT = 65_535

router = APIRouter(prefix="/v1/nodes", tags=["nodes"], route_class=StrictRoute)


def _address(text: str) -> str:
    found = _is_address(text)
    if found is None or not 1 <= int(found[1]) <= _LAST_PORT:
        raise PydanticCustomError("address", "Must be a host and a port, host:6432.")
    return text


NodePath = Annotated[str, name_in_path("Name of the node", "edge-1")]
DeclarationsDep = Annotated[NodeDeclarations, provided(NodeDeclarations)]


class NodeBody(RequestBody):
    """A node's declaration."""

    model_config = examples(
        {"address": "pools.example.com:6432"},
        {"address": "10.0.0.7:6432", "selector": {"plan": "gold"}, "limits": {"local": 40}},
    )

    address: Annotated[str, Field(max_length=300), AfterValidator(_address)] | None = Field(
        default=None,
        description="Host and port at which applications reach it, for their connection strings.",
    )
    labels: Labels = Field(default={}, description="Labels for people.")
    selector: Labels = Field(
        default={},
        description="It serves tenants that have all these labels; empty: all. It never serves "
        "shared tenants.",
    )
    limits: Annotated[
        dict[Name, Annotated[int, Field(ge=0, le=_MAX_LIMIT)]], counted_first(_MOST_LIMITS)
    ] = Field(
        default={},
        max_length=_MOST_LIMITS,
        description="Maximum number of its connections by server; others: limited only by the "
        "server's budget.",
    )


class NodeList(BaseModel):
    """A page of nodes."""

    items: list[NodeView]
    next_cursor: NextCursor


async def get_node_of_path(node: NodePath, fleet: FleetDep) -> TrackedNode:
    """The node in the path.

    Raises:
        NodeNotFound
    """
    return fleet.node(node)


NodeDep = Annotated[TrackedNode, Depends(get_node_of_path)]


@router.get("", dependencies=REQUIRE_READ_ALL, summary="List nodes")
async def list_nodes(
    fleet: FleetDep, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> NodeList:
    """Lists nodes by name. Works while the catalog is unreachable."""
    page, next_cursor = page_of_names(fleet.nodes, cursor, limit)
    items = [NodeView.of(fleet.nodes[name], fleet) for name in page]
    return NodeList(items=items, next_cursor=next_cursor)


@router.get("/{node}", dependencies=REQUIRE_READ_ALL, summary="Get a node")
async def get_node(node: NodeDep, fleet: FleetDep, response: Response) -> NodeView:
    """Shows a node, what it reports, and its part of each server's budget."""
    response.headers["ETag"] = _etag(node.declared)
    return NodeView.of(node, fleet)


@router.put(
    "/{node}",
    dependencies=REQUIRE_ADMIN_ALL,
    summary="Declare a node",
    responses={
        201: {"model": NodeView, "description": "Created"},
        **problem_responses(409),
    },
)
async def put_node(
    node: NodePath,
    body: NodeBody,
    *,
    fleet: FleetDep,
    declarations: DeclarationsDep,
    operation: OperationDep,
    preconditions: PreconditionsDep,
    response: Response,
) -> NodeView | PlanView:
    """Creates the node, or replaces its declaration; a pause or a drain stays as it is.

    The first request answers 201, later ones 200. Create a key with the scope `node` for its agent.
    """
    if node == OWN_NODE:
        raise validation_error(
            "path", "node", code="reserved", detail="It stands for the node of an API key."
        )

    def show(saved: tuple[TrackedNode, bool]) -> NodeView:
        found, created = saved
        response.status_code = status.HTTP_201_CREATED if created else status.HTTP_200_OK
        response.headers["ETag"] = _etag(found.declared)
        return NodeView.of(found, fleet)

    spec = NodeSpec(name=node, **body.model_dump())
    expect = partial(_expected, preconditions)
    change = declarations.put(spec, operation.actor, expect=expect)
    return await operation.run(change, show)


@router.delete("/{node}", dependencies=REQUIRE_ADMIN_ALL, summary="Delete a node")
async def delete_node(
    node: NodeDep,
    fleet: FleetDep,
    declarations: DeclarationsDep,
    operation: OperationDep,
    preconditions: PreconditionsDep,
) -> NodeView | PlanView:
    """Deletes a node, and returns it.

    409 `node-in-use` while it may have connections: drain it, or stop it and wait until its state
    is `gone`.
    """
    expect = partial(_expected, preconditions)
    deletion = declarations.delete(node, operation.actor, expect=expect)
    return await operation.run(deletion, lambda deleted: NodeView.of(deleted, fleet))


@router.post("/{node}/pause", dependencies=REQUIRE_ADMIN_ALL, summary="Pause a node")
async def pause_node(
    node: NodeDep, fleet: FleetDep, declarations: DeclarationsDep, operation: OperationDep
) -> NodeView | PlanView:
    """Makes its clients wait: they can connect, but not reach Postgres until it is resumed."""
    return await _switch(node, "paused", declarations, operation, fleet)


@router.post("/{node}/resume", dependencies=REQUIRE_ADMIN_ALL, summary="Resume a node")
async def resume_node(
    node: NodeDep, fleet: FleetDep, declarations: DeclarationsDep, operation: OperationDep
) -> NodeView | PlanView:
    """Ends a pause and a drain."""
    return await _switch(node, "resumed", declarations, operation, fleet)


@router.post("/{node}/drain", dependencies=REQUIRE_ADMIN_ALL, summary="Drain a node")
async def drain_node(
    node: NodeDep, fleet: FleetDep, declarations: DeclarationsDep, operation: OperationDep
) -> NodeView | PlanView:
    """Accepts no new clients; once the present ones have left, the node returns its connections."""
    return await _switch(node, "draining", declarations, operation, fleet)


async def _switch(
    node: TrackedNode,
    action: NodeSwitch,
    declarations: NodeDeclarations,
    operation: OperationRequest,
    fleet: Fleet,
) -> NodeView | PlanView:
    switch = declarations.switch(node, action, operation.actor)
    return await operation.run(switch, lambda saved: NodeView.of(saved[0], fleet))


def _expected(preconditions: Preconditions, node: DeclaredNode | None) -> int | None:
    if node is None:
        return preconditions.expected_generation(None)
    return preconditions.expected_generation(node.generation, instance_of(node.created_at))


def _etag(node: DeclaredNode) -> str:
    return etag(node.generation, instance_of(node.created_at))
