"""TLS between applications and a node."""

import asyncio
import os
import socket
import ssl
import struct
from pathlib import Path
from typing import cast

import pytest
import trustme
from structlog.testing import capture_logs

from app.node import agent as module
from app.node.agent import Agent
from app.node.process import Account
from tests.fixtures.tls import Authorities, write_certificate
from tests.node.site import Site, reloads
from tests.node.test_files_changed_by_others import CHANGED

_SSL_REQUEST = struct.pack("!II", 8, 80_877_103)
_DEADLINE = 180.0


async def test_a_certificate_that_is_replaced_is_shown_from_then_on(
    site: Site, authorities: Authorities, enterable_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELOAD_INTERVAL", 0.0)
    key, chain = enterable_path / "node.key", enterable_path / "node.pem"
    give(authorities.ours.issue_cert("first.example.com"), key, chain)
    engine = site.engine(certificate=chain, key=key)
    agent = Agent(engine, site.configuration())
    await agent.start()
    try:
        await agent.look()
        assert await shown(site, authorities) == "first.example.com"
        # In the middle of the replacement there is none.
        remove(chain)
        await agent.look()
        assert await shown(site, authorities) == "first.example.com"
        give(authorities.ours.issue_cert("second.example.com"), key, chain)
        before = reloads(site)
        with capture_logs() as logs:
            await agent.look()
        assert reloads(site) == before + 1
        assert CHANGED not in [entry["event"] for entry in logs]
        assert await shown(site, authorities) == "second.example.com"
        before = reloads(site)
        await agent.look()
        assert reloads(site) == before
    finally:
        await engine.stop(patience=0.0)


def give(certificate: trustme.LeafCert, key: Path, chain: Path) -> None:
    """Write a certificate for the node to show."""
    account = Account.choose()
    write_certificate(certificate, key=key, chain=chain)
    for path in (key, chain):
        os.chown(path, -1 if account.uid is None else account.uid, -1)


def remove(path: Path) -> None:
    path.unlink()


async def shown(site: Site, authorities: Authorities) -> str:
    """The name in the certificate that an application sees."""
    return await asyncio.to_thread(_shown, site.port, authorities.file)


def _shown(port: int, ca_file: Path) -> str:
    context = ssl.create_default_context(cafile=ca_file)
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", port), timeout=_DEADLINE) as connection:
        connection.sendall(_SSL_REQUEST)
        assert connection.recv(1) == b"S"
        with context.wrap_socket(connection) as encrypted:
            certificate = encrypted.getpeercert()
    assert certificate is not None
    [(_, name)] = cast("tuple[tuple[str, str]]", certificate["subjectAltName"])
    return name
