"""A running service as the commands see it: requests out, JSON in, failures as one sentence.

Translates everything that can go wrong on the way into `RemoteError`; prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from enum import IntEnum
from http.client import CONFLICT
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from app.runtime.printable import printable

_PAGE = 200
_PATIENCE_SECONDS = 60.0
# A reply that asks for patience is asked again so often, and never after a longer pause.
_ATTEMPTS = 5
_LONGEST_PAUSE_SECONDS = 10.0
_AUTHENTICATION = frozenset({401, 403})
# 409 only with Retry-After: the same request is still under way. Other conflicts stay.
_LATER = frozenset({429, 503})
_BAD_SURROUNDINGS = "A proxy or a file of certificates that the environment names cannot be used"
_NO_TEXT = "An argument is not text in UTF-8."

Document = dict[str, Any]


class ExitStatus(IntEnum):
    """How a command ends, for scripts."""

    REFUSED = 1
    """The service answered, and would not."""

    USAGE = 2
    """The command was not understood; nothing was sent."""

    UNREACHABLE = 3
    """No answer came."""

    FORBIDDEN = 4
    """The key is missing, unknown, or lacks the scope."""


class ApiError(Exception):
    """What went wrong, in one sentence, and how the command ends."""

    def __init__(
        self, message: str, exit_status: ExitStatus, *, http_status: int | None = None
    ) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.http_status = http_status


class ApiClient:
    """One service at one address; use as a context manager.

    Args:
        url: where it listens, such as http://127.0.0.1:8080.
        api_key: sent as a bearer token; None where no keys are configured.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        headers = {"Accept": "application/json"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        self.url = url.rstrip("/")
        try:
            address = httpx.URL(self.url)
        except (httpx.InvalidURL, ValueError) as error:
            raise ApiError(f"{url} is no address of a service.", ExitStatus.USAGE) from error
        try:
            self._client = httpx.Client(
                base_url=address, headers=headers, timeout=_PATIENCE_SECONDS
            )
        except (httpx.InvalidURL, ValueError, OSError) as error:
            raise ApiError(f"{_BAD_SURROUNDINGS}: {error}.", ExitStatus.USAGE) from error

    def __enter__(self) -> Self:
        """Use it for a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close its connections."""
        self._client.close()

    def get(self, path: str, **params: object) -> Document:
        """What is there.

        Raises:
            RemoteError
        """
        return self._ask("GET", path, params)

    def items(self, path: str, *, most: int | None = None, **params: object) -> Iterator[Document]:
        """The items of a list, page after page; at most *most* of them.

        Raises:
            RemoteError
        """
        left = most
        cursor = None
        while left is None or left > 0:
            limit = _PAGE if left is None else min(left, _PAGE)
            page = self.get(path, **params, limit=limit, cursor=cursor)
            if not isinstance(page.get("items"), list):
                raise self._stranger()
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return
            left = None if left is None else left - len(page["items"])

    def put(self, path: str, body: Mapping[str, object], **params: object) -> Document:
        """Say what is wanted.

        Raises:
            RemoteError
        """
        return self._ask("PUT", path, params, body)

    def post(self, path: str, **params: object) -> Document:
        """Ask for an action.

        Raises:
            RemoteError
        """
        return self._ask("POST", path, params)

    def delete(self, path: str, **params: object) -> Document:
        """Have it removed.

        Raises:
            RemoteError
        """
        return self._ask("DELETE", path, params)

    def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, object],
        body: Mapping[str, object] | None = None,
    ) -> Document:
        given = {name: _text(value) for name, value in params.items() if value is not None}
        for attempt in range(1, _ATTEMPTS + 1):
            answer = self._send(method, path, given, body)
            if not _is_for_later(answer) or attempt == _ATTEMPTS:
                break
            time.sleep(min(_retry_after(answer), _LONGEST_PAUSE_SECONDS))
        if not answer.is_success:
            raise _refusal(answer)
        try:
            document = answer.json()
        except (ValueError, RecursionError) as error:
            raise self._stranger() from error
        if not isinstance(document, dict):
            raise self._stranger()
        return document

    def _stranger(self) -> ApiError:
        return ApiError(f"{self.url} does not answer like Poolkeeper.", ExitStatus.REFUSED)

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
            raise ApiError(_NO_TEXT, ExitStatus.USAGE) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ApiError(f"{self.url} is no address of a service.", ExitStatus.USAGE) from error
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise ApiError(f"Cannot reach {self.url}: {why}", ExitStatus.UNREACHABLE) from error


def path_segment(name: str) -> str:
    """*name* as one segment of a path: what it says never leads to another resource.

    Raises:
        RemoteError: it cannot be a single segment, or is no text.
    """
    if "/" in name or not name.strip("."):
        raise ApiError(f'"{name}" is no id.', ExitStatus.USAGE)
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise ApiError(_NO_TEXT, ExitStatus.USAGE) from error


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_for_later(answer: httpx.Response) -> bool:
    is_in_flight = answer.status_code == CONFLICT and "retry-after" in answer.headers
    return is_in_flight or answer.status_code in _LATER


def _retry_after(answer: httpx.Response) -> float:
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else 1.0


def _refusal(answer: httpx.Response) -> ApiError:
    """The problem of an answer as a sentence, with each field that was wrong on its own line."""
    code = ExitStatus.FORBIDDEN if answer.status_code in _AUTHENTICATION else ExitStatus.REFUSED
    try:
        problem = answer.json()
        sentence = printable(str(problem["detail"]))
        wrong = [
            printable(f"  {each['pointer']}: {each['detail']}")
            for each in problem.get("errors") or ()
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        sentence, wrong = f"HTTP {answer.status_code} from {answer.request.url.path}.", []
    return ApiError("\n".join([sentence, *wrong]), code, http_status=answer.status_code)
