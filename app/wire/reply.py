"""What the server sent in response to the messages of the extended query protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.wire.backend_messages import ResultField, ServerError, parameter_types, result_fields


@dataclass(slots=True)
class Reply:
    """What the server sent up to ReadyForQuery; of a statement that is described, since then.

    Attributes:
        parameter_description: of the statement, as it came; empty before it is described.
        row_description: the same, None if it returns no rows.
        rows: the rows that were kept, each as it came: see `column_values`.
        is_truncated: whether rows came that were too large to be kept, and are not in *rows*.
        command_tag: the command tag once it is complete.
        is_copy: whether it is a COPY to or from its client.
        is_executed: whether it was executed, to its end or to the number of rows asked for; known
            only before an ending.
        transaction_status: of the transaction: I for none, T for open, E for failed.
        parameter_status: the settings that the server reported to have changed.
    """

    parameter_description: bytes = b""
    row_description: bytes | None = None
    rows: list[bytes] = field(default_factory=list)
    is_truncated: bool = False
    command_tag: str | None = None
    is_copy: bool = False
    is_executed: bool = False
    transaction_status: str = ""
    error: ServerError | None = None
    parameter_status: dict[str, str] = field(default_factory=dict)

    def parameters(self) -> tuple[int, ...]:
        """The types of the statement's parameters, as oids."""
        return parameter_types(self.parameter_description) if self.parameter_description else ()

    def fields(self) -> tuple[ResultField, ...]:
        """The statement's columns."""
        return () if self.row_description is None else result_fields(self.row_description)
