"""What every request body has in common: strict types, no unknown field, no NUL.

Postgres stores no NUL in any text, and half of a surrogate pair cannot be sent at all; both
are refused here, with their place, rather than by whoever meets them later.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

_DEEPEST = 32


class RequestBody(BaseModel):
    """A body: JSON types are taken as they are, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _storable(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul_character", "Text must not contain a NUL character.")
    if not _is_unicode(text):
        raise PydanticCustomError("string_unicode", "Text must be valid Unicode.")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_value(value: object) -> object:
    """*value*, if all of it is JSON that Postgres can take, and not nested without end."""
    level: list[object] = [value]
    for _ in range(_DEEPEST):
        for each in level:
            if isinstance(each, str):
                _storable(each)
            elif isinstance(each, float) and not math.isfinite(each):
                raise PydanticCustomError("finite_number", "JSON knows no NaN and no infinity.")
        level = [inner for outer in level for inner in _parts_of(outer)]
        if not level:
            return value
    raise PydanticCustomError("too_deep", "A value is nested too deeply.")


def _parts_of(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


Text = Annotated[str, AfterValidator(_storable)]
JsonValue = Annotated[Any, AfterValidator(_json_value)]
