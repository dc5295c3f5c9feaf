"""Label options: KEY=VALUE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; repeatable.")
]


def pairs(given: Iterable[str], option: str) -> dict[str, str]:
    """Parse KEY=VALUE options.

    Raises:
        BadParameter: an option has no key, or no equals sign.
    """
    found: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{pair} is not key=value", param_hint=option)
        found[key] = value
    return found
