"""Exceptions of the clients."""

from collections.abc import Mapping
from typing import Any


class PoolkeeperError(Exception):
    """A request failed; the text is for people."""


class InvalidRequest(PoolkeeperError):
    """An argument, the address or the key is invalid; nothing was sent."""


class Unreachable(PoolkeeperError):
    """There was no response, or none in time: it is unknown whether a change was made."""


class UnexpectedResponse(PoolkeeperError):
    """The response does not come from Poolkeeper."""


class ProblemError(PoolkeeperError):
    """The service refused the request, or failed, and said why.

    Attributes:
        status: the HTTP status.
        code: the problem code, for programs; stable. Empty if something else responded.
        title, detail: for people.
        hint: what may help; None if the service does not say.
        request_id: identifies the request in the service's log.
        retryable: whether the same request may succeed later.
        errors: for an invalid request, the `pointer` to each invalid field and its `detail`.
        sqlstate: for a failed statement, the error code of Postgres; else None.
        position: where in the statement the error is, in characters from 1; None if unknown.
        constraint_name: the constraint that a statement violated; else None.
        document: the whole response; for a failed statement with `message_detail`, `table_name`
            and others.
    """

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.document = document
        self.code = str(document.get("code", ""))
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail") or f"The service responded with HTTP {status}.")
        self.hint = self._text("hint")
        self.sqlstate = self._text("sqlstate")
        position = document.get("position")
        self.position = position if isinstance(position, int) else None
        self.constraint_name = self._text("constraint_name")
        self.request_id: str | None = document.get("request_id")
        self.retryable = document.get("retryable") is True
        errors = document.get("errors")
        self.errors: list[Mapping[str, Any]] = [
            each
            for each in (errors if isinstance(errors, list) else ())
            if isinstance(each, dict) and each.keys() >= {"pointer", "detail"}
        ]
        super().__init__("\n".join(self.lines))

    def _text(self, name: str) -> str | None:
        value = self.document.get(name)
        return value if isinstance(value, str) else None

    @property
    def lines(self) -> list[str]:
        """The detail, a line for each invalid field, Postgres' DETAIL, and the hint."""
        fields = [f"  {each['pointer']}: {each['detail']}" for each in self.errors]
        notes = (("Detail", self.document.get("message_detail")), ("Hint", self.hint))
        return [self.detail, *fields, *(f"  {name}: {text}" for name, text in notes if text)]
