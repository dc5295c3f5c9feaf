"""Downsamples samples to minutes, hours and days, and deletes those older than the settings keep.

It runs beside the poller, so that no measurement waits for it. While samples cannot be stored, it
does nothing. Each step is one short transaction that may be repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from app.catalog.catalog import Catalog
from app.control.monitoring.poller import Poller
from app.domain.errors import CatalogUnavailable
from app.domain.history import Resolution

# The number of minutes, and also of hours and days, downsampled in one run; a backlog takes several
# runs.
_MAX_STEPS = 10

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionReport:
    """The result of a run: until when minutes and hours are complete, and the deleted rows."""

    minutes_complete_until: datetime
    hours_complete_until: datetime
    deleted: int


class SampleRetention:
    """Downsamples and deletes stored samples."""

    def __init__(
        self, catalog: Catalog, poller: Poller, *, retention: Mapping[Resolution, timedelta]
    ) -> None:
        """Samples are deleted when they are older than the *retention* of their resolution."""
        self._catalog = catalog
        self._poller = poller
        self._retention = retention
        # What was downsampled from this time on may lack samples.
        self._again_from: dict[Resolution, datetime] = {}
        self._seen_since: datetime | None = None

    async def run_once(self) -> RetentionReport | None:
        """Downsample and delete, in a bounded number of steps.

        Returns None before the first poll, and while the catalog is away.
        """
        until, since = self._poller.stored_until, self._poller.sampled_since
        if until is None or since is None:
            return None
        if since is not self._seen_since:
            self._seen_since = since
            # Or from an earlier time on, if the catalog was away since then.
            self._again_from = {
                each: min(since, self._again_from.get(each, since)) for each in Resolution
            }
        try:
            minutes = await self._downsample(Resolution.MINUTE, until)
            hours = await self._downsample(Resolution.HOUR, Resolution.HOUR.floor(minutes))
            days = await self._downsample(Resolution.DAY, Resolution.DAY.floor(hours))
            # Samples that are not downsampled yet stay, however old they are.
            deleted = (
                await self._delete(Resolution.RAW, minutes)
                + await self._delete(Resolution.MINUTE, hours)
                + await self._delete(Resolution.HOUR, days)
                + await self._delete(Resolution.DAY, days)
            )
        except CatalogUnavailable as error:
            _log.warning("samples not downsampled", reason=error.detail)
            return None
        return RetentionReport(
            minutes_complete_until=minutes,
            hours_complete_until=hours,
            deleted=deleted,
        )

    async def _downsample(self, resolution: Resolution, until: datetime) -> datetime:
        done = until
        for _ in range(_MAX_STEPS):
            done = await self._catalog.samples.downsample(
                resolution, until, again_from=self._again_from[resolution]
            )
            self._again_from[resolution] = done
            if done >= until:
                break
        return done

    async def _delete(self, resolution: Resolution, before: datetime) -> int:
        # A coarser interval is deleted entirely or not at all: sums of a period take whole ones.
        expired = resolution.coarser.floor(datetime.now(UTC) - self._retention[resolution])
        return await self._catalog.samples.delete_before(resolution, min(before, expired))
