"""The agent's way to the service: verified TLS, and the server that answers."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.domain.nodes.allotment import Allotment
from app.domain.nodes.documents import NodeSession, ReportAnswer, as_document
from app.domain.nodes.report import NodeReport
from app.node.errors import (
    AgentReplaced,
    CannotStart,
    ReportLate,
    ServiceAway,
    ServiceRefuses,
    SessionUnknown,
)
from app.node.http_control_plane import HttpControlPlane
from tests.fixtures.ports import free_port
from tests.fixtures.tls import Authorities
from tests.node.configurations import configuration, entry

KEY = "poolkeeper_00000000_secret"
SESSION = NodeSession(node="edge", session=7)
NODE = configuration(entry("acme", logins=("acme.web",)))
REPORT = NodeReport(
    session=7, sequence=1, version=1, engine="PgBouncer 1.18.0", servers={}, entries=()
)


@dataclass(slots=True)
class Server:
    """Answers each request with the next of `answers`, a status and a document; then no more."""

    scheme: str
    port: int
    answers: list[tuple[int, Any]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heard.append(head)
        if self.answers:
            status, document = self.answers.pop(0)
            body = b"" if document is None else json.dumps(document).encode()
            writer.write(
                f"HTTP/1.1 {status} X\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
            )
            writer.write(body)
        writer.close()


@asynccontextmanager
async def server(
    *answers: tuple[int, Any], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """A service for one block, with these answers in this order."""
    scripted = Server("https" if tls else "http", 0, list(answers))
    async with await asyncio.start_server(scripted.answer, "127.0.0.1", 0, ssl=tls) as listening:
        scripted.port = listening.sockets[0].getsockname()[1]
        yield scripted


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    return path


def problem(code: str) -> dict[str, str]:
    return {"code": code, "detail": f"It is {code}."}


async def test_it_asks_with_its_key_and_takes_what_it_understands(key_file: Path) -> None:
    answer = ReportAnswer(allotments={"local": Allotment(generation=2, connections=9)}, version=1)
    async with server(
        (201, as_document(SESSION)),
        (200, as_document(NODE)),
        (304, None),
        (200, as_document(answer)),
        (200, {"version": 3, "servers": "secret"}),
    ) as scripted:
        service = HttpControlPlane([f"{scripted.url}/"], key_file=key_file)
        assert await service.open_session() == SESSION
        assert await service.configuration(None) == NODE
        assert await service.configuration(NODE.version) is None
        assert await service.report(REPORT) == answer
        with pytest.raises(ServiceRefuses, match="does not understand") as refusal:
            await service.configuration(None)
        assert "secret" not in repr(refusal.value)
        await service.close()
    session, whole, later, reports, _ = scripted.heard
    assert session.startswith("POST /v1/nodes/self/session ")
    assert whole.startswith("GET /v1/nodes/self/configuration ")
    assert later.startswith("GET /v1/nodes/self/configuration?wait_seconds=25 ")
    assert 'if-none-match: "1"' in later.lower()
    assert reports.startswith("POST /v1/nodes/self/reports ")
    assert all(f"Bearer {KEY}\r\n" in head for head in scripted.heard)


async def test_an_unknown_key_is_named_by_its_file(key_file: Path) -> None:
    async with server((401, problem("unauthenticated")), (401, None)) as scripted:
        for keys, said in [
            (key_file, f"does not know the key in {key_file}"),
            (None, "--key-file"),
        ]:
            service = HttpControlPlane([scripted.url], key_file=keys)
            with pytest.raises(ServiceRefuses, match=said):
                await service.open_session()
            await service.close()


async def test_the_next_server_is_used_when_one_does_not_answer(key_file: Path) -> None:
    async with (
        server((503, problem("starting")), (201, as_document(SESSION))) as first,
        server((201, as_document(SESSION))) as second,
    ):
        nobody = f"http://127.0.0.1:{free_port()}"
        service = HttpControlPlane([nobody, first.url, second.url], key_file=key_file)
        with pytest.raises(ServiceAway, match="does not answer"):
            await service.open_session()
        with pytest.raises(ServiceAway, match="It is starting"):
            await service.open_session()
        assert await service.open_session() == SESSION
        assert len(second.heard) == 1
        # It stays with that one until it does not answer, and then tries the others again.
        with pytest.raises(ServiceAway, match=second.url):
            await service.open_session()
        with pytest.raises(ServiceAway, match=nobody):
            await service.open_session()
        assert await service.open_session() == SESSION
        await service.close()


async def test_an_instance_that_would_forward_in_clear_is_not_asked_again(key_file: Path) -> None:
    async with (
        server((403, problem("tls-required"))) as standby,
        server((201, as_document(SESSION))) as active,
    ):
        service = HttpControlPlane([standby.url, active.url], key_file=key_file)
        with pytest.raises(ServiceRefuses, match="It is tls-required"):
            await service.open_session()
        assert await service.open_session() == SESSION
        await service.close()


async def test_a_refusal_is_told_apart_and_says_what_the_service_says(key_file: Path) -> None:
    async with server(
        (409, problem("node-session-ended")),
        (409, problem("node-report-late")),
        (409, problem("node-session-unknown")),
        (403, problem("bound-to-node")),
        (200, ["?"]),
        (502, None),
    ) as scripted:
        service = HttpControlPlane([scripted.url], key_file=key_file)
        for kind, words in (
            (AgentReplaced, "It is node-session-ended"),
            (ReportLate, "It is node-report-late"),
            (SessionUnknown, "It is node-session-unknown"),
            (ServiceRefuses, "It is bound-to-node"),
            (ServiceRefuses, "does not understand"),
            (ServiceAway, "HTTP 502"),
        ):
            with pytest.raises(kind, match=words):
                await service.open_session()
        await service.close()


async def test_an_answer_that_takes_too_long_is_none(key_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        service = HttpControlPlane([url], key_file=key_file)
        with pytest.raises(ServiceAway, match="TimeoutError"):
            await service._request("POST", "session", patience=0.2)
        await service.close()


async def test_only_the_service_itself_gets_the_key(
    key_file: Path, authorities: Authorities
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authorities.ours.issue_cert("127.0.0.1").configure_cert(context)
    elsewhere = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authorities.ours.issue_cert("elsewhere.example.com").configure_cert(elsewhere)
    for tls, ca_file in ((context, authorities.other_file), (elsewhere, authorities.file)):
        async with server(tls=tls) as scripted:
            service = HttpControlPlane([scripted.url], key_file=key_file, ca_file=ca_file)
            with pytest.raises(ServiceAway, match="certificate verify failed"):
                await service.open_session()
            assert not scripted.heard
            await service.close()
    async with server((201, as_document(SESSION)), tls=context) as scripted:
        service = HttpControlPlane([scripted.url], key_file=key_file, ca_file=authorities.file)
        assert await service.open_session() == SESSION
        await service.close()


@pytest.mark.parametrize(
    "url", ["http://poolkeeper.example.com", "ftp://127.0.0.1", "https://", "https://u:p@h", "x"]
)
def test_an_address_that_could_give_passwords_away_is_refused(url: str, key_file: Path) -> None:
    with pytest.raises(CannotStart):
        HttpControlPlane([url], key_file=key_file)


def test_a_file_without_a_key_is_refused(tmp_path: Path) -> None:
    for text in ("", "two words\n", "\N{SNOWMAN}"):
        (tmp_path / "key").write_text(text)
        with pytest.raises(CannotStart, match="no API key"):
            HttpControlPlane(["https://poolkeeper.example.com"], key_file=tmp_path / "key")
    with pytest.raises(CannotStart, match="no API key"):
        HttpControlPlane(["https://poolkeeper.example.com"], key_file=tmp_path / "nothing")
