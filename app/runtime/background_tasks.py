"""The background tasks of the service, and their intervals."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from app.control.monitoring.poller import PollReport
from app.embedded import EmbeddedPostgres
from app.runtime.wiring import Service
from app.settings import Settings

if TYPE_CHECKING:
    from app.api.telemetry.otlp import OtlpExporter

# In seconds.
TICK_DEADLINE = 60.0
_CHECK_INTERVAL = 5.0
_RETENTION_INTERVAL = 10.0
_LOCK_GUARD_INTERVAL = 0.25
# Shorter than an unused admin connection stays open: a login costs more than a look at the server.
_FLEET_INTERVAL = 0.8
# A revoked credential leaves the nodes' configurations within this time.
_FEED_INTERVAL = 0.5
_LOADS_PER_OBSERVATION = 3
_MIN_LOAD_INTERVAL = 1.0


def start_background_tasks(
    settings: Settings,
    service: Service,
    embedded: EmbeddedPostgres | None,
    otlp: OtlpExporter | None,
) -> None:
    """Start the service's background tasks.

    - loop lag: measures how late the event loop is
    - poll: measures pools, stores samples, evicts idle pools, advises; publishes the snapshot
    - retention: downsamples and deletes old samples
    - server load: samples the activity of each server, a few times per observation of the advisor
    - check: tests idle connections, audits isolation, refreshes the limits of servers, ends
        sessions of deleted tenants
    - reconcile: brings pools to their desired state, finishes what was interrupted
    - locks on <server>: keeps tenants from filling the lock table
    - fleet: divides each server's budget among this process and the nodes
    - node feed: makes the configurations of the nodes
    - otlp: pushes metrics, where an endpoint is configured
    - embedded: restarts the embedded Postgres if it crashed
    """

    def poll_interval() -> float:
        return min(settings.poll_interval_seconds, service.advisor_loop.settings.interval)

    def retention_interval() -> float:
        return max(poll_interval(), _RETENTION_INTERVAL)

    def load_interval() -> float:
        observation = service.advisor_loop.settings.interval
        return max(_MIN_LOAD_INTERVAL, observation / _LOADS_PER_OBSERVATION)

    async def poll() -> PollReport:
        report = await service.poller.run_once()
        if service.snapshots.published is not None:
            await service.exposition.prepare(service.snapshots.published)
        return report

    service.supervisor.start("loop lag", service.lag.measure())
    every = partial(service.supervisor.start_every, timeout=TICK_DEADLINE)
    every("poll", poll_interval, poll)
    every("retention", retention_interval, service.retention.run_once)
    every("server load", load_interval, service.loads.sample)
    every("check", lambda: _CHECK_INTERVAL, service.health_checks.run_once)
    every("reconcile", lambda: settings.reconcile_interval_seconds, service.reconciler.run_once)
    every("fleet", lambda: _FLEET_INTERVAL, service.fleet.run_once)
    every("node feed", lambda: _FEED_INTERVAL, service.node_feed.refresh)
    for name, guard in service.lock_guards.items():
        every(f"locks on {name}", lambda: _LOCK_GUARD_INTERVAL, guard.run_once)
    if otlp is not None:
        every("otlp", poll_interval, partial(otlp.push, service.exposition))
    if embedded is not None:
        every("embedded", lambda: embedded.relaunch_pause, embedded.restart_if_crashed)
