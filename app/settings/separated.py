"""Lists in a variable: JSON, or items between commas."""

import json
from contextlib import suppress
from typing import Annotated, TypeVar

from pydantic import BeforeValidator
from pydantic_settings import NoDecode


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    with suppress(ValueError, RecursionError):
        items = json.loads(value)
        if items is None or isinstance(items, list):
            return items
    items = [item.strip() for item in value.split(",")]
    if not all(items):
        raise ValueError("Must be a list without empty items, such as a,b; [] for none")
    return items


T = TypeVar("T")
Separated = Annotated[T, NoDecode, BeforeValidator(_split)]
"""A list that a variable may contain in either form."""
