"""Pushing to OpenTelemetry: what a collector gets, and what happens if there is none."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)
from pydantic import ValidationError

from app.api.telemetry import otlp as otlp_module
from app.api.telemetry.otlp import OtlpExporter
from app.api.telemetry.pool_metrics import Exposition
from app.settings import Settings, SettingsError
from tests.fixtures.app import Api, ApiWith
from tests.fixtures.waiting import eventually

CONNECTIONS = "db.client.connection."
POOL = {
    "db.client.connection.pool.name": "local/per_tenant",
    "poolkeeper.server": "local",
    "poolkeeper.strategy": "per_tenant",
}


class Collector:
    """Accepts what is pushed to it."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.pushes: list[ExportMetricsServiceRequest] = []
        self.endpoint = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        lines = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        body = await reader.readexactly(int(lines["content-length"]))
        self.paths.append(head.split()[1])
        self.pushes.append(ExportMetricsServiceRequest.FromString(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    @property
    def newest(self) -> dict[str, Metric]:
        """The metrics of the last push by name."""
        (resource,) = self.pushes[-1].resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a port of this machine, for a block."""
    collector = Collector()
    server = await asyncio.start_server(collector.take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    collector.endpoint = f"http://127.0.0.1:{port}/v1/metrics"
    async with server:
        yield collector


def attributes(point: NumberDataPoint | HistogramDataPoint) -> dict[str, str]:
    return {each.key: each.value.string_value for each in point.attributes}


def by_state(found: dict[str, Metric]) -> dict[str, int]:
    """Connections of tenants' own pools; checks that other states are absent."""
    points = found[f"{CONNECTIONS}count"].sum.data_points
    labels = [attributes(point) for point in points]
    assert all(POOL.items() <= each.items() for each in labels)
    values = (point.as_int for point in points)
    return {each[f"{CONNECTIONS}state"]: value for each, value in zip(labels, values, strict=True)}


async def test_a_collector_gets_the_figures_of_pools_by_their_own_names(api_with: ApiWith) -> None:
    async with (
        collecting() as collector,
        api_with(
            otlp_endpoint=collector.endpoint,
            poll_interval_seconds=0.2,
        ) as api,
    ):
        await api.value(await api.tenant("acme"), "SELECT 1")

        def has_arrived() -> bool:
            return bool(collector.pushes) and by_state(collector.newest) == {"idle": 1, "used": 0}

        await eventually(has_arrived)
        found = collector.newest
    assert set(collector.paths) == {"/v1/metrics"}
    (resource,) = collector.pushes[-1].resource_metrics
    shown = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert shown["service.name"] == "poolkeeper"
    assert {name.removeprefix(CONNECTIONS): metric.unit for name, metric in found.items()} == {
        "count": "{connection}",
        "max": "{connection}",
        "idle.max": "{connection}",
        "idle.min": "{connection}",
        "pending_requests": "{request}",
        "timeouts": "{timeout}",
        "create_time": "s",
        "wait_time": "s",
        "use_time": "s",
    }
    counts = found[f"{CONNECTIONS}count"].sum
    assert not counts.is_monotonic
    assert found[f"{CONNECTIONS}timeouts"].sum.is_monotonic
    (held,) = (
        point
        for point in found[f"{CONNECTIONS}use_time"].histogram.data_points
        if attributes(point) == POOL
    )
    assert (held.count, sum(held.bucket_counts)) == (1, 1)
    assert len(held.bucket_counts) == len(held.explicit_bounds) + 1
    assert held.start_time_unix_nano < held.time_unix_nano


async def test_the_same_poll_is_pushed_once(api: Api) -> None:
    async with collecting() as collector:
        otlp, exposition = OtlpExporter(collector.endpoint), api.service.exposition
        await exposition.prepare(await api.service.snapshots.current())
        await otlp.push(exposition)
        await otlp.push(exposition)
        assert len(collector.pushes) == 1
        otlp.close()


async def test_a_missing_collector_is_logged_once(
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(otlp_module, "_TIMEOUT_SECONDS", 0.1)
    async with collecting() as collector:
        pass
    otlp, exposition = OtlpExporter(collector.endpoint), api.service.exposition
    for _ in range(2):
        api.service.snapshots.invalidate()
        await exposition.prepare(await api.service.snapshots.current())
        await otlp.push(exposition)
    otlp.close()
    assert caplog.text.count("Failed to export") == 1
    assert capsys.readouterr().out.count("metrics push failed") == 1


async def test_nothing_is_pushed_before_the_first_poll() -> None:
    async with collecting() as collector:
        await OtlpExporter(collector.endpoint).push(Exposition(0, ()))
        assert not collector.pushes


async def test_without_the_extra_the_start_names_what_is_missing(
    api_with: ApiWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "app.api.telemetry.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    endpoint = {"otlp_endpoint": "http://127.0.0.1:4318/v1/metrics"}
    with pytest.raises(SettingsError, match=r"poolkeeper\[otel\]"):
        async with api_with(**endpoint):
            pass


def test_it_is_off_by_default() -> None:
    assert Settings.model_fields["otlp_endpoint"].default is None


def test_credentials_are_no_part_of_its_address() -> None:
    with pytest.raises(ValidationError, match="OTEL_EXPORTER_OTLP_HEADERS") as refused:
        Settings.model_validate({"otlp_endpoint": "http://me:hidden@127.0.0.1/v1/metrics"})
    assert "hidden" not in str(refused.value)
