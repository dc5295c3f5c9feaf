"""Keyset cursors: where the next page of a list begins.

A cursor is opaque to callers: base64url of a JSON array with the sort key of the last item. It
stays valid while items come and go between two pages.
"""

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import Field

from app.api.http.error_responses import validation_error

Item = TypeVar("Item")
NextCursor = Annotated[
    str | None,
    Field(description="For the next page; null on the last one.", examples=[None]),
]

_LIMIT = 2**63


def encode_cursor(*key: str | float) -> str:
    """Encode a cursor after the item with this sort key."""
    text = json.dumps(key, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type[str | int | float]) -> tuple[Any, ...]:
    """Decode the sort key in *cursor*, one value of each of *kinds*.

    Raises:
        RequestValidationError: `encode_cursor` did not make it from values of these kinds.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):  # not ASCII, not base64, not UTF-8, not JSON
        key = None
    fits = isinstance(key, list) and [type(part) for part in key] == list(kinds)
    if not fits or not all(_is_storable(part) for part in key):
        raise invalid_cursor()
    return tuple(key)


def invalid_cursor() -> RequestValidationError:
    return validation_error(
        "query", "cursor", code="bad_cursor", detail="The cursor does not belong to this list."
    )


def paginate(
    items: Sequence[Item], limit: int, key: Callable[[Item], tuple[str | float, ...]]
) -> tuple[Sequence[Item], str | None]:
    """Return the first *limit* of *items*, and the cursor of the next page if there are more."""
    page = items[:limit]
    return page, encode_cursor(*key(page[-1])) if len(items) > limit else None


def page_of_names(
    names: Iterable[str], cursor: str | None, limit: int
) -> tuple[Sequence[str], str | None]:
    """Return *limit* of *names* after *cursor*, sorted, and the cursor of the next page."""
    after = decode_cursor(cursor, str)[0] if cursor else ""
    return paginate(sorted(name for name in names if name > after), limit, lambda name: (name,))


def _is_storable(part: str | float) -> bool:
    """Whether Postgres can store it: no NUL, no infinity, no huge number."""
    if isinstance(part, str):
        return part.isprintable()
    return abs(part) < _LIMIT
