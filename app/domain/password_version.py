"""The version of a login role's password: it grows with each rotation."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordVersion:
    """The password version that a login role should have.

    Attributes:
        applied: whether Postgres has it for certain; until then it has this version or the one
            before.
    """

    server: str
    role: str
    version: int
    applied: bool
