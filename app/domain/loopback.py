"""Whether traffic stays on this machine."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether *host* is `localhost` or an address that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # another name, `*`, or several addresses
        return False


def is_private(scheme: str, host: str | None) -> bool:
    """Whether nobody else can read the traffic with *host*; None: a Unix socket."""
    return scheme == "https" or host is None or is_loopback(host)
