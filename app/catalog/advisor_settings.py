"""The advisor's settings; each change is stored with its audit event."""

from dataclasses import asdict, replace

from sqlalchemy import RowMapping, select

from app.catalog.database import Database, Store
from app.catalog.tables import advisor
from app.catalog.versioned_table import VersionedTable
from app.domain.advisor import DemandConfig, PoolPressureMonitorConfig, TrialConfig
from app.domain.audit import AuditEvent
from app.domain.desired_state import AdvisorRule, AdvisorSettings
from app.domain.tenant import AdvisorMode

# The key of the only row.
_ID = 1


class StoredAdvisorSettings(Store):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._rows = VersionedTable(database, advisor)

    async def load(self) -> AdvisorSettings | None:
        """Load the settings; None before the first change."""
        rows = await self._database.fetch(select(advisor))
        return _settings(rows[0]) if rows else None

    @property
    def is_uncertain(self) -> bool:
        """Whether a write may have changed them whose response was lost."""
        return bool(self._rows.uncertain)

    async def read(self) -> AdvisorSettings | None:
        """The settings, which are not uncertain any more; None before the first change."""
        row = await self._rows.read(_ID)
        return None if row is None else _settings(row)

    async def save(
        self,
        settings: AdvisorSettings,
        *,
        event: AuditEvent,
        expected_generation: int | None = None,
    ) -> AdvisorSettings:
        """Replace the settings; an identical write keeps the generation and records nothing.

        Works like `VersionedTable.write`; the generation in *settings* is ignored.

        Raises:
            StaleVersion: the generation is not the expected one.
        """
        config = {
            "hysteresis": asdict(settings.hysteresis),
            "demand": asdict(settings.demand),
            "demand_interval_ms": settings.demand_interval_ms,
        }
        saved = await self._rows.write(
            fixed={"id": _ID},
            values={"rule": settings.rule, "mode": settings.mode, "config": config},
            event=event,
            expected_generation=expected_generation,
        )
        return _settings(saved.row)


def _settings(row: RowMapping) -> AdvisorSettings:
    config = row["config"]
    settings = AdvisorSettings(
        rule=AdvisorRule(row["rule"]),
        mode=AdvisorMode(row["mode"]),
        hysteresis=PoolPressureMonitorConfig(**config["hysteresis"]),
        generation=row["generation"],
    )
    if "demand" not in config:  # stored by a version without that rule
        return settings
    # Values that this version does not know are left out.
    known = DemandConfig.__dataclass_fields__
    demand = {key: value for key, value in config["demand"].items() if key in known}
    return replace(
        settings,
        demand=DemandConfig(**{**demand, "trial": TrialConfig(**demand["trial"])}),
        demand_interval_ms=config["demand_interval_ms"],
    )
