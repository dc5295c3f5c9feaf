"""A recommendation to move is about a placement; the demand rule's limits are named min and max."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_DEMAND = {
    "most_growth": "max_growth",
    "least_step": "min_step",
    "least_events": "min_events",
}
_TRIAL = {
    "most_ticks": "max_ticks",
    "least_growth": "min_growth",
    "longest_ceiling_seconds": "max_ceiling_seconds",
}
_PLACEMENTS = {"move_to_shared": "shared_pool", "move_to_own": "own_pool"}


def upgrade() -> None:
    op.execute("ALTER TABLE recommendations RENAME COLUMN move TO placement")
    _rename_kind("move", "placement")
    _rename_placements(_PLACEMENTS)
    for before, after in _DEMAND.items():
        _rename_key("{demand}", before, after)
    for before, after in _TRIAL.items():
        _rename_key("{demand,trial}", before, after)


def downgrade() -> None:
    for before, after in _TRIAL.items():
        _rename_key("{demand,trial}", after, before)
    for before, after in _DEMAND.items():
        _rename_key("{demand}", after, before)
    _rename_placements({after: before for before, after in _PLACEMENTS.items()})
    _rename_kind("placement", "move")
    op.execute("ALTER TABLE recommendations RENAME COLUMN placement TO move")


def _rename_kind(before: str, after: str) -> None:
    op.execute("ALTER TABLE recommendations DROP CONSTRAINT recommendations_kind_check")
    op.execute(f"DROP INDEX recommendations_open_{before}_by_tenant_key")
    op.execute(f"UPDATE recommendations SET kind = '{after}' WHERE kind = '{before}'")  # noqa: S608
    op.execute(
        "ALTER TABLE recommendations ADD CONSTRAINT recommendations_kind_check"
        f" CHECK (kind IN ('resize', '{after}'))"
    )
    op.execute(
        f"CREATE UNIQUE INDEX recommendations_open_{after}_by_tenant_key"
        f" ON recommendations (tenant) WHERE status = 'open' AND kind = '{after}'"
    )


def _rename_placements(names: dict[str, str]) -> None:
    column = "placement"
    for before, after in names.items():
        op.execute(
            f"UPDATE recommendations SET {column} = '{after}' WHERE {column} = '{before}'"  # noqa: S608
        )


def _rename_key(path: str, before: str, after: str) -> None:
    """Rename a key of the object at *path* in the stored settings of the advisor."""
    op.execute(
        f"""
        UPDATE advisor SET config = jsonb_set(
            config #- ('{path}'::text[] || '{before}'::text),
            '{path}'::text[] || '{after}'::text,
            config #> ('{path}'::text[] || '{before}'::text)
        ) WHERE config #> '{path}' ? '{before}'
        """  # noqa: S608
    )
