"""What the agent needs of the service, however it reaches it: see `app.domain.nodes.documents`."""

from __future__ import annotations

from typing import Protocol

from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.documents import NodeSession, ReportAnswer
from app.domain.nodes.report import NodeReport


class ControlPlane(Protocol):
    """The service, as one node's agent sees it.

    Every method raises a `ServiceError` when it is away or refuses.
    """

    async def open_session(self) -> NodeSession:
        """Begin as the node's agent: reports of earlier ones are refused from now on."""

    async def configuration(self, known: int | None) -> NodeConfiguration | None:
        """The configuration, as soon as its version is not *known*; None: it still is."""

    async def report(self, report: NodeReport) -> ReportAnswer:
        """Say what is in force; the answer has the allotments.

        Raises:
            AgentReplaced: another agent has begun for this node.
            ReportLate: a later report was accepted already.
        """
