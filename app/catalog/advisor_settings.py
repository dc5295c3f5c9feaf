"""The advisor's settings; each change is stored with its audit event."""

from __future__ import annotations

from dataclasses import asdict, replace

from sqlalchemy import RowMapping, select

from app.catalog.database import Database, Store
from app.catalog.tables import advisor
from app.catalog.versioned_table import VersionedTable
from app.domain.advisor import DemandConfig, PoolPressureMonitorConfig, TrialConfig
from app.domain.audit import AuditEvent
from app.domain.desired_state import AdvisorRule, AdvisorSettings
from app.domain.tenant import AdvisorMode

# Of the only row.
_ID = 1


class StoredAdvisorSettings(Store):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._rows = VersionedTable(database, advisor)

    async def load(self) -> AdvisorSettings | None:
        """What was saved last; None before anything was."""
        rows = await self._database.fetch(select(advisor))
        return _settings(rows[0]) if rows else None

    async def save(
        self,
        settings: AdvisorSettings,
        *,
        event: AuditEvent,
        expected_generation: int | None = None,
    ) -> AdvisorSettings:
        """Replace the settings; an identical write keeps the generation and records nothing.

        As `VersionedTable.write`; the own generation of *settings* is ignored.

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
    if "demand" not in config:  # stored when there was no such rule
        return settings
    # What another version knew and this one does not is left out.
    known = DemandConfig.__dataclass_fields__
    demand = {key: value for key, value in config["demand"].items() if key in known}
    return replace(
        settings,
        demand=DemandConfig(**{**demand, "trial": TrialConfig(**demand["trial"])}),
        demand_interval_ms=config["demand_interval_ms"],
    )
