"""Types of request fields: strict types, text that Postgres can store, bounded JSON.

Postgres cannot store NUL in text, and half a surrogate pair cannot be encoded at all. Both are
refused here, with their place.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from app.domain.tenant import TENANT_ID_PATTERN
from app.text.printable import is_printable

MAX_JSON_DEPTH = 32
# More fields than any body has: at least one of them is unknown.
_MOST_FIELDS = 200
_MOST_LABELS = 32
_FIRST_YEAR, _LAST_YEAR = 2000, 2099


class RequestBody(BaseModel):
    """A body: JSON types are not converted, unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _check_few(cls, fields: object) -> object:
        """Check only as many fields as may be known and reported: each would be an error."""
        if isinstance(fields, dict) and len(fields) > _MOST_FIELDS:
            return dict(islice(fields.items(), _MOST_FIELDS))
        return fields


def examples(*documents: dict[str, Any]) -> ConfigDict:
    """Configure a model with examples for the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": list(documents)})


def counted_first(most: int) -> BeforeValidator:
    """Refuse a list or object with more than *most* items before any of them is checked."""

    def check(items: object) -> object:
        if isinstance(items, list | dict) and len(items) > most:
            kind = "List" if isinstance(items, list) else "Dictionary"
            context = {"field_type": kind, "max_length": most, "actual_length": len(items)}
            raise PydanticKnownError("too_long", context)
        return items

    return BeforeValidator(check)


def _storable(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul_character", "Text must not contain a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "Text must be valid Unicode.") from error
    return text


def _printable(text: str) -> str:
    if not is_printable(text):
        raise PydanticCustomError(
            "control_character",
            "Text must not contain control characters, line separators or bidirectional marks.",
        )
    return text


def check_json(value: object) -> object:
    """Check that Postgres can store all text in *value*, and that it is not too deep or infinite.

    Raises:
        PydanticCustomError
    """
    for level in _levels(value):
        kinds = set(map(type, level))
        if str in kinds:
            _storable("".join([each for each in level if type(each) is str]))
        if float in kinds and not all(map(math.isfinite, [x for x in level if type(x) is float])):
            raise PydanticCustomError("finite_number", "JSON has no NaN and no infinity.")
    return value


def _levels(value: object) -> Iterator[list[object]]:
    """Yield *value*, then its parts (keys of objects included), then their parts; no recursion.

    A megabyte of JSON has half a million parts, so a level without lists and objects is the last
    one searched.
    """
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        yield level
        kinds = set(map(type, level))
        inside: list[object] = []
        if list in kinds:
            inside.extend(chain.from_iterable([each for each in level if type(each) is list]))
        if dict in kinds:
            objects = [each for each in level if type(each) is dict]
            inside.extend(chain.from_iterable(objects))
            inside.extend(chain.from_iterable(map(dict.values, objects)))
        level = inside
        if not level:
            return
    raise PydanticCustomError("too_deep", "A value is nested too deeply.")


def _not_a_number(given: object) -> object:
    """Refuse numbers and digits, which pydantic would take for seconds since 1970."""
    if not isinstance(given, str) or "T" not in given.upper():
        raise PydanticCustomError("rfc3339", "A timestamp looks like 2026-07-14T12:00:00Z.")
    return given


def _in_utc(timestamp: datetime) -> datetime:
    if not _FIRST_YEAR <= timestamp.year <= _LAST_YEAR:
        raise PydanticCustomError(
            "timestamp_range", f"The year must be between {_FIRST_YEAR} and {_LAST_YEAR}."
        )
    return timestamp.astimezone(UTC)


Name = Annotated[str, Field(pattern=TENANT_ID_PATTERN, max_length=48)]
Text = Annotated[str, AfterValidator(_storable)]
# Text that people read in lists and terminals.
PrintableText = Annotated[Text, AfterValidator(_printable)]
LabelKey = Annotated[PrintableText, Field(min_length=1, max_length=63, pattern=r"^[^:]+$")]
LabelValue = Annotated[PrintableText, Field(max_length=256)]
Labels = Annotated[
    dict[LabelKey, LabelValue], Field(max_length=_MOST_LABELS), counted_first(_MOST_LABELS)
]
Stale = Annotated[
    bool,
    Field(description="Whether this is from memory: the catalog is unreachable.", examples=[False]),
]
JsonValue = Annotated[Any, AfterValidator(check_json)]
Timestamp = Annotated[AwareDatetime, BeforeValidator(_not_a_number), AfterValidator(_in_utc)]
