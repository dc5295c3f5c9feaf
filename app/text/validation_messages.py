"""Translates pydantic's errors into words for people who do not write Python."""

from collections.abc import Mapping
from typing import Any

_NUMBER, _WHOLE_NUMBER = "Must be a number.", "Must be a whole number."
_TIME = "Must be a time such as 2026-07-14T12:00:00Z."
_OBJECT = "Must be an object of names and values."
# By the kind of error; braces refer to values in its context.
_PLAIN = {
    "missing": "Must be given.",
    "extra_forbidden": "There is no such field.",
    "none_required": "Must be null.",
    "bool_type": "Must be true or false.",
    "bool_parsing": "Must be true or false.",
    "int_type": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": "Has too many digits.",
    "int_from_float": _WHOLE_NUMBER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "greater_than": "Must be more than {gt}.",
    "greater_than_equal": "Must be {ge} or more.",
    "less_than": "Must be less than {lt}.",
    "less_than_equal": "Must be {le} or less.",
    "multiple_of": "Must be a multiple of {multiple_of}.",
    "string_type": "Must be text.",
    "string_too_short": "Must have {min_length} characters or more.",
    "string_too_long": "Must have {max_length} characters or fewer.",
    "string_pattern_mismatch": "Must have the form {pattern}",
    "too_short": "Must have {min_length} items or more.",
    "too_long": "Must have {max_length} items or fewer.",
    "list_type": "Must be a list.",
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "enum": "Must be {expected}.",
    "literal_error": "Must be {expected}.",
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": "Needs a time zone, as in 2026-07-14T12:00:00Z.",
    "uuid_type": "Must be a UUID.",
    "uuid_parsing": "Must be a UUID.",
}
_EMPTY = "Must not be empty."


def validation_message(problem: Mapping[str, Any], forms: Mapping[str, str] | None = None) -> str:
    """Make one sentence from an item of `ValidationError.errors()`, with its context.

    It does not contain the given value. *forms* has a sentence for each known pattern. An item
    without the limit that its kind needs is one of our own errors: it has its own sentence.
    """
    if problem["type"] == "too_long" and problem.get("ctx", {}).get("field_type") == "Value":
        problem = {**problem, "type": "string_too_long"}
    context = {name: _short(value) for name, value in problem.get("ctx", {}).items()}
    if context.get("min_length") == 1:
        return _EMPTY
    form = (forms or {}).get(str(context.get("pattern")))
    if form is not None:
        return form
    plain = _PLAIN.get(problem["type"])
    if plain is not None and (context or "{" not in plain):
        return plain.format_map(context)
    text = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "Must be")
    return text if text.endswith(".") else f"{text}."


def _short(value: object) -> object:
    """Format a limit such as 60.0 as people write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
