"""Names and settings that others wrote, in whatever encoding: fetched as bytes.

No function of Postgres that looks at characters may touch them: in a database of several bytes a
character it refuses what is no text in that database's own encoding.
"""

from __future__ import annotations


def as_bytea(expression: str) -> str:
    """The SQL expression as a literal in bytes, which nothing converts or checks; see `bytes_of`.

    A literal, for that doubles the backslashes, which bytea would take for escapes.
    """
    return f"quote_literal(({expression})::text)::bytea"


def starts_with(expression: str, prefix: str) -> str:
    """The SQL condition that the expression begins with *prefix*, of ASCII without a quote.

    Some versions' starts_with looks at characters.
    """
    pattern = prefix.replace("_", r"\_")
    return f"{expression} like '{pattern}%'"


def unquote(literal: bytes) -> bytes:
    """What *literal*, from `as_bytes`, says."""
    return literal.removeprefix(b"E")[1:-1].replace(b"''", b"'")


def decode(literal: bytes) -> str:
    """What *literal* says, as it can be shown: what is no UTF-8 stays visible, byte by byte."""
    return unquote(literal).decode(errors="backslashreplace")
