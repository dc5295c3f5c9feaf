"""Results that do not fit into a response; nearly always, their statement is rolled back."""

from app.domain.errors import StatementFailed

PROGRAM_LIMIT_EXCEEDED = "54000"


def results_too_large() -> StatementFailed:
    """The error for a request whose rows are too large together, when all are needed."""
    return _too_large("The results are larger than 8 MiB.", "Return less, for example with LIMIT.")


def row_too_large() -> StatementFailed:
    """The error for a single row that is too large."""
    return _too_large(
        "A single row is larger than 8 MiB.", "Return fewer columns, or parts of their values."
    )


def _too_large(detail: str, cure: str) -> StatementFailed:
    hint = f"Nothing was changed. {cure}"
    return StatementFailed(detail, sqlstate=PROGRAM_LIMIT_EXCEEDED, hint=hint)
