"""The advisor's settings; each change is stored with its audit event."""

from dataclasses import asdict, replace

from sqlalchemy import RowMapping

from app.catalog.tables import advisor
from app.catalog.versioned_table import VersionedTable
from app.domain.advisor import DemandConfig, PoolPressureMonitorConfig, TrialConfig
from app.domain.advisor_settings import AdvisorRule, AdvisorSettings
from app.domain.audit import AuditEvent
from app.domain.tenant import AdvisorMode

# The key of the only row.
_ID = 1


class StoredAdvisorSettings(VersionedTable[int, AdvisorSettings]):
    """The settings; none before the first change."""

    table = advisor

    def _value(self, row: RowMapping) -> AdvisorSettings:
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

    async def save(
        self,
        settings: AdvisorSettings,
        *,
        event: AuditEvent,
        expected_generation: int | None = None,
    ) -> AdvisorSettings:
        """Replace the settings; an identical write keeps the generation and records nothing.

        The generation in *settings* is ignored.

        Raises:
            StaleVersion: the generation is not the expected one.
        """
        config = {
            "hysteresis": asdict(settings.hysteresis),
            "demand": asdict(settings.demand),
            "demand_interval_ms": settings.demand_interval_ms,
        }
        saved, _ = await self._write(
            fixed={"id": _ID},
            values={"rule": settings.rule, "mode": settings.mode, "config": config},
            event=event,
            expected_generation=expected_generation,
        )
        return saved
