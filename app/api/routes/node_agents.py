"""The routes for agents of nodes; `app.domain.nodes.documents` describes them.

They connect an agent and a service of the same package, and are not part of the documented API. The
configuration has passwords: it is sent over TLS only, except to this machine, and never stored.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, status
from fastapi.responses import JSONResponse, Response

from app.api.auth.authenticator import AuthFailure
from app.api.http.authentication import REQUIRE_NODE
from app.api.http.dependencies import FeedDep, FleetDep, PrincipalDep
from app.api.http.error_responses import validation_error
from app.api.http.etags import etag, matching_etag
from app.api.http.exchange import extend_deadline
from app.api.http.strict_route import StrictRoute
from app.api.routes.nodes import NodePath
from app.control.nodes.tracked_node import TrackedNode
from app.domain.errors import KeyBoundToNode, NodeNotFound, TlsRequired
from app.domain.loopback import is_private
from app.domain.nodes.declaration import OWN_NODE
from app.domain.nodes.documents import (
    LONGEST_POLL,
    NodeSession,
    as_document,
    as_json,
    from_document,
)
from app.domain.nodes.report import NodeReport
from app.domain.nodes.report_changes import MOST_ENTRIES

_NOT_STORED = {"Cache-Control": "no-store"}
# The number of entries written at once, and bytes of a report read at once; larger ones use a
# thread, which leaves the event loop free.
_FEW = 100
_SMALL = 16_384
# The longest description of a malformed report.
_LONGEST_REASON = 200


async def require_private_connection(request: Request) -> None:
    """Raise TlsRequired if others could read the traffic."""
    if not is_private(request.url.scheme, request.client and request.client.host):
        raise TlsRequired


async def get_own_node(
    request: Request, node: NodePath, fleet: FleetDep, principal: PrincipalDep
) -> TrackedNode:
    """The node in the path, which must be the key's own.

    Raises:
        KeyBoundToNode, NodeNotFound
    """
    name = principal.node if node == OWN_NODE else node
    if principal.node not in {None, name}:
        request.app.state.authenticator.record_failure(
            AuthFailure.NODE_BOUND, path=request.url.path
        )
        raise KeyBoundToNode(f"The API key is bound to node {principal.node}.")
    if name is None:
        raise NodeNotFound("Without an API key, name the node.")
    return fleet.node(name)


OwnNodeDep = Annotated[TrackedNode, Depends(get_own_node)]

router = APIRouter(
    prefix="/v1/nodes/{node}",
    tags=["nodes"],
    route_class=StrictRoute,
    dependencies=[REQUIRE_NODE, Depends(require_private_connection)],
    include_in_schema=False,
)


@router.post("/session")
async def begin_node_session(node: OwnNodeDep, fleet: FleetDep, feed: FeedDep) -> Response:
    """Start the session of another agent of the node."""
    await feed.refresh()
    session = NodeSession(node=node.name, session=await fleet.begin_session(node))
    return JSONResponse(as_document(session), status.HTTP_201_CREATED, _NOT_STORED)


@router.get("/configuration")
async def get_node_configuration(
    request: Request,
    node: OwnNodeDep,
    fleet: FleetDep,
    feed: FeedDep,
    *,
    wait_seconds: Annotated[float, Query(ge=0, le=LONGEST_POLL, allow_inf_nan=False)] = 0.0,
) -> Response:
    """Return the configuration once it differs from the agent's."""
    configuration = feed.latest(node)
    header = ",".join(request.headers.getlist("if-none-match"))
    if configuration is not None and header:
        version = configuration.version
        if matching_etag(header, etag(version)) is not None:
            extend_deadline(request, wait_seconds)
            await feed.wait(node, version, wait_seconds)
            # It may have been deleted in the meantime.
            node = fleet.node(node.name)
            if node.version == version:
                headers = {**_NOT_STORED, "ETag": etag(version)}
                return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
            configuration = feed.latest(node)
    if configuration is None:
        await feed.refresh()
        configuration = feed.latest(fleet.node(node.name))
    headers = {**_NOT_STORED, "ETag": etag(configuration.version if configuration else 0)}
    if configuration is None or len(configuration.entries) <= _FEW:
        return JSONResponse(as_document(configuration), headers=headers)
    content = await asyncio.to_thread(as_json, configuration)
    return Response(content, headers=headers, media_type="application/json")


@router.post("/reports")
async def report_of_node(
    request: Request, node: OwnNodeDep, fleet: FleetDep, body: Annotated[dict[str, Any], Body()]
) -> Response:
    """Take in the node's report; the answer has its allotments."""
    try:
        if len(await request.body()) > _SMALL:
            report = await asyncio.to_thread(from_document, NodeReport, body)
        else:
            report = from_document(NodeReport, body)
        if len(report.entries) > MOST_ENTRIES:
            raise ValueError(f"/entries: more than {MOST_ENTRIES}")  # noqa: TRY301 - as the others
    except ValueError as error:
        reason = str(error)[:_LONGEST_REASON]
        raise validation_error("body", code="report", detail=reason) from error
    answer = await fleet.hear(node, report)
    return JSONResponse(as_document(answer), headers=_NOT_STORED)
