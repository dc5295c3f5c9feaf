"""Metrics in Prometheus' text format."""

from time import monotonic
from typing import Annotated

from fastapi import APIRouter, Header, Response
from prometheus_client.exposition import choose_encoder

from app.api.http.authentication import REQUIRE_READ_ALL
from app.api.http.dependencies import ResponseCacheDep, provided
from app.api.http.error_responses import problem_responses
from app.api.telemetry.pool_metrics import Exposition
from app.api.telemetry.service_metrics import ServiceCollector

_END = b"# EOF\n"
_EXAMPLE = """# HELP db_client_connection_count Connections by state.
# TYPE db_client_connection_count gauge
db_client_connection_count{server="local",state="idle",strategy="per_tenant"} 7.0
db_client_connection_count{server="local",state="used",strategy="per_tenant"} 3.0
"""

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    operation_id="metrics",
    dependencies=REQUIRE_READ_ALL,
    summary="Get metrics for Prometheus",
    response_class=Response,
    responses=problem_responses()
    | {
        200: {
            "description": "Prometheus text format, or OpenMetrics if the scraper accepts it.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        }
    },
)
async def metrics(
    exposition: Annotated[Exposition, provided(Exposition)],
    service_metrics: Annotated[ServiceCollector, provided(ServiceCollector)],
    cache: ResponseCacheDep,
    accept: Annotated[
        str | None, Header(max_length=1000, description="Formats that the scraper understands.")
    ] = None,
) -> Response:
    """Gauges, counters and histograms of pools, servers and the service itself.

    Metrics of pools and tenants are as of the last poll; `poolkeeper_poll_age_seconds` is its age.
    All others are as of now. The series of tenants do not include their load on nodes.

    Only the tenants with the highest demand have series of their own (setting `metrics_tenants`);
    `_other` sums up the rest.

    In Prometheus' scrape configuration, set `authorization: {credentials_file: /path}` to the file
    with the API key. A key that is bound to tenants answers 403.
    """
    prepared = exposition.snapshot
    if prepared is None or cache.is_stale(monotonic() - prepared.at):
        await exposition.prepare(await cache.snapshot())
    encode, content_type = choose_encoder(accept or "")
    pools = await exposition.render(encode, content_type)
    body = pools.removesuffix(_END) + encode(service_metrics)
    return Response(body, headers={"Content-Type": content_type})
