"""Transactions, as Postgres has them."""

from enum import StrEnum, auto


class IsolationLevel(StrEnum):
    """What a transaction sees of others; READ_UNCOMMITTED works like READ_COMMITTED."""

    READ_UNCOMMITTED = auto()
    READ_COMMITTED = auto()
    REPEATABLE_READ = auto()
    SERIALIZABLE = auto()

    @property
    def sql(self) -> str:
        return self.replace("_", " ").upper()
