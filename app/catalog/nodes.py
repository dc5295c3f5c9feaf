"""Declared nodes, and the most connections that each can have."""

from collections.abc import Mapping
from dataclasses import asdict

from sqlalchemy import RowMapping, delete, select
from sqlalchemy.dialects.postgresql import insert

from app.catalog.audit_log import record
from app.catalog.database import fields_in
from app.catalog.tables import node_liabilities, nodes
from app.catalog.versioned_table import VersionedTable
from app.domain.audit import AuditEvent
from app.domain.nodes.declaration import DeclaredNode, NodeSpec

Liabilities = Mapping[tuple[str, str], int]
"""Connections by node and server."""


class Nodes(VersionedTable[str, DeclaredNode]):
    table = nodes

    def _value(self, row: RowMapping) -> DeclaredNode:
        spec = NodeSpec(**fields_in(row, NodeSpec))
        return DeclaredNode(spec=spec, **fields_in(row, DeclaredNode))

    async def save(
        self,
        spec: NodeSpec,
        *,
        paused: bool,
        draining: bool,
        event: AuditEvent,
        expected_generation: int | None = None,
    ) -> tuple[DeclaredNode, bool]:
        """Create or change a node; an identical write keeps the generation and records nothing.

        Returns the present node, and whether it was created.

        Raises:
            StaleVersion: its generation is not the expected one.
        """
        values = asdict(spec)
        return await self._write(
            fixed={"name": values.pop("name")},
            values={**values, "paused": paused, "draining": draining},
            event=event,
            expected_generation=expected_generation,
        )

    async def delete(self, name: str, *, event: AuditEvent) -> None:
        """Delete it with its liabilities; the second time, nothing changes."""
        async with self._writes.writing(name) as connection:
            gone = await connection.execute(delete(nodes).where(nodes.c.name == name))
            owed = node_liabilities
            await connection.execute(delete(owed).where(owed.c.node == name))
            if gone.rowcount:
                await record(connection, event)

    async def load_liabilities(self) -> Liabilities:
        """Load the most connections that each node can have of each server."""
        return dict(
            await self._database.load(
                select(node_liabilities),
                lambda row: ((row["node"], row["server"]), row["connections"]),
            )
        )

    async def save_liabilities(self, liabilities: Liabilities) -> None:
        """Store these liabilities; others stay as they are."""
        values = [
            {"node": node, "server": server, "connections": connections}
            for (node, server), connections in sorted(liabilities.items())
        ]
        if not values:
            return
        statement = insert(node_liabilities)
        statement = statement.on_conflict_do_update(
            index_elements=["node", "server"],
            set_={"connections": statement.excluded.connections},
        )
        async with self._database.transaction() as connection:
            await connection.execute(statement, values)
