"""Requests and their errors go to no OpenTelemetry provider of the process."""

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.main import create_app
from app.settings import Settings


async def _spans_of_a_request(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> int:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await client.get("/livez")
    return len(exporter.get_finished_spans())


async def test_a_provider_of_the_process_hears_of_no_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # FastAPI's own telemetry would report each of them.
    assert await _spans_of_a_request(FastAPI(), monkeypatch) > 0
    assert await _spans_of_a_request(create_app(Settings.model_construct()), monkeypatch) == 0
