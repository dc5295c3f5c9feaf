"""What callers wait for, in the API."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from app.domain.wait import Wait, WaitCause


class WaitView(BaseModel):
    """What callers wait for: the first limit that binds."""

    model_config = ConfigDict(from_attributes=True)

    cause: WaitCause = Field(
        description="For the pool to be resumed (`paused`), the server (`server_unavailable`), one "
        "of the tenant's own leases to end (`max_leases`), another pool to close (`pool_limit`), a "
        "lease of the pool to end (`max_size`; `share` if nodes may have the rest of its size), "
        "its login to be accepted (`login_refused`), a connection that another pool or node has "
        "(`server_budget`), a turn on a node that has as many as it may (`node_limit`), or one to "
        "be opened or handed out (`connection`).",
        examples=["max_size"],
    )
    used: int | None = Field(
        description="Use of the limit that binds; null if nothing is counted.", examples=[5]
    )
    limit: int | None = Field(description="The limit itself.", examples=[5])
    detail: str = Field(
        description="The same in words.",
        examples=["a lease to end: all 5 connections of the pool are on lease (max_size)"],
    )

    @classmethod
    def of(cls, wait: Wait | None) -> Self | None:
        """None if nobody waits."""
        return None if wait is None else cls.model_validate(wait)
