"""Whether a connection is private: passwords need TLS, or must stay on the machine."""

from __future__ import annotations

from app.domain.loopback import is_loopback


def is_private(scheme: str, host: str | None) -> bool:
    """Whether nobody else can read the traffic with *host*; None: a Unix socket."""
    return scheme == "https" or host is None or is_loopback(host)
