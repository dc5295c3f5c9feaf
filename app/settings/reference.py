"""`python -m app.settings.reference`: the settings as a document, from what their fields say.

Reads the fields and never their values; `docs/settings.md` is its output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.settings.endpoint import CatalogSettings, ServerSettings
from app.settings.errors import ENV_DELIMITER, ENV_PREFIX
from app.settings.settings import Settings

_HEAD = """\
# Settings

Written by `python -m app.settings.reference`; change [the fields](../app/settings/settings.py),
not this page. [Operations](operations.md#settings) tells where settings come from.

| variable | default | |
|---|---|---|
"""
_SERVERS = """
## A declared server

`<NAME>` is the name that the API shows: a slug in capitals, in the TOML file `[servers.<name>]`.

| variable | default | |
|---|---|---|
"""
_CATALOG = """
## The catalog

In the TOML file `[catalog]`.

| variable | default | |
|---|---|---|
"""
_GROUPS = frozenset({"servers", "catalog"})


def reference() -> str:
    """The whole document, in Markdown."""
    parts = [_HEAD, *_rows(Settings, ENV_PREFIX)]
    parts += [_SERVERS, *_rows(ServerSettings, _prefix("SERVERS", "<NAME>"))]
    parts += [_CATALOG, *_rows(CatalogSettings, _prefix("CATALOG"))]
    return "".join(parts)


def _prefix(*groups: str) -> str:
    return ENV_PREFIX + "".join(group + ENV_DELIMITER for group in groups)


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        variable = f"{prefix}{name.upper()}"
        if name in _GROUPS and model is Settings:
            variable += f"{ENV_DELIMITER}…"
        yield f"| `{variable}` | {_default(field)} | {text} |\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None or value == {} or isinstance(value, SecretStr):
        return ""
    match value:
        case bool():
            shown = str(value).lower()
        case float():
            shown = f"{value:g}"
        case Enum():
            shown = str(value.value)
        case Path() | str() | int():
            shown = str(value)
        case _:
            shown = ", ".join(map(str, value))
    return f"`{shown}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
