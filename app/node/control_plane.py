"""The service as the agent uses it, by any transport: see `app.domain.nodes.documents`."""

from typing import Protocol

from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.documents import NodeSession, ReportAnswer
from app.domain.nodes.report import NodeReport


class ControlPlane(Protocol):
    """The service, as a node's agent sees it.

    Every method raises a `ServiceError` if the service is away or refuses.
    """

    async def open_session(self) -> NodeSession:
        """Start a session as the node's agent: reports of earlier ones are refused from now on."""

    async def configuration(self, known: int | None) -> NodeConfiguration | None:
        """Wait for a configuration with another version than *known*; None: there is no other."""

    async def report(self, report: NodeReport) -> ReportAnswer:
        """Report what is in force; the answer has the allotments.

        Raises:
            AgentReplaced: another agent has started for this node.
            ReportLate, SessionUnknown: another session is needed.
        """
