"""Encodes the body of a request as JSON; values that only Python has become text."""

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from uuid import UUID

from poolkeeper.errors import InvalidRequest
from poolkeeper.request import NOT_UTF_8


def encoded(body: Mapping[str, object]) -> bytes:
    """Encode *body* as JSON; `Decimal`, `UUID`, dates, times and bytes become text.

    Raises:
        InvalidRequest: a value cannot be encoded.
    """
    try:
        text = json.dumps(
            body, default=_text, allow_nan=False, ensure_ascii=False, separators=(",", ":")
        )
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(NOT_UTF_8) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"An argument cannot be sent as JSON: {error}.") from error


def _text(value: object) -> str:
    match value:
        case Decimal() | UUID():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return rf"\x{value.hex()}"
        case _:
            raise TypeError(f"{type(value).__name__} has no text that is known")
