"""TCP keepalive: the kernel closes a connection whose peer is gone."""

import asyncio
import socket

# Half a minute without an answer to probes or data; options that a system lacks are left out.
_SILENCE = {
    "TCP_KEEPIDLE": 15,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 30_000,
}


def notice_silence(transport: asyncio.BaseTransport | None) -> None:
    """Let the kernel close a connection whose peer is silent, so that nobody waits for it.

    Raises:
        OSError: the socket has no such option, or is closed.
    """
    connected = transport.get_extra_info("socket") if transport is not None else None
    # The other end of a Unix socket is on our own kernel, and cannot fall silent.
    if connected is None or connected.family == socket.AF_UNIX:
        return
    # uvloop's own error would be a ValueError.
    if connected.fileno() < 0:
        raise ConnectionResetError("The connection is closed.")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _SILENCE.items():
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
