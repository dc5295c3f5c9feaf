"""The advisor's settings; each change is stored with its audit event."""

from __future__ import annotations

from dataclasses import asdict, replace

from sqlalchemy import RowMapping, select

from app.catalog.audit_log import record
from app.catalog.database import Database
from app.catalog.optimistic_write import optimistic_write
from app.catalog.tables import advisor
from app.catalog.unconfirmed_creations import UnconfirmedCreations
from app.domain.advisor import DemandConfig, PoolPressureMonitorConfig, TrialConfig
from app.domain.audit import AuditEvent
from app.domain.desired_state import AdvisorRule, AdvisorSettings
from app.domain.tenant import AdvisorMode

# Of the only row.
_ID = 1


class StoredAdvisorSettings:
    """The one set of advisor settings. Every method may raise CatalogUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unconfirmed = UnconfirmedCreations()

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

        Args:
            settings: the new ones; their own generation is ignored.
            event: recorded in the same transaction, if anything changes.
            expected_generation: 0: nothing must be stored; None: no version check.

        Raises:
            StaleVersion: the generation is not the expected one.
        """
        async with (
            self._unconfirmed.creation(str(_ID), expected_generation) as expected,
            self._database.transaction() as connection,
        ):
            saved = await optimistic_write(
                connection,
                advisor,
                fixed={"id": _ID},
                values={
                    "rule": settings.rule,
                    "mode": settings.mode,
                    "config": {
                        "hysteresis": asdict(settings.hysteresis),
                        "demand": asdict(settings.demand),
                        "demand_interval_ms": settings.demand_interval_ms,
                    },
                },
                expected_generation=expected,
            )
            if saved.changed:
                await record(connection, event)
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
