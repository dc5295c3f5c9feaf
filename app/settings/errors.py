"""Errors in the settings: one sentence per problem, which names its key and never its value."""

import difflib
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from app.settings.forms import SENTENCES
from app.text.validation_messages import validation_message

ENV_PREFIX = "POOLKEEPER_"
ENV_DELIMITER = "__"


class SettingsError(Exception):
    """The service cannot start with these settings; the text has one sentence per problem."""


def setting_name(*path: str) -> str:
    """A key as variable and in the TOML file: `POOLKEEPER_PORT (port)`."""
    variable = ENV_PREFIX + ENV_DELIMITER.join(path).upper()
    return f"{variable} ({'.'.join(path)})"


def unknown_key(name: str, given: str, known: Iterable[str], *, prefix: str = "") -> str:
    """The error for an unknown *name*, with the *known* key closest to *given*."""
    close = difflib.get_close_matches(given, list(known), n=1)
    hint = f"; did you mean {prefix}{close[0]}?" if close else "."
    return f"{name} is not a setting{hint}"


def validation_messages(
    error: ValidationError, known: Sequence[str], nested: Sequence[str]
) -> list[str]:
    """Turn pydantic's errors into sentences.

    For suggestions: *known* are the top-level keys, *nested* those of a server or the catalog.
    """
    found = error.errors(include_url=False, include_input=False)
    return [
        _sentence(
            [part for part in problem["loc"] if part != "[key]"],
            problem["type"],
            validation_message(problem, SENTENCES),
            known if len(problem["loc"]) == 1 else nested,
        )
        for problem in found
    ]


def _sentence(place: list[int | str], kind: str, message: str, known: Sequence[str]) -> str:
    path = [part for part in place if isinstance(part, str)]
    for index in (part for part in place if isinstance(part, int)):
        message = f"Item {index + 1}: {message}"
    if kind == "extra_forbidden":
        return unknown_key(setting_name(*path), path[-1], known)
    if kind == "string_pattern_mismatch" and path[0] == "servers":
        message = "A server's name is a slug: a-z, 0-9 and inner hyphens, at most 48 characters."
    return f"{setting_name(*path)}: {message}" if path else message
