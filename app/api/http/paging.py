"""Keyset cursors: where the next page of a list begins.

A cursor is opaque to callers: base64url of a JSON array, the sort key of the last item they
got. It stays right when items come and go between two pages. What is sorted how is the
routes' own business.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from app.api.http.error_responses import validation_error

Item = TypeVar("Item")

_LIMIT = 2**63


def encode_cursor(*key: str | float) -> str:
    """The cursor after the item with this sort key."""
    text = json.dumps(key, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type[str | int | float]) -> tuple[Any, ...]:
    """The sort key in *cursor*, one value of each of these *kinds*.

    Raises:
        RequestValidationError: it is none that `encode_cursor` made of such values.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):  # not ASCII, not base64, not UTF-8, not JSON
        key = None
    fits = isinstance(key, list) and [type(part) for part in key] == list(kinds)
    if not fits or not all(_is_ours(part) for part in key):
        raise validation_error(
            "query", "cursor", code="bad_cursor", detail="It is no cursor of this list."
        )
    return tuple(key)


def paginate(
    items: Sequence[Item], limit: int, key: Callable[[Item], tuple[str | float, ...]]
) -> tuple[Sequence[Item], str | None]:
    """The first *limit* of *items*, and the cursor of the next page if some are left over."""
    page = items[:limit]
    return page, encode_cursor(*key(page[-1])) if len(items) > limit else None


def _is_ours(part: str | float) -> bool:
    """Whether it may go on to Postgres: a NUL, an infinity or a huge number may not."""
    if isinstance(part, str):
        return part.isprintable()
    return abs(part) < _LIMIT
