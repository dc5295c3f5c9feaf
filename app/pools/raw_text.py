"""Fetches names and settings that others wrote, in any encoding, as bytes.

No Postgres function that looks at characters may touch them: in a database with a multibyte
encoding, such a function refuses bytes that are invalid in that encoding.
"""


def as_bytea(expression: str) -> str:
    """SQL for *expression* as the bytes of a literal, which nothing converts or checks.

    It is a literal because that doubles backslashes; bytea would take single ones for escapes.
    """
    return f"quote_literal(({expression})::text)::bytea"


def as_hex(expression: str) -> str:
    """The same in hexadecimal digits, for arrays: asyncpg knows arrays of text and oid only.

    For any other array type it would query the server, on each connection.
    """
    return f"encode({as_bytea(expression)}, 'hex')"


def starts_with(expression: str, prefix: str) -> str:
    """SQL for the condition that *expression* begins with *prefix*, ASCII without quotes.

    Postgres' own starts_with looks at characters in some versions.
    """
    pattern = prefix.replace("_", r"\_")
    return f"{expression} like '{pattern}%'"


def unquote(literal: bytes) -> bytes:
    """The bytes of a *literal* made by `as_bytea`."""
    return literal.removeprefix(b"E")[1:-1].replace(b"''", b"'")


def decode(digits: str) -> str:
    """The text of *digits* made by `as_hex`; bytes that are not UTF-8 become escapes."""
    return unquote(bytes.fromhex(digits)).decode(errors="backslashreplace")
