"""The client of the API as the commands use it: by paths, with an exit status for each failure.

Translates every `PoolkeeperError` into `ApiError`; prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from http.client import FORBIDDEN, UNAUTHORIZED
from typing import Any, Self

from app.runtime.printable import printable
from poolkeeper.client import Client
from poolkeeper.errors import InvalidRequest, PoolkeeperError, ProblemError, Unreachable
from poolkeeper.request import ListRequest, Request, segment

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
        http_status, code: of the problem that the service responded with.
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
        with _api_errors():
            self._client = Client(url, api_key=api_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **params: object) -> Document:
        return self.request("GET", path, None, **params)

    def put(self, path: str, body: Mapping[str, object], **params: object) -> Document:
        return self.request("PUT", path, body, **params)

    def post(self, path: str, **params: object) -> Document:
        return self.request("POST", path, None, **params)

    def delete(self, path: str, **params: object) -> Document:
        return self.request("DELETE", path, None, **params)

    def request(
        self, method: str, path: str, body: Mapping[str, object] | None = None, **params: object
    ) -> Document:
        """Send a request; an action with an idempotency key, so that it can be repeated."""
        is_action = method in {"POST", "DELETE"}
        request: Request[Document] = Request(method, path, params, body, sends_key=is_action)
        with _api_errors():
            return self._client.send(request)

    def items(self, path: str, *, limit: int | None = None, **params: object) -> Iterator[Document]:
        """Yield the items of a list, page by page; at most *limit*."""
        request: ListRequest[Document, Document] = ListRequest("GET", path, params)
        with _api_errors():
            yield from self._client.items(request, limit=limit)


def path_segment(name: str) -> str:
    """Quote *name* as one segment of a path, so that it never addresses another resource.

    Raises:
        ApiError: it cannot be a single segment, or is not valid UTF-8.
    """
    with _api_errors():
        return segment(name)


@contextmanager
def _api_errors() -> Iterator[None]:
    try:
        yield
    except ProblemError as error:
        is_forbidden = error.status in {UNAUTHORIZED, FORBIDDEN}
        raise ApiError(
            "\n".join(map(printable, error.lines)),
            ExitStatus.FORBIDDEN if is_forbidden else ExitStatus.REFUSED,
            http_status=error.status,
            code=error.code,
        ) from error
    except InvalidRequest as error:
        raise ApiError(str(error), ExitStatus.USAGE) from error
    except Unreachable as error:
        raise ApiError(str(error), ExitStatus.UNREACHABLE) from error
    except PoolkeeperError as error:
        raise ApiError(str(error), ExitStatus.REFUSED) from error
