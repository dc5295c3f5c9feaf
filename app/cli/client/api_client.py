"""The commands' client of the API: by paths, with an exit status for each failure.

It translates every `PoolkeeperError` into `ApiError`, and prints nothing.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Self

from app.cli.client.exit_status import ExitStatus
from app.text.printable import printable
from poolkeeper.errors import InvalidRequest, PoolkeeperError, ProblemError, Unreachable
from poolkeeper.request import ListRequest, Request, segment

_EXIT_STATUSES: Mapping[int, ExitStatus] = {
    HTTPStatus.UNAUTHORIZED: ExitStatus.FORBIDDEN,
    HTTPStatus.FORBIDDEN: ExitStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND: ExitStatus.NOT_FOUND,
}
# These answer 403 whatever the API key is.
_NOT_OF_THE_KEY = frozenset({"read-only", "tls-required"})
# By code: the API's words, and the terminal's words.
_WORDS = {
    "objects-exist": ("adopt=true", "`poolkeeper tenants provision TENANT --adopt`"),
    "read-only": ('send "read_only": false', "add --write"),
    "statement-failed": (
        "Send several statements as `statements`, in place of `sql`.",
        "Run them one at a time.",
    ),
}
# By problem code: the command that removes the cause of the refusal.
_CURES = {
    "pool-paused": "`poolkeeper pools resume TENANT` resumes it.",
    "tenant-login-failed": "`poolkeeper tenants provision TENANT` repairs its role and password.",
}
_NEEDS_KEY = (
    "The service needs a valid API key: name its file with --api-key-file or "
    "POOLKEEPER_API_KEY_FILE."
)
# Problem codes about an argument, as if the command itself had found the problem.
_INVALID = frozenset({"validation-failed", "invalid-input", "invalid-tenant-id"})
_ATTEMPTS = 5
# The items searched for the beginning of an id, and the ids that an error names.
_MOST_SEARCHED = 10_000
_MOST_NAMED = 5
_of_tenant = re.compile(r"/v1/tenants/([a-z0-9-]+)/").match
_ERROR_NUMBER = re.compile(r"\[Errno -?\d+\] ")

Document = dict[str, Any]


class ApiError(Exception):
    """A failure: one sentence, and the exit status of the command.

    Attributes:
        http_status, code, position: from the service's problem.
        excerpt: lines of the caller's text that show where the error is; printed below the message.
    """

    def __init__(
        self,
        message: str,
        exit_status: ExitStatus,
        *,
        http_status: int | None = None,
        code: str | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.http_status = http_status
        self.code = code
        self.position = position
        self.excerpt: Sequence[str] = ()

    def quote(self, excerpt: Sequence[str]) -> None:
        """Print the lines of *excerpt* below the message."""
        self.excerpt = excerpt


class ApiClient:
    """A service at one address; a context manager. Every request may raise `ApiError`."""

    def __init__(
        self, url: str, api_key: str | None, *, dry_run: bool = False, **patience: Any
    ) -> None:
        """Connect at the first request; in a dry run, changes answer with their plans.

        *patience*: `timeout` and `attempts` of `Client`.
        """
        from poolkeeper.client import Client

        self._of_changes = {"dry_run": True} if dry_run else {}
        with _api_errors():
            self._client = Client(url, api_key=api_key, **patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **params: object) -> Document:
        with _api_errors():
            return self._client.send(Request("GET", path, params))

    def page(self, path: str, **params: object) -> Document:
        """A complete page of a list."""
        request: ListRequest[Document, Document] = ListRequest("GET", path, params)
        with _api_errors():
            return self._client.send(request)

    def request(
        self, method: str, path: str, body: Mapping[str, object] | None = None, **params: object
    ) -> Document:
        """Send a change; an action gets an idempotency key, so that it can be repeated.

        A deletion applies to any version, even if the service requires a version.
        """
        is_action, query = method in {"POST", "DELETE"}, {**params, **self._of_changes}
        request: Request[Document] = Request(method, path, query, body, sends_key=is_action)
        with _api_errors():
            try:
                return self._client.send(request)
            except ProblemError as error:
                if method != "DELETE" or error.status != HTTPStatus.PRECONDITION_REQUIRED:
                    raise
                return self._client.send(request, if_match="*")

    def create(self, path: str, body: Mapping[str, object]) -> Document:
        """Create a resource that does not exist yet."""
        request: Request[Document] = Request("PUT", path, self._of_changes, body)
        with _api_errors():
            return self._client.send(request, if_none_match="*")

    def update(self, path: str, change: Callable[[Document], Document]) -> Document:
        """Read a resource, and replace it with the result of *change*.

        If others change it in between, it is read again.
        """
        current: Request[Document] = Request("GET", path)
        with _api_errors():
            for attempt in range(1, _ATTEMPTS + 1):
                found = self._client.response(current)
                body = change(found.document)
                request: Request[Document] = Request("PUT", path, self._of_changes, body)
                try:
                    return self._client.send(request, if_match=found.etag or "*")
                except ProblemError as error:
                    is_stale = error.status == HTTPStatus.PRECONDITION_FAILED
                    if not is_stale or attempt == _ATTEMPTS:
                        raise
        raise AssertionError

    def find(self, path: str, name: str, noun: str, *, by: str = "id") -> Document:
        """Find the one item of a list with the id *name*, or whose field *by* begins with it."""
        found: list[Document] = []
        for item in self.items(path, limit=_MOST_SEARCHED):
            if str(item["id"]) == name:
                return item
            if name and str(item[by] or "").startswith(name):
                found.append(item)
        if len(found) == 1:
            return found[0]
        if not found:
            raise ApiError(f"There is no {noun} {name}.", ExitStatus.NOT_FOUND)
        ids = ", ".join(str(each["id"]) for each in found[:_MOST_NAMED])
        raise ApiError(f"{name} is the beginning of several ids: {ids}.", ExitStatus.USAGE)

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
        raise ApiError(
            _message(error),
            _exit_status(error),
            http_status=error.status,
            code=error.code,
            position=error.position,
        ) from error
    except InvalidRequest as error:
        raise ApiError(str(error), ExitStatus.USAGE) from error
    except Unreachable as error:
        raise ApiError(_ERROR_NUMBER.sub("", str(error)), ExitStatus.UNREACHABLE) from error
    except PoolkeeperError as error:
        raise ApiError(str(error), ExitStatus.UNREACHABLE) from error


def _message(error: ProblemError) -> str:
    """The service's message, in the terminal's words."""
    if error.code == "unauthenticated":
        return _NEEDS_KEY
    # The details of an argument say more than that something is invalid.
    lines = [printable(line.strip()) for line in error.lines[bool(error.errors) :]]
    of_api, of_terminal = _WORDS.get(error.code, ("", ""))
    found = _of_tenant(str(error.document.get("instance")))
    tenant = found[1] if found else "TENANT"
    if error.code in _CURES:
        lines.append(f"Hint: {_CURES[error.code].replace('TENANT', tenant)}")
    return "\n".join(lines).replace(of_api, of_terminal.replace("TENANT", tenant))


def _exit_status(error: ProblemError) -> ExitStatus:
    by_code = ExitStatus.USAGE if error.code in _INVALID else ExitStatus.REFUSED
    if error.code in _NOT_OF_THE_KEY:
        return by_code
    return _EXIT_STATUSES.get(error.status, by_code)
