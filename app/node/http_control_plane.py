"""The service over HTTPS: uses one of several addresses, and the next if that does not answer.

All instances give the same answers: a standby forwards to the active one. The answers contain
passwords: they need verified TLS, and are never logged.
"""

import asyncio
import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import httpx

from app.domain.loopback import is_loopback
from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.documents import (
    ANSWER_SECONDS,
    LONGEST_POLL,
    NodeSession,
    ReportAnswer,
    as_json,
    from_document,
)
from app.domain.nodes.report import NodeReport
from app.node.errors import (
    AgentReplaced,
    CannotStart,
    ReportLate,
    ServiceAway,
    ServiceError,
    ServiceRefuses,
    SessionUnknown,
)
from app.node.threads import in_thread

# In seconds. Another server may answer in the meantime.
_CONNECT_SECONDS = 3.0
# Stands for the node that the key is bound to.
OWN = "self"
_ERRORS: dict[str, type[ServiceError]] = {
    "node-session-ended": AgentReplaced,
    "node-report-late": ReportLate,
    "node-session-unknown": SessionUnknown,
}
# From a standby that reaches the active instance without TLS: ask the active one itself.
_IN_CLEAR = "tls-required"
# Anyio raises AttributeError on uvloop if a connection is reset while it is opened.
_NO_ANSWER = (httpx.HTTPError, OSError, TimeoutError, AttributeError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """A response that was read to its end."""

    status: int
    body: bytes


class HttpControlPlane:
    """The service at *urls*; it uses one of them at a time."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        key_file: Path | None,
        node: str = OWN,
        ca_file: Path | None = None,
    ) -> None:
        """Connect at the first request.

        Args:
            key_file: the API key, read before each request, because it may be replaced. None if the
                service needs none.
            node: the node's name; with a key, the service knows it.
            ca_file: certificates of the authorities for the service's certificate; None: the
                system's.

        Raises:
            CannotStart: an address is invalid or would send passwords in clear, or a file is bad.
        """
        self._urls = [_checked(url) for url in urls]
        self._current = 0
        self._path = f"/v1/nodes/{node}/"
        self._key_file = key_file
        self._authorization()
        self._http = httpx.AsyncClient(
            verify=_tls(ca_file),
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            trust_env=False,  # no proxy reads unencrypted traffic on loopback
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def open_session(self) -> NodeSession:
        return _read(NodeSession, await self._request("POST", "session"))

    async def configuration(self, known: int | None) -> NodeConfiguration | None:
        if known is None:
            answer = await self._request("GET", "configuration")
        else:
            answer = await self._request(
                "GET",
                f"configuration?wait_seconds={LONGEST_POLL:g}",
                headers={"If-None-Match": f'"{known}"'},
                patience=LONGEST_POLL + ANSWER_SECONDS,
            )
        if answer.status == HTTPStatus.NOT_MODIFIED:
            return None
        # Reading thousands of entries takes long; in a thread, other tasks run meanwhile.
        return await in_thread(_read, NodeConfiguration, answer)

    async def report(self, report: NodeReport) -> ReportAnswer:
        return _read(
            ReportAnswer,
            await self._request(
                "POST",
                "reports",
                content=as_json(report),
                headers={"Content-Type": "application/json"},
            ),
        )

    async def _request(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        content: bytes = b"",
        patience: float = ANSWER_SECONDS,
    ) -> _Answer:
        """Return the current server's answer; without one, make the next server the current one."""
        current = self._current
        url = self._urls[current]
        try:
            authorization = self._authorization()
        except CannotStart as error:
            raise ServiceRefuses(str(error)) from error
        try:
            async with (
                asyncio.timeout(patience),
                self._http.stream(
                    method,
                    f"{url}{self._path}{path}",
                    headers={**authorization, **(headers or {})},
                    content=content,
                ) as response,
            ):
                # A response that keeps its body would hold it until the garbage collector runs.
                body = b"".join([part async for part in response.aiter_bytes()])
        except _NO_ANSWER as error:
            self._turn_from(current)
            raise ServiceAway(
                f"{url} does not answer: {str(error) or type(error).__name__}."
            ) from error
        answer = _Answer(status=response.status_code, body=body)
        if response.is_success or answer.status == HTTPStatus.NOT_MODIFIED:
            return answer
        raise self._refusal(answer, current)

    def _refusal(self, answer: _Answer, current: int) -> ServiceError:
        try:
            problem = json.loads(answer.body)
            code, detail = str(problem["code"]), str(problem["detail"])
        except (ValueError, LookupError, TypeError):
            code, detail = "", f"The response is HTTP {answer.status}."
        message = f"{self._urls[current]}: {detail}"
        if code in _ERRORS:
            return _ERRORS[code](message)
        if (
            answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            or answer.status == HTTPStatus.TOO_MANY_REQUESTS
        ):
            self._turn_from(current)
            return ServiceAway(message)
        if code == _IN_CLEAR:
            self._turn_from(current)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            message = f"{self._urls[current]} {self._key_trouble()}"
        return ServiceRefuses(message)

    def _key_trouble(self) -> str:
        if self._key_file is None:
            return "needs an API key: give --key-file."
        return (
            f"does not know the key in {self._key_file}, or it has expired: is it in the"
            " service's own file of keys?"
        )

    def _turn_from(self, current: int) -> None:
        """Use the next server, unless another request has already moved on from this one."""
        if self._current == current:
            self._current = (current + 1) % len(self._urls)

    def _authorization(self) -> dict[str, str]:
        if self._key_file is None:
            return {}
        try:
            key = self._key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise CannotStart(f"There is no API key to read in {self._key_file}.") from None
        if not key.isprintable() or " " in key or not key:
            raise CannotStart(f"There is no API key in {self._key_file}.")
        return {"Authorization": f"Bearer {key}"}


def _read(kind: type[T], answer: _Answer) -> T:
    try:
        return from_document(kind, json.loads(answer.body))
    except ValueError as error:
        # Without the cause, which may quote the document.
        message = f"The service sent what this version does not understand: {error}"
        raise ServiceRefuses(message) from None


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise CannotStart(f"{url} is not the URL of a service.") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        raise CannotStart(
            f"{url} is not the URL of a service, such as https://poolkeeper.example.com."
        )
    if parsed.scheme == "http" and not is_loopback(parsed.host):
        raise CannotStart(f"{url} would send passwords in clear. Use https.")
    return url.rstrip("/")


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise CannotStart(f"The certificates in {ca_file} cannot be used: {error}") from error
