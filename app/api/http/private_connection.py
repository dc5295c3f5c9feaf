"""Whether a connection is private: passwords need TLS, or must stay on the machine."""

from __future__ import annotations

from ipaddress import ip_address


def is_private(scheme: str, host: str | None) -> bool:
    """Whether nobody else can read the traffic with *host*; None: a Unix socket."""
    if scheme == "https" or host in {None, "localhost"}:
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False
