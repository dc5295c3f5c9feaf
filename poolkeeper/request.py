"""A request to the API: what to send, and the type of the response. It sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import quote

from poolkeeper.errors import InvalidRequest

if TYPE_CHECKING:
    from poolkeeper.models import PlanView

NOT_UTF_8 = "An argument is not valid UTF-8."

T_co = TypeVar("T_co", covariant=True)
Item_co = TypeVar("Item_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Request(Generic[T_co]):
    """A request whose response is a document of type T_co.

    Attributes:
        query: parameters; those that are None are not sent.
        sends_key: whether a client adds an idempotency key, so that it can repeat the request.
    """

    method: str
    path: str
    query: Mapping[str, object] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    sends_key: bool = False

    def dry_run(self) -> Request[PlanView]:
        """The same change as a dry run: the response is its plan, and nothing is changed."""
        return Request(self.method, self.path, {**self.query, "dry_run": True}, self.body)


@dataclass(frozen=True, slots=True)
class ListRequest(Request[T_co], Generic[T_co, Item_co]):
    """A request whose response is a page of items of type Item_co."""


def segment(name: str) -> str:
    """Quote *name* as one segment of a path, so that it never addresses another resource.

    Raises:
        InvalidRequest: it cannot be a single segment, or is not valid UTF-8.
    """
    if "/" in name or not name.strip("."):
        raise InvalidRequest(f'"{name}" is not a valid id: it needs a letter or digit, no slash.')
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise InvalidRequest(NOT_UTF_8) from error
