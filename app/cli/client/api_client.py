"""HTTP client of a running service: requests out, JSON in, each failure one sentence.

Translates everything that can fail on the way into `ApiError`; prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from enum import IntEnum
from http.client import CONFLICT
from typing import Any, Self
from urllib.parse import quote

import httpx

from app.runtime.printable import printable

_PAGE_SIZE = 200
_TIMEOUT_SECONDS = 60.0
# A response with Retry-After is retried this often, each time after this pause at most.
_MAX_ATTEMPTS = 5
_MAX_PAUSE_SECONDS = 10.0
_AUTHENTICATION = frozenset({401, 403})
_RETRYABLE = frozenset({429, 503})
_BAD_ENVIRONMENT = "Cannot use the proxy or certificate file set in the environment"
_NOT_UTF_8 = "An argument is not valid UTF-8."

Document = dict[str, Any]


class ExitStatus(IntEnum):
    """Exit statuses of the commands, for scripts."""

    REFUSED = 1
    """The service responded with a refusal."""

    USAGE = 2
    """The command is invalid; nothing was sent."""

    UNREACHABLE = 3
    """The service did not respond."""

    FORBIDDEN = 4
    """The API key is missing, unknown, or lacks the scope."""

    PARTIAL = 5
    """Some changes were made, others failed."""

    INTERRUPTED = 130
    """Ctrl-C stopped a change, as shells report it."""


class ApiError(Exception):
    """What failed, in one sentence, and the exit status of the command.

    Attributes:
        code: of the problem that the service responded with.
    """

    def __init__(
        self,
        message: str,
        exit_status: ExitStatus,
        *,
        http_status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.http_status = http_status
        self.code = code


class ApiClient:
    """One service at one address; a context manager. Every request may raise `ApiError`."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        headers = {"Accept": "application/json"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        self.url = url.rstrip("/")
        try:
            address = httpx.URL(self.url)
        except (httpx.InvalidURL, ValueError) as error:
            raise _invalid_url(url) from error
        try:
            self._client = httpx.Client(base_url=address, headers=headers, timeout=_TIMEOUT_SECONDS)
        except (httpx.InvalidURL, ValueError, OSError) as error:
            raise ApiError(f"{_BAD_ENVIRONMENT}: {error}.", ExitStatus.USAGE) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **params: object) -> Document:
        return self._request("GET", path, params)

    def put(self, path: str, body: Mapping[str, object], **params: object) -> Document:
        return self._request("PUT", path, params, body)

    def post(self, path: str, **params: object) -> Document:
        return self._request("POST", path, params)

    def delete(self, path: str, **params: object) -> Document:
        return self._request("DELETE", path, params)

    def items(self, path: str, *, limit: int | None = None, **params: object) -> Iterator[Document]:
        """Yield the items of a list, page by page; at most *limit*."""
        left, cursor = limit, None
        while left is None or left > 0:
            size = _PAGE_SIZE if left is None else min(left, _PAGE_SIZE)
            page = self.get(path, **params, limit=size, cursor=cursor)
            if not isinstance(page.get("items"), list):
                raise self._not_poolkeeper()
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return
            left = None if left is None else left - len(page["items"])

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, object],
        body: Mapping[str, object] | None = None,
    ) -> Document:
        given = {name: _text(value) for name, value in params.items() if value is not None}
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            response = self._send(method, path, given, body)
            if not _is_retryable(response) or attempt == _MAX_ATTEMPTS:
                break
            time.sleep(min(_retry_after(response), _MAX_PAUSE_SECONDS))
        if not response.is_success:
            raise _refusal(response)
        try:
            document = response.json()
        except (ValueError, RecursionError) as error:
            raise self._not_poolkeeper() from error
        if not isinstance(document, dict):
            raise self._not_poolkeeper()
        return document

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        body: Mapping[str, object] | None,
    ) -> httpx.Response:
        try:
            return self._client.request(method, path, params=params, json=body)
        except UnicodeEncodeError as error:
            raise ApiError(_NOT_UTF_8, ExitStatus.USAGE) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise _invalid_url(self.url) from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ApiError(f"Cannot reach {self.url}: {reason}", ExitStatus.UNREACHABLE) from error

    def _not_poolkeeper(self) -> ApiError:
        return ApiError(f"{self.url} does not respond like Poolkeeper.", ExitStatus.REFUSED)


def path_segment(name: str) -> str:
    """Quote *name* as one segment of a path, so that it never addresses another resource.

    Raises:
        ApiError: it cannot be a single segment, or is not valid UTF-8.
    """
    if "/" in name or not name.strip("."):
        raise ApiError(f'"{name}" is not a valid id.', ExitStatus.USAGE)
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise ApiError(_NOT_UTF_8, ExitStatus.USAGE) from error


def _invalid_url(url: str) -> ApiError:
    return ApiError(f"{url} is not a valid URL of a service.", ExitStatus.USAGE)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_retryable(response: httpx.Response) -> bool:
    # 409 with Retry-After: the same request is still in flight. Other conflicts stay.
    is_in_flight = response.status_code == CONFLICT and "retry-after" in response.headers
    return is_in_flight or response.status_code in _RETRYABLE


def _retry_after(response: httpx.Response) -> float:
    seconds = response.headers.get("retry-after", "")
    return float(seconds) if seconds.isdecimal() else 1.0


def _refusal(response: httpx.Response) -> ApiError:
    """The problem details as a sentence, and each invalid field on its own line."""
    is_forbidden = response.status_code in _AUTHENTICATION
    exit_status = ExitStatus.FORBIDDEN if is_forbidden else ExitStatus.REFUSED
    code = None
    try:
        problem = response.json()
        code = problem.get("code")
        lines = [
            printable(str(problem["detail"])),
            *(
                printable(f"  {each['pointer']}: {each['detail']}")
                for each in problem.get("errors") or ()
            ),
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        lines = [f"HTTP {response.status_code} from {response.request.url.path}."]
    return ApiError("\n".join(lines), exit_status, http_status=response.status_code, code=code)
