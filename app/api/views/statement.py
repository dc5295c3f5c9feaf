"""Limits of statements, wherever they are sent.

A megabyte of JSON has room for half a million parameters, or a hundred thousand statements. They
are not checked one by one, which would block all callers for a second.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from app.api.http.field_types import JsonValue, Text, check_json, counted_first

# The most statements in a request, and the most parameters of a statement.
_MOST = 1000

Statement = TypeVar("Statement")


def _check_at_once(values: object, check_each: ValidatorFunctionWrapHandler) -> object:
    """Check all parameters together; check each one only to report which is refused."""
    if isinstance(values, list):
        try:
            return check_json(values)
        except PydanticCustomError:
            pass
    return check_each(values)


# In the document, their limit would only make generated tests send megabytes.
Statements = Annotated[list[Statement], Field(min_length=1, fail_fast=True), counted_first(_MOST)]
SqlText = Annotated[Text, Field(max_length=100_000)]
Params = Annotated[
    list[JsonValue],
    Field(max_length=_MOST, fail_fast=True),
    WrapValidator(_check_at_once),
    counted_first(_MOST),
]
