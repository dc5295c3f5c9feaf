"""What every request body has in common: strict types, no unknown field, no NUL.

Postgres stores no NUL in any text, and half of a surrogate pair cannot be sent at all; both
are refused here, with their place, rather than by whoever meets them later.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from app.api.http.json_depth import MAX_JSON_DEPTH, JsonTooDeep, iter_levels
from app.runtime.printable import is_printable


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
    try:
        for level in iter_levels(value, deepest=MAX_JSON_DEPTH):
            kinds = set(map(type, level))
            if str in kinds:
                _storable("".join(each for each in level if type(each) is str))
            if float in kinds and not all(
                math.isfinite(each) for each in level if type(each) is float
            ):
                raise PydanticCustomError("finite_number", "JSON knows no NaN and no infinity.")
    except JsonTooDeep as error:
        raise PydanticCustomError("too_deep", "A value is nested too deeply.") from error
    return value


def _printable(text: str) -> str:
    if not is_printable(text):
        raise PydanticCustomError(
            "control_character",
            "Text must not contain control characters, line separators or marks of direction.",
        )
    return text


Text = Annotated[str, AfterValidator(_storable)]
# For what people read in lists and terminals.
PrintableText = Annotated[Text, AfterValidator(_printable)]
JsonValue = Annotated[Any, AfterValidator(_json_value)]
