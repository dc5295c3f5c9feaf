"""What a statement may be, wherever one is sent."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticKnownError

from app.api.http.field_types import JsonValue, Text

_MAX_STATEMENTS = 1000

Statement = TypeVar("Statement")


def _check_length(statements: list[Statement]) -> list[Statement]:
    # In the document, this limit would only make generated tests send megabytes.
    if len(statements) > _MAX_STATEMENTS:
        context = {"field_type": "List", "max_length": _MAX_STATEMENTS}
        raise PydanticKnownError("too_long", {**context, "actual_length": len(statements)})
    return statements


Statements = Annotated[list[Statement], Field(min_length=1), AfterValidator(_check_length)]
SqlText = Annotated[Text, Field(max_length=100_000)]
Params = Annotated[list[JsonValue], Field(max_length=1000)]
