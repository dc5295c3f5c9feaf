"""The state of a server."""

from enum import StrEnum


class ServerState(StrEnum):
    """Whether the server accepts connections."""

    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"
