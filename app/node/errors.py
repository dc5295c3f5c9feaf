"""Errors on a node; each message says what to do, and contains no password."""


class NodeError(Exception):
    """The node cannot do what was requested."""


class CannotRender(NodeError):
    """A configuration has something that the pooler's files cannot express."""


class CannotStart(NodeError):
    """The pooler does not start, or may not be used."""


class NotInForce(NodeError):
    """The pooler has read its files, but does not do what they say."""


class ConsoleLost(NodeError):
    """The pooler's console does not answer: it is gone, or hangs."""


class NothingListens(ConsoleLost):
    """No pooler listens on the console's socket."""


class CommandRefused(NodeError):
    """The console answered a command with an error."""


class ServiceError(Exception):
    """The service did not do what the agent requested; the text is for the operator."""


class ServiceAway(ServiceError):
    """No answer, or one that asks to try again."""


class ServiceRefuses(ServiceError):
    """The answer will stay the same until an operator changes something."""


class ReportLate(ServiceError):
    """A later report of this agent has already been accepted."""


class SessionUnknown(ServiceError):
    """The service knows no such session, because its catalog was restored."""


class AgentReplaced(ServiceError):
    """Another agent has started for the same node."""
