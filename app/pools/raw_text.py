"""Names and settings that others wrote, in any encoding: fetched as bytes.

No function of Postgres that looks at characters may touch them: in a database with a multibyte
encoding it refuses what is no text in that encoding.
"""

from __future__ import annotations


def as_bytea(expression: str) -> str:
    """The SQL expression as the bytes of a literal, which nothing converts or checks.

    A literal, for its backslashes are doubled, and bytea would take single ones for escapes.
    """
    return f"quote_literal(({expression})::text)::bytea"


def as_hex(expression: str) -> str:
    """The same in hexadecimal digits, for arrays: asyncpg knows those of text and oid only.

    For any other array type it asks the server what it is, on each connection.
    """
    return f"encode({as_bytea(expression)}, 'hex')"


def starts_with(expression: str, prefix: str) -> str:
    """The SQL condition that the expression begins with *prefix*, in ASCII without a quote.

    Postgres' own starts_with looks at characters in some versions.
    """
    pattern = prefix.replace("_", r"\_")
    return f"{expression} like '{pattern}%'"


def unquote(literal: bytes) -> bytes:
    """The bytes of a *literal* from `as_bytea`."""
    return literal.removeprefix(b"E")[1:-1].replace(b"''", b"'")


def decode(digits: str) -> str:
    """The text of the *digits* from `as_hex`; bytes that are no UTF-8 become escapes."""
    return unquote(bytes.fromhex(digits)).decode(errors="backslashreplace")
