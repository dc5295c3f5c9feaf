"""Clients of a running service: `Client`, and `AsyncClient` for asyncio.

    from poolkeeper import api
    from poolkeeper.client import Client

    with Client("http://127.0.0.1:8080") as client:
        client.send(api.put_tenant("acme", strategy="per_tenant"))
        client.send(api.provision_tenant("acme"))
        print(client.send(api.run_query("acme", sql="select 42"))["rows"])

They send the requests of `poolkeeper.api`. A request whose response asks for a retry (429, 503, a
key in flight) is sent again after the requested time. A request whose connection broke is sent
again once, if that is safe; idempotency keys make actions safe to repeat.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self, TypeVar, Unpack

import httpx

from poolkeeper.errors import InvalidRequest
from poolkeeper.exchange import (
    Conditions,
    Exchange,
    Pages,
    Response,
    event_of,
    failure,
    problem_of,
    shown,
)
from poolkeeper.request import ListRequest, Request

DEFAULT_URL = "http://127.0.0.1:8080"
# Seconds to connect, to send, and to receive something: as long as the service allows a request to
# take.
_TIMEOUT = 60.0
_ATTEMPTS = 5
_STREAM = "/v1/stats/stream"

T = TypeVar("T")
Item = TypeVar("Item")
HttpClient = TypeVar("HttpClient", httpx.Client, httpx.AsyncClient)


class Client:
    """A client of one service; a context manager. Threads may share it.

    Every method may raise a `PoolkeeperError`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = _TIMEOUT,
        attempts: int = _ATTEMPTS,
    ) -> None:
        """Connect at the first request.

        Args:
            timeout: seconds to wait for a connection, and for each part of a response.
            attempts: how many times a request is sent if responses ask for a retry.

        Raises:
            InvalidRequest: the address, the key, or a proxy in the environment is invalid.
        """
        self._http = _open(httpx.Client, url, api_key, timeout)
        self._attempts = attempts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({shown(self._http.base_url)!r})"

    def send(self, request: Request[T], **conditions: Unpack[Conditions]) -> T:
        """Send a request and return the response's document."""
        return self.response(request, **conditions).document

    def response(self, request: Request[T], **conditions: Unpack[Conditions]) -> Response[T]:
        """Send a request and return the response, with its ETag."""
        exchange = Exchange(self._http, request, conditions, attempts=self._attempts)
        while True:
            try:
                exchange.receive(self._http.send(exchange.sent))
            except httpx.HTTPError as error:
                exchange.fail(error)
            if exchange.response is not None:
                return exchange.response
            time.sleep(exchange.pause)

    def items(self, request: ListRequest[Any, Item], *, limit: int | None = None) -> Iterator[Item]:
        """Yield the items of a list, page by page; at most *limit*."""
        pages = Pages(request, limit)
        while pages.next is not None:
            yield from pages.receive(self.send(pages.next))

    def stream_stats(self) -> Iterator[dict[str, Any]]:
        """Yield the service's statistics after each poll, until it stops."""
        try:
            with self._http.stream("GET", _STREAM) as response:
                if not response.is_success:
                    response.read()
                    raise problem_of(response)
                for line in response.iter_lines():
                    if (event := event_of(line, self._http.base_url)) is not None:
                        yield event
        except httpx.HTTPError as error:
            raise failure(error, self._http.base_url) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class AsyncClient:
    """A client of one service for asyncio; an async context manager. Tasks may share it.

    Every method may raise a `PoolkeeperError`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = _TIMEOUT,
        attempts: int = _ATTEMPTS,
    ) -> None:
        """Connect at the first request; the arguments are those of `Client`."""
        self._http = _open(httpx.AsyncClient, url, api_key, timeout)
        self._attempts = attempts

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({shown(self._http.base_url)!r})"

    async def send(self, request: Request[T], **conditions: Unpack[Conditions]) -> T:
        """Send a request and return the response's document."""
        return (await self.response(request, **conditions)).document

    async def response(self, request: Request[T], **conditions: Unpack[Conditions]) -> Response[T]:
        """Send a request and return the response, with its ETag."""
        exchange = Exchange(self._http, request, conditions, attempts=self._attempts)
        while True:
            try:
                exchange.receive(await self._http.send(exchange.sent))
            except httpx.HTTPError as error:
                exchange.fail(error)
            if exchange.response is not None:
                return exchange.response
            await asyncio.sleep(exchange.pause)

    async def items(
        self, request: ListRequest[Any, Item], *, limit: int | None = None
    ) -> AsyncIterator[Item]:
        """Yield the items of a list, page by page; at most *limit*."""
        pages = Pages(request, limit)
        while pages.next is not None:
            for item in pages.receive(await self.send(pages.next)):
                yield item

    async def stream_stats(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the service's statistics after each poll, until it stops."""
        try:
            async with self._http.stream("GET", _STREAM) as response:
                if not response.is_success:
                    await response.aread()
                    raise problem_of(response)
                async for line in response.aiter_lines():
                    if (event := event_of(line, self._http.base_url)) is not None:
                        yield event
        except httpx.HTTPError as error:
            raise failure(error, self._http.base_url) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _open(
    kind: Callable[..., HttpClient], url: str, api_key: str | None, timeout: float
) -> HttpClient:
    headers = {"Accept": "application/json"}
    if api_key is not None:
        if not (api_key.isascii() and api_key.isprintable()):
            raise InvalidRequest("The API key contains characters that no key has.")
        headers["Authorization"] = f"Bearer {api_key}"
    try:
        address = httpx.URL(url.rstrip("/"))
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidRequest(f"{url} is not a valid URL of a service.") from error
    # Only TLS needs certificate authorities; loading them takes longer than most requests.
    uses_tls = address.scheme == "https"
    try:
        return kind(base_url=address, headers=headers, timeout=timeout, verify=uses_tls)
    except (httpx.InvalidURL, ValueError, OSError) as error:
        message = f"Cannot use the proxy or certificate file set in the environment: {error}."
        raise InvalidRequest(message) from error
