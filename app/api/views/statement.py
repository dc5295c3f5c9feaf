"""What a statement may be, wherever one is sent."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.api.http.field_types import JsonValue, Text

MAX_STATEMENTS = 1000

SqlText = Annotated[Text, Field(max_length=100_000)]
Params = Annotated[list[JsonValue], Field(max_length=1000)]
