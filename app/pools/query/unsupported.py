"""Commands that cannot run in a request, which is one transaction: refused before they run.

The first words of a statement decide, read as Postgres' own scanner does: only blanks, comments and
semicolons come before them, and the grammar has no other use for these words there. A command
hidden behind pages of comments runs, and fails because of its command tag.
"""

import re

from app.domain.errors import PoolkeeperError, StatementEndedLease, StatementFailed

_ENDS = frozenset({"ABORT", "COMMIT", "END", "ROLLBACK"})
_BEGINS = frozenset({"BEGIN", "START"})
_LISTEN, _PREPARE, _TRANSACTION = "LISTEN", "PREPARE", "TRANSACTION"
_NOT_BLANK = re.compile(r"[^\s;]", re.ASCII)
_LINE_END = re.compile(r"[\n\r]")
_LINE_COMMENT, _COMMENT = "--", "/*"
# The limit for skipping, in characters: to skip 100,000 characters of nested comments takes long.
_LONGEST_BEGINNING = 10_000
_COMMENT_EDGE = re.compile(r"/\*|\*/")
# To Postgres, every character outside ASCII is a letter.
_WORD = re.compile(r"[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*", re.ASCII)


def command_of(sql: str) -> str:
    """The first word of a statement, in capitals; empty if pages of comments precede it."""
    return _word(sql[:_LONGEST_BEGINNING], 0)[0]


def refusal(sql: str) -> PoolkeeperError | None:
    """Say why the statement *sql* must not run; None if it may."""
    beginning = sql[:_LONGEST_BEGINNING]
    command, after = _word(beginning, 0)
    if command in _ENDS or (command == _PREPARE and _is_two_phase(beginning, after)):
        name = command if command in _ENDS else f"{_PREPARE} {_TRANSACTION}"
        return StatementEndedLease(
            f"{name} is not supported here: all statements of a request are one transaction, which "
            "ends with the request. Nothing was changed."
        )
    if command in _BEGINS:
        return StatementFailed(
            f"{command} is not supported here: all statements of a request are one transaction "
            "already.",
            sqlstate="25001",
        )
    if command == _LISTEN:
        return StatementFailed(
            "LISTEN is not supported here: its session ends with the request.", sqlstate="0A000"
        )
    return None


def _is_two_phase(sql: str, at: int) -> bool:
    """Whether the PREPARE that ends at *at* prepares a transaction instead of a statement.

    A statement may be named `transaction`, too: then its types or AS follow.
    """
    name, after = _word(sql, at)
    start = _after_blanks(sql, after)
    return name == _TRANSACTION and not sql.startswith("(", start) and _word(sql, start)[0] != "AS"


def _word(sql: str, at: int) -> tuple[str, int]:
    """The next word in capitals (empty if something else comes), and its end."""
    start = _after_blanks(sql, at)
    found = _WORD.match(sql, start)
    return (found[0].upper(), found.end()) if found else ("", start)


def _after_blanks(sql: str, at: int) -> int:
    """The end of the blanks and comments that begin at *at*."""
    while True:
        at = _find(_NOT_BLANK, sql, at)
        if sql.startswith(_LINE_COMMENT, at):
            at = _find(_LINE_END, sql, at)
        elif sql.startswith(_COMMENT, at):
            at = _after_comment(sql, at)
        else:
            return at


def _after_comment(sql: str, at: int) -> int:
    """The end of the comment that begins at *at*; comments can be nested."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, at):
        depth += 1 if edge[0] == _COMMENT else -1
        if not depth:
            return edge.end()
    return len(sql)


def _find(pattern: re.Pattern[str], sql: str, at: int) -> int:
    found = pattern.search(sql, at)
    return found.start() if found else len(sql)
