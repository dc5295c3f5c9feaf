"""A service that does what a test says: an agent's `ControlPlane` without HTTP."""

import asyncio
from dataclasses import dataclass, field

from app.domain.nodes.allotment import Allotment
from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.documents import NodeSession, ReportAnswer
from app.domain.nodes.report import NodeReport
from app.node.errors import AgentReplaced, ServiceAway
from tests.node.configurations import SERVER


@dataclass(slots=True)
class ScriptedService:
    """A service that gives one node its configuration, and receives its reports.

    Attributes:
        divides: whether it answers with allotments; a new leader does not before it has divided.
    """

    latest: NodeConfiguration
    is_away: bool = False
    divides: bool = True
    reports: list[NodeReport] = field(default_factory=list)
    session: int = 0
    asked: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _is_calling: bool = False

    def change(self, configuration: NodeConfiguration) -> None:
        self.latest = configuration
        self._changed.set()
        self._changed = asyncio.Event()

    def call(self) -> None:
        """Let the agent report at once."""
        self._is_calling = True
        self.change(self.latest)

    async def open_session(self) -> NodeSession:
        self._answer()
        self.session += 1
        return NodeSession(node="edge", session=self.session)

    async def configuration(self, known: int | None) -> NodeConfiguration | None:
        self._answer()
        if known == self.latest.version and not self._is_calling:
            await self._changed.wait()
            self._answer()
        is_calling, self._is_calling = self._is_calling, False
        return None if is_calling else self.latest

    async def report(self, report: NodeReport) -> ReportAnswer:
        self._answer()
        if report.session != self.session:
            raise AgentReplaced("A later agent has begun.")
        self.reports.append(report)
        return ReportAnswer(allotments=self.allotments, version=self.latest.version)

    @property
    def allotments(self) -> dict[str, Allotment]:
        return {SERVER: self.latest.servers[SERVER].allotment} if self.divides else {}

    def _answer(self) -> None:
        self.asked += 1
        if self.is_away:
            raise ServiceAway("The service does not answer.")
