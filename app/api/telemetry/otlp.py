"""Pushes the metrics of pools to an OpenTelemetry collector after each poll.

This is for installations with a collector but no Prometheus. It needs the extra `otel`, so it is
imported only when used. The instruments are OpenTelemetry's for database clients; their "pool"
means all pools of one strategy on one server.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from time import time_ns
from typing import Any, cast

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import export as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from app import __version__
from app.api.telemetry.pool_metrics import Exposition

_PREFIX = "db.client.connection."
# Prometheus' name: OpenTelemetry's name after the prefix, and its unit.
_INSTRUMENTS = {
    "db_client_connection_count": ("count", "{connection}"),
    "db_client_connection_max": ("max", "{connection}"),
    "db_client_connection_idle_max": ("idle.max", "{connection}"),
    "db_client_connection_idle_min": ("idle.min", "{connection}"),
    "db_client_connection_pending_requests": ("pending_requests", "{request}"),
    "db_client_connection_timeouts": ("timeouts", "{timeout}"),
    "db_client_connection_create_time_seconds": ("create_time", "s"),
    "db_client_connection_wait_time_seconds": ("wait_time", "s"),
    "db_client_connection_use_time_seconds": ("use_time", "s"),
}
_SINCE_START = otel.AggregationTemporality.CUMULATIVE
# For one push with its retries; the next poll has newer numbers.
_TIMEOUT_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class OtlpExporter:
    def __init__(self, endpoint: str) -> None:
        """Push to *endpoint*; headers, certificates and the like come from `OTEL_…` variables."""
        self._exporter = OTLPMetricExporter(endpoint, timeout=_TIMEOUT_SECONDS)
        self._resource = Resource.create(
            {"service.name": "poolkeeper", "service.version": __version__}
        )
        self._started = time_ns()
        self._pushed = 0
        self._is_failing = False
        self._logger = logging.getLogger(OTLPMetricExporter.__module__)
        self._logger.addFilter(self._is_first_failure)

    async def push(self, exposition: Exposition) -> None:
        """Push the latest prepared snapshot, once."""
        snapshot, families = exposition.snapshot, exposition.families
        if snapshot is None or snapshot.sequence == self._pushed:
            return
        data = self._data(list(families), snapshot.as_of)
        result = await asyncio.to_thread(self._exporter.export, data)
        is_failing = result is not otel.MetricExportResult.SUCCESS
        if is_failing and not self._is_failing:
            _log.warning("metrics push failed")
        self._is_failing = is_failing
        self._pushed = snapshot.sequence

    def close(self) -> None:
        """Abort a push in progress, and push no more."""
        self._exporter.shutdown()
        self._logger.removeFilter(self._is_first_failure)

    def _is_first_failure(self, _: logging.LogRecord) -> bool:
        return not self._is_failing

    def _data(self, families: Sequence[Family], as_of: datetime) -> otel.MetricsData:
        times = {
            "start_time_unix_nano": self._started,
            "time_unix_nano": int(as_of.timestamp() * 1_000_000_000),
        }
        scope = otel.ScopeMetrics(
            scope=InstrumentationScope("poolkeeper", __version__),
            metrics=[_metric(each, times) for each in families if each.name in _INSTRUMENTS],
            schema_url="",
        )
        return otel.MetricsData([otel.ResourceMetrics(self._resource, [scope], schema_url="")])


def _metric(family: Family, times: dict[str, Any]) -> otel.Metric:
    name, unit = _INSTRUMENTS[family.name]
    data: otel.Sum | otel.Histogram
    if family.type == "histogram":
        data = otel.Histogram(list(_histograms(family, times)), _SINCE_START)
    else:
        points = [
            otel.NumberDataPoint(attributes=_attributes(each), value=each.value, **times)
            for each in family.samples
        ]
        data = otel.Sum(points, _SINCE_START, is_monotonic=family.type == "counter")
    return otel.Metric(_PREFIX + name, family.documentation, unit, data)


def _histograms(family: Family, times: dict[str, Any]) -> Iterator[otel.HistogramDataPoint]:
    """One point for each set of labels; its buckets are not cumulative, unlike Prometheus'."""
    for attributes, samples in groupby(family.samples, _attributes):
        by_name: dict[str, list[Sample]] = {}
        for each in samples:
            by_name.setdefault(each.name.removeprefix(family.name), []).append(each)
        bounds = [float(each.labels["le"]) for each in by_name["_bucket"]]
        counts = [int(each.value) for each in by_name["_bucket"]]
        unknown = cast("Any", None)
        yield otel.HistogramDataPoint(
            attributes=attributes,
            count=counts[-1],
            sum=by_name["_sum"][0].value,
            bucket_counts=[
                count - before for before, count in zip([0, *counts], counts, strict=False)
            ],
            explicit_bounds=bounds[:-1],
            min=unknown,
            max=unknown,
            **times,
        )


def _attributes(sample: Sample) -> dict[str, str]:
    labels = sample.labels
    found = {
        f"{_PREFIX}pool.name": f"{labels['server']}/{labels['strategy']}",
        "poolkeeper.server": labels["server"],
        "poolkeeper.strategy": labels["strategy"],
    }
    if "state" in labels:
        found[f"{_PREFIX}state"] = labels["state"]
    return found
