"""The logic between a request and its response, without I/O: what to send, when to repeat it.

A client sends the request of an `Exchange`, and gives it the response or the failure.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from http.client import CONFLICT, SERVICE_UNAVAILABLE, TOO_MANY_REQUESTS
from typing import Any, Generic, TypedDict, TypeVar
from uuid import uuid4

import httpx

from poolkeeper.body import encoded
from poolkeeper.errors import InvalidRequest, ProblemError, UnexpectedResponse, Unreachable
from poolkeeper.request import NOT_UTF_8, ListRequest, Request

_MAX_PAUSE_SECONDS = 10.0
_PAGE_SIZE = 500
_RETRYABLE = frozenset({CONFLICT, TOO_MANY_REQUESTS, SERVICE_UNAVAILABLE})
# These last until a person ends them.
_FOR_A_PERSON = frozenset({"pool-paused", "tenant-login-failed"})
_KEY = "Idempotency-Key"
_DATA = "data: "

T = TypeVar("T")
Item = TypeVar("Item")


class Conditions(TypedDict, total=False):
    """The conditions under which a request is carried out."""

    if_match: str
    """Only for the version with this ETag."""

    if_none_match: str
    """`*`: only create, never change."""

    idempotency_key: str
    """Do not repeat it if it was already carried out with this key."""


_HEADERS = {"if_match": "If-Match", "if_none_match": "If-None-Match", "idempotency_key": _KEY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Response(Generic[T]):
    """A response with its headers.

    Attributes:
        etag: the version of the resource, for `if_match` of a later change.
        request_id: identifies the request in the service's log.
        replayed: whether the idempotency key was used before, so that nothing was done this time.
    """

    document: T
    etag: str | None
    request_id: str | None
    replayed: bool


class Exchange(Generic[T]):
    """A request until its response.

    Attributes:
        sent: the request as httpx's object; send it until there is a response.
        pause: seconds to wait before it is sent again.
        response: the final response.
    """

    def __init__(
        self,
        client: httpx.Client | httpx.AsyncClient,
        request: Request[T],
        conditions: Conditions,
        *,
        attempts: int,
    ) -> None:
        self.pause = 0.0
        self.response: Response[T] | None = None
        self._url = client.base_url
        self._is_list = isinstance(request, ListRequest)
        self._attempts_left = attempts
        headers = {_HEADERS[name]: str(value) for name, value in conditions.items()}
        # With a condition, a repetition after a success would be refused.
        self._is_repeatable = request.method in {"GET", "PUT"} and not headers
        if request.sends_key:
            headers.setdefault(_KEY, uuid4().hex)
        self._is_repeatable |= _KEY in headers
        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                raise InvalidRequest(f"{name} must consist of visible ASCII characters.")
        query: Any = {name: value for name, value in request.query.items() if value is not None}
        content = None
        if request.body is not None:
            content = encoded(request.body)
            headers["Content-Type"] = "application/json"
        try:
            self.sent = client.build_request(
                request.method, request.path, params=query, content=content, headers=headers
            )
        except UnicodeEncodeError as error:
            raise InvalidRequest(NOT_UTF_8) from error

    def receive(self, response: httpx.Response) -> None:
        """Take a response: the end, or a reason to send the request again.

        Raises:
            ProblemError, UnexpectedResponse
        """
        self._attempts_left -= 1
        if response.is_success:
            self.response = Response(
                document=self._document(response),
                etag=response.headers.get("etag"),
                request_id=response.headers.get("x-request-id"),
                replayed="idempotency-replayed" in response.headers,
            )
            return
        problem = problem_of(response)
        if not (self._attempts_left and _asks_for_retry(problem)):
            raise problem
        self.pause = min(_retry_after(response), _MAX_PAUSE_SECONDS)

    def fail(self, error: httpx.HTTPError) -> None:
        """Take a failure to send or receive.

        Raises:
            InvalidRequest, Unreachable: the request cannot be sent again.
        """
        # The service may have closed a connection that was kept for the next request.
        is_lost = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError)
        if not (is_lost and self._is_repeatable):
            raise failure(error, self._url) from error
        self._is_repeatable = False
        self.pause = 0.0

    def _document(self, response: httpx.Response) -> Any:  # noqa: ANN401 - it has the request's type
        try:
            document = response.json(parse_float=_exact)
        except (ValueError, RecursionError) as error:
            raise _unexpected(self._url) from error
        if not isinstance(document, dict):
            raise _unexpected(self._url)
        if self._is_list and not isinstance(document.get("items"), list):
            raise _unexpected(self._url)
        return document


class Pages(Generic[Item]):
    """The items of a list, page by page.

    Attributes:
        next: the request of the next page; None after the last one.
    """

    def __init__(self, request: ListRequest[Any, Item], limit: int | None) -> None:
        self._request = request
        self._left = limit
        self.next = None if limit == 0 else self._page(None)

    def receive(self, page: Mapping[str, Any]) -> list[Item]:
        """The items of a page."""
        items: list[Item] = page["items"]
        if self._left is not None:
            self._left = max(0, self._left - len(items))
        cursor = page.get("next_cursor")
        self.next = None if cursor is None or self._left == 0 else self._page(cursor)
        return items

    def _page(self, cursor: str | None) -> ListRequest[Any, Item]:
        size = _PAGE_SIZE if self._left is None else min(self._left, _PAGE_SIZE)
        query = {**self._request.query, "limit": size, "cursor": cursor}
        return ListRequest(self._request.method, self._request.path, query)


def _exact(text: str) -> float | Decimal:
    """A number of a response; a Decimal if a float has another value, as in a jsonb of a row."""
    number = float(text)
    if (digits := repr(number)) == text:
        return number
    try:
        exact = Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        return number
    return number if Decimal(digits) == exact else exact


def failure(error: httpx.HTTPError, url: httpx.URL) -> InvalidRequest | Unreachable:
    """Translate a failure of httpx."""
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return InvalidRequest(f"{shown(url)} is not a valid URL of a service.")
    return Unreachable(f"Cannot reach {shown(url)}: {str(error) or type(error).__name__}")


def shown(url: httpx.URL) -> str:
    """Return an address without its password."""
    return str(url.copy_with(userinfo=b"")).rstrip("/")


def problem_of(response: httpx.Response) -> ProblemError:
    """Read the problem in an unsuccessful response."""
    try:
        document = response.json()
    except (ValueError, RecursionError):
        document = None
    return ProblemError(response.status_code, document if isinstance(document, dict) else {})


def event_of(line: str, url: httpx.URL) -> dict[str, Any] | None:
    """Parse a line of server-sent events from *url*; None if it has no document.

    Raises:
        UnexpectedResponse: the document is not one of the service's.
    """
    if not line.startswith(_DATA):
        return None
    try:
        event = json.loads(line.removeprefix(_DATA))
    except (ValueError, RecursionError) as error:
        raise _unexpected(url) from error
    if not isinstance(event, dict):
        raise _unexpected(url)
    return event


def _unexpected(url: httpx.URL) -> UnexpectedResponse:
    return UnexpectedResponse(f"{shown(url)} does not respond like Poolkeeper.")


def _asks_for_retry(problem: ProblemError) -> bool:
    """Whether nothing was done and the same request may succeed soon; proxies say so by 503."""
    if problem.status not in _RETRYABLE or problem.code in _FOR_A_PERSON:
        return False
    return problem.retryable if problem.code else problem.status != CONFLICT


def _retry_after(response: httpx.Response) -> float:
    seconds = response.headers.get("retry-after", "")
    return float(seconds) if seconds.isdecimal() else 1.0
