"""Moments in requests: RFC 3339 with an offset, within the years that anything here is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator
from pydantic_core import PydanticCustomError

_FIRST_YEAR, _LAST_YEAR = 2000, 2100


def _no_number(given: object) -> object:
    """Refuse what pydantic would take for seconds since 1970."""
    if isinstance(given, str) and "T" not in given.upper():
        raise PydanticCustomError("rfc3339", "A moment looks like 2026-07-14T12:00:00Z.")
    return given


def _in_utc(moment: datetime) -> datetime:
    if not _FIRST_YEAR <= moment.year < _LAST_YEAR:
        raise PydanticCustomError(
            "moment_range", f"The year must be between {_FIRST_YEAR} and {_LAST_YEAR - 1}."
        )
    return moment.astimezone(UTC)


Timestamp = Annotated[AwareDatetime, BeforeValidator(_no_number), AfterValidator(_in_utc)]
