"""What the API takes and returns: plain dictionaries, with types.

Generated from openapi/openapi.json by `make openapi`.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

AdvisorMode = Literal["off", "recommend", "apply"]
AdvisorRule = Literal["demand", "hysteresis"]
CallerState = Literal["active", "waiting"]
EvictionMode = Literal["graceful", "force"]
IsolationLevel = Literal["read_uncommitted", "read_committed", "repeatable_read", "serializable"]
LeaseOrder = Literal["-age_seconds", "age_seconds", "tenant"]
NodeTenantOrder = Literal["tenant", "-longest_wait_ms", "-waiting", "-clients", "-active"]
Origin = Literal["request", "service"]
PoolOrder = Literal[
    "pool_id",
    "waiting",
    "-waiting",
    "wait_p99_ms",
    "-wait_p99_ms",
    "active",
    "-active",
    "size",
    "-size",
]
PoolScope = Literal["tenant", "pool"]
PoolStrategy = Literal["shared", "per_tenant", "per_database"]
RecommendationStatus = Literal["open", "applied", "dismissed", "superseded", "expired", "undone"]
Severity = Literal["warning", "critical", "not_checked"]
TenantOrder = Literal[
    "tenant",
    "waiting_requests",
    "-waiting_requests",
    "wait_p99_ms",
    "-wait_p99_ms",
    "active_connections",
    "-active_connections",
]
TenantPhase = Literal["declared", "provisioned", "deleting"]
UsageOrder = Literal[
    "-connection_seconds", "connection_seconds", "-leases", "leases", "-timeouts", "timeouts"
]


class About(TypedDict):
    """The service."""

    documents_url: str | None
    grafana_url: str | None
    version: str
    instance: ActiveInstance


class ActiveInstance(TypedDict):
    """The instance that answers."""

    id: str
    url: str | None


class AdviceView(TypedDict):
    """The advisor's latest advice for a pool, its reason included, also for `stable`."""

    action: str
    current_size: int
    new_size: int
    wanted: int | None
    reason_code: str
    reason: str
    confidence: str
    estimated: bool
    evidence: dict[str, Any]
    expected: EffectView | None
    at: str
    idle_seconds: float | None
    warm_size: int
    blocked_by: str | None


class AdvisorBody(TypedDict):
    """A change of the advisor; omitted fields stay as they are."""

    rule: NotRequired[AdvisorRule | None]
    mode: NotRequired[AdvisorMode | None]
    config: NotRequired[AdvisorConfigBody]


class AdvisorConfigBody(TypedDict):
    """Configuration of one rule; omitted fields stay as they are."""

    patience_seconds: NotRequired[float | None]
    late_share: NotRequired[float | None]
    rate_smoothing: NotRequired[float | None]
    rate_margin: NotRequired[float | None]
    hold_seconds: NotRequired[float | None]
    hold_inflation: NotRequired[float | None]
    late_ticks: NotRequired[int | None]
    late_growth: NotRequired[float | None]
    max_growth: NotRequired[float | None]
    window_seconds: NotRequired[float | None]
    shrink_share: NotRequired[float | None]
    shrink_step: NotRequired[int | None]
    burst_allowance: NotRequired[int | None]
    burst_share: NotRequired[float | None]
    idle_seconds: NotRequired[float | None]
    dead_band: NotRequired[float | None]
    min_events: NotRequired[int | None]
    enough_events: NotRequired[int | None]
    loop_lag_seconds: NotRequired[float | None]
    idle_in_transaction_share: NotRequired[float | None]
    lock_share: NotRequired[float | None]
    io_share: NotRequired[float | None]
    client_write_share: NotRequired[float | None]
    running_per_core: NotRequired[float | None]
    trial: NotRequired[TrialConfigBody | None]
    min_pool_size: NotRequired[int | None]
    max_pool_size: NotRequired[int | None]
    target_queue_depth: NotRequired[int | None]
    scale_up_step: NotRequired[int | None]
    scale_down_step: NotRequired[int | None]
    scale_down_idle_ratio: NotRequired[float | None]
    tuning_interval_ms: NotRequired[int | None]
    samples_before_action: NotRequired[int | None]
    enabled: NotRequired[bool | None]


class AdvisorCounters(TypedDict):
    """Counters since the service started."""

    adjustments_total: int
    open_recommendations: int


class AdvisorView(TypedDict):
    """The advisor."""

    rule: AdvisorRule
    mode: AdvisorMode
    config: DemandConfigView | PoolPressureMonitorConfig
    generation: int
    counters: AdvisorCounters
    stale: bool


class CredentialBody(TypedDict):
    """A new credential."""

    name: str
    expires_at: NotRequired[str | None]


class CredentialList(TypedDict):
    """A page of credentials."""

    items: list[CredentialView]
    next_cursor: str | None


class CredentialRotation(TypedDict):
    """The result of a password rotation."""

    tenant: str
    role: str
    version: int
    tenants: int
    connections: int


class CredentialView(TypedDict):
    """A credential of an application, without its password."""

    name: str
    user: str
    created_at: str
    expires_at: str | None
    expired: bool
    last_used_at: str | None


class DemandConfigView(TypedDict):
    """The configuration of the demand rule, and milliseconds between two of its ticks."""

    patience_seconds: NotRequired[float]
    late_share: NotRequired[float]
    rate_smoothing: NotRequired[float]
    rate_margin: NotRequired[float]
    hold_seconds: NotRequired[float]
    hold_inflation: NotRequired[float]
    late_ticks: NotRequired[int]
    late_growth: NotRequired[float]
    max_growth: NotRequired[float]
    window_seconds: NotRequired[float]
    shrink_share: NotRequired[float]
    shrink_step: NotRequired[int]
    burst_allowance: NotRequired[int]
    burst_share: NotRequired[float]
    idle_seconds: NotRequired[float]
    dead_band: NotRequired[float]
    min_events: NotRequired[int]
    enough_events: NotRequired[int]
    loop_lag_seconds: NotRequired[float]
    idle_in_transaction_share: NotRequired[float]
    lock_share: NotRequired[float]
    io_share: NotRequired[float]
    client_write_share: NotRequired[float]
    running_per_core: NotRequired[float]
    trial: NotRequired[TrialConfig]
    tuning_interval_ms: int


class DesiredSize(TypedDict):
    """A pool's desired state; the defaults where nothing was set."""

    min_size: int
    max_size: int
    warmup_size: int
    paused: bool


class EffectView(TypedDict):
    """The expected effect of the advice."""

    late_share_before: float | None
    late_share_after: float | None
    connections_before: int
    connections_after: int


class EvaluateBody(TypedDict):
    """Either constant metrics over a number of samples, or a tenant's open pool."""

    rule: NotRequired[AdvisorRule | None]
    config: NotRequired[AdvisorConfigBody]
    metrics: NotRequired[EvaluateMetrics | None]
    samples: NotRequired[int]
    tenant: NotRequired[str | None]
    late_ms: NotRequired[float | None]
    late_share: NotRequired[float | None]
    budget: NotRequired[int | None]


class EvaluateMetrics(TypedDict):
    """The metrics of a pool."""

    total_connections: int
    idle_connections: int
    active_connections: int
    waiting_requests: int


class Evaluation(TypedDict):
    """The rule's advice for the last sample."""

    action: str
    current_size: int
    new_size: int
    wanted: int | None
    reason_code: str
    reason: str
    confidence: str
    estimated: bool
    evidence: dict[str, Any]
    expected: EffectView | None


class EventList(TypedDict):
    """A page of events, newest first."""

    items: list[EventView]
    next_cursor: str | None
    stale: bool


class EventView(TypedDict):
    """An audit event: who changed what, when, why, from what to what."""

    id: int | None
    at: str
    actor: str
    request_id: str | None
    action: str
    tenant: str | None
    pool: str | None
    reason: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class FindingList(TypedDict):
    """All findings, the worst and the most frequent first."""

    items: list[FindingView]


class FindingView(TypedDict):
    """What needs attention for one cause, and the affected tenants."""

    check: str
    severity: Severity
    server: str | None
    nodes: NotRequired[list[str]]
    node_count: NotRequired[int]
    detail: str | None
    count: NotRequired[int]
    tenants: NotRequired[list[str]]


class HistoryPointView(TypedDict):
    """A time step: averages of gauges, increases of counters, maxima of percentiles."""

    at: str
    samples: int
    total_connections: float
    active_connections: float
    idle_connections: float
    waiting_requests: float
    waiting_requests_max: int
    acquired: int
    timeouts: int
    connection_seconds: float
    wait_p95_ms: float | None
    wait_p99_ms: float | None
    hold_p95_ms: float | None
    connect_p95_ms: float | None


class InstanceList(TypedDict):
    """The instances that run, the active one first; one that crashed is listed for 10 s."""

    items: list[InstanceView]
    next_cursor: None


class InstanceView(TypedDict):
    """One process of the service."""

    id: str
    url: str | None
    version: str
    state: str
    started_at: str
    seen_at: str
    active_since: str | None
    epoch: int | None


class IsolationCheckView(TypedDict):
    """The result of one check in Postgres."""

    name: str
    ok: bool
    severity: Severity | None
    detail: str | None


class IsolationView(TypedDict):
    """Where the tenant lives inside Postgres, and how well it is isolated there."""

    strategy: PoolStrategy
    assurance: str
    database: str | None
    schema: str | None
    role: str | None
    checks: list[IsolationCheckView]
    checked_at: str | None


class IssuedCredentialView(TypedDict):
    """A new credential, with its password."""

    name: str
    user: str
    created_at: str
    expires_at: str | None
    expired: bool
    last_used_at: str | None
    password: str
    connection_string: str
    node_connection_string: str | None
    node_connection_strings: list[str]


class KeyNames(TypedDict):
    """All API keys by name."""

    required: bool
    uses_since: str
    items: list[KeyView]


class KeyView(TypedDict):
    """An API key, without its secret."""

    name: str
    scopes: list[str]
    tenants: list[str] | None
    node: str | None
    created_at: str
    expires_at: str | None
    expired: bool
    last_used_at: str | None
    requests_per_second: int | None


class Latency(TypedDict):
    """Percentiles over the window; null if nothing was measured in it."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class LeakSuspectView(TypedDict):
    """A lease held for so long that it may have leaked."""

    tenant: str
    task: str
    taken_at: str
    age_seconds: float
    pid: int


class LeaseList(TypedDict):
    """A page of callers."""

    as_of: str
    active: int
    waiting: int
    items: list[LeaseView]
    next_cursor: str | None


class LeaseView(TypedDict):
    """A caller that holds a connection, or waits for one."""

    state: CallerState
    tenant: str
    pool_id: str
    server: str
    since: str
    age_seconds: float
    position: int | None
    waits_for: WaitView | None
    pid: int | None
    task: str | None
    taken_at: str | None
    statement: str | None


class LoopLagView(TypedDict):
    """How late the service's event loop runs; a high value alone explains waits."""

    now_ms: float
    worst_ms: float


class NodeBody(TypedDict):
    """A node's declaration."""

    address: NotRequired[str | None]
    labels: NotRequired[dict[str, str]]
    selector: NotRequired[dict[str, str]]
    limits: NotRequired[dict[str, Any]]


class NodeEntryView(TypedDict):
    """A tenant on one node, as last reported."""

    node: str
    node_state: str
    state: str
    size: int
    share: int
    connections: int
    active: int
    clients: int
    waiting: int
    longest_wait_ms: float
    estimated: bool
    transactions_per_second: float | None
    hold_ms: float | None
    wait_ms: float | None
    wait_p99_ms: float | None
    late_share: float | None


class NodeList(TypedDict):
    """A page of nodes."""

    items: list[NodeView]
    next_cursor: str | None


class NodeRecycling(TypedDict):
    """What became of a tenant's connections on a node."""

    node: str
    recycled: bool


class NodeServerView(TypedDict):
    """A node's part of a server's connection budget."""

    server: str
    allotment: int
    committed: int | None
    connections: int | None
    held: int


class NodeTenantList(TypedDict):
    """A page of a node's tenants."""

    matches: int
    items: list[NodeTenantView]
    next_cursor: str | None


class NodeTenantView(TypedDict):
    """One of the tenants of a node."""

    node: str
    node_state: str
    state: str
    size: int
    share: int
    connections: int
    active: int
    clients: int
    waiting: int
    longest_wait_ms: float
    estimated: bool
    transactions_per_second: float | None
    hold_ms: float | None
    wait_ms: float | None
    wait_p99_ms: float | None
    late_share: float | None
    tenant: str


class NodeTotals(TypedDict):
    """All nodes together."""

    by_state: dict[str, int]
    troubled: int
    vulnerable: int
    clients: int
    waiting: int


class NodeView(TypedDict):
    """A PgBouncer node."""

    name: str
    address: str | None
    labels: dict[str, str]
    selector: dict[str, str]
    limits: dict[str, int]
    paused: bool
    draining: bool
    state: str
    engine: str | None
    agent: str | None
    problem: str | None
    warnings: list[str]
    vulnerable: bool
    silent_seconds: float | None
    tenants: int
    clients: int
    waiting: int
    up_to_date: bool
    servers: list[NodeServerView]
    generation: int
    created_at: str
    updated_at: str


class NodesHistoryPointView(TypedDict):
    """A time step of what nodes reported: connections, clients that waited, transactions."""

    at: str
    samples: int
    total_connections: float
    active_connections: float
    idle_connections: float
    waiting_requests: float
    waiting_requests_max: int
    acquired: int
    timeouts: int
    connection_seconds: float
    wait_p95_ms: float | None
    wait_p99_ms: float | None
    hold_p95_ms: float | None
    connect_p95_ms: float | None
    estimated: NotRequired[bool]


class PauseView(TypedDict):
    """A pause of a pool."""

    since: str
    by: str


class PlanEffectsView(TypedDict):
    """What a plan means for connections, estimated from the pools at this moment."""

    connections_opened: int
    connections_closed: int
    leases_cut: int


class PlanStepView(TypedDict):
    """One step of a plan."""

    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class PlanView(TypedDict):
    """What the request would do; nothing was changed."""

    dry_run: bool
    plan: list[PlanStepView]
    effects: PlanEffectsView
    warnings: list[str]


class PoolBody(TypedDict):
    """A change of a pool's size; omitted or null fields stay as they are."""

    max_size: NotRequired[int | None]
    min_size: NotRequired[int | None]
    warmup_size: NotRequired[int | None]


class PoolCheck(TypedDict):
    """The result of testing a pool's idle connections."""

    pool_id: str
    tenants: int
    tested: int
    failed: int


class PoolCounts(TypedDict):
    """How many pools are open, and how many are in each state; a closed pool may be paused."""

    open: int
    by_state: dict[str, int]


class PoolDrain(TypedDict):
    """A drain in progress."""

    pool_id: str
    tenants: int
    state: str
    deadline_seconds: float


class PoolEviction(TypedDict):
    """The result of evicting a pool."""

    pool_id: str
    tenants: int
    reason: str
    closed: int
    cut: int
    nodes: list[NodeRecycling]


class PoolList(TypedDict):
    """A page of open and paused pools."""

    as_of: str
    age_seconds: int
    stale: bool
    matches: int
    items: list[PoolView]
    next_cursor: str | None


class PoolMetricsView(TypedDict):
    """A sample of a pool."""

    total_connections: int
    idle_connections: int
    active_connections: int
    waiting_requests: int


class PoolPressureMonitorConfig(TypedDict):
    """The rule's configuration; names and defaults are the published ones."""

    enabled: NotRequired[bool]
    min_pool_size: NotRequired[int]
    max_pool_size: NotRequired[int]
    target_queue_depth: NotRequired[int]
    scale_up_step: NotRequired[int]
    scale_down_step: NotRequired[int]
    scale_down_idle_ratio: NotRequired[float]
    tuning_interval_ms: NotRequired[int]
    samples_before_action: NotRequired[int]


class PoolRecommendation(TypedDict):
    """The open recommendation for a pool's size, in short."""

    id: str
    new_size: int
    reason: str
    created_at: str


class PoolRecycling(TypedDict):
    """The result of recycling a pool."""

    pool_id: str
    tenants: int
    connections: int
    nodes: list[NodeRecycling]


class PoolSummary(TypedDict):
    """A summary of a pool that is open, paused, or awaited by callers."""

    pool_id: str
    state: str
    pause: PauseView | None
    size: int
    idle: int
    active: int
    waiting: int


class PoolSweepResult(TypedDict):
    """A pool that was evicted or skipped."""

    tenant: str | None
    pool_id: str
    reason: str


class PoolView(TypedDict):
    """A pool, open or not."""

    pool_id: str
    state: str
    pause: PauseView | None
    size: int
    idle: int
    active: int
    waiting: int
    tenant: str | None
    tenants: int
    shared: bool
    strategy: PoolStrategy
    server: str
    open: bool
    desired: DesiredSize
    access_count: int
    waiting_on_nodes: int
    wait_p99_ms: float | None
    waits_for: WaitView | None
    leak_suspects: list[LeakSuspectView]
    generation: int
    stale: bool
    recommendation: PoolRecommendation | None
    advice: NotRequired[AdviceView | None]
    share: NotRequired[int | None]
    nodes: NotRequired[list[NodeEntryView] | None]


class Provisioning(TypedDict):
    """A tenant's objects in Postgres."""

    tenant: str
    objects: list[str]
    provisioned_at: str | None


class QueryBatchResult(TypedDict):
    """The results of several statements."""

    results: list[QueryStatementResult]
    duration_ms: float


class QueryBody(TypedDict):
    """A statement and how to run it, or several in one transaction."""

    statements: NotRequired[list[QueryStatement] | None]
    sql: NotRequired[str | None]
    params: NotRequired[list[Any]]
    isolation_level: NotRequired[IsolationLevel | None]
    read_only: NotRequired[bool]
    timeout_seconds: NotRequired[float | None]
    max_rows: NotRequired[int | None]


class QueryColumn(TypedDict):
    """A column of the result."""

    name: str
    type: str


class QueryResult(TypedDict):
    """The result of a statement."""

    columns: list[QueryColumn]
    rows: list[list[Any]]
    row_count: int
    truncated: bool
    status: str | None
    duration_ms: float


class QueryStatement(TypedDict):
    """One of several statements."""

    sql: str
    params: NotRequired[list[Any]]


class QueryStatementResult(TypedDict):
    """The result of one of several statements."""

    columns: list[QueryColumn]
    rows: list[list[Any]]
    row_count: int
    truncated: bool
    status: str | None


class Readiness(TypedDict):
    """Whether the service can do all of its work, and the checks behind it."""

    status: str
    checks: list[ReadinessCheck]


class ReadinessCheck(TypedDict):
    """The result of one check."""

    name: str
    ok: bool
    required: bool
    detail: str | None


class RecommendationList(TypedDict):
    """A page of recommendations, newest first."""

    items: list[RecommendationView]
    next_cursor: str | None
    stale: bool


class RecommendationView(TypedDict):
    """A recommended size of a pool, or placement of a tenant, with its reason and status."""

    id: str
    pool: str
    tenant: str | None
    kind: str
    placement: str | None
    rule: str
    action: str
    current_size: int
    new_size: int
    wanted: int | None
    reason_code: str
    reason: str
    confidence: str
    estimated: bool
    evidence: dict[str, Any]
    expected: EffectView | None
    max_size: int
    metrics: PoolMetricsView
    status: RecommendationStatus
    created_at: str
    expires_at: str
    closed_at: str | None
    closed_by: str | None


class RefusalList(TypedDict):
    """A page of refusals, newest first."""

    items: list[RefusalView]
    next_cursor: str | None


class RefusalView(TypedDict):
    """A request that was answered with a problem."""

    id: int
    at: str
    tenant: str | None
    actor: str | None
    method: str
    path: str
    status: int
    code: str
    detail: str
    request_id: str | None


class ServerBudgetView(TypedDict):
    """The connections that all pools on a server may have together."""

    limit: int
    used: int
    lost: int
    nodes: int
    nodes_open: int
    kept_free: int | None
    contended: bool


class ServerList(TypedDict):
    """A page of servers."""

    items: list[ServerView]
    next_cursor: str | None


class ServerUse(TypedDict):
    """A server's connection budget, and its use."""

    name: str
    state: str
    max_connections: int | None
    budget: int
    used: int
    lost: int
    nodes: int
    nodes_open: int
    active: int
    contended: bool
    read_only: bool | None
    last_error: str | None


class ServerView(TypedDict):
    """A declared server."""

    name: str
    host: str
    port: int
    state: str
    version: str | None
    max_connections: int | None
    read_only: bool | None
    budget: ServerBudgetView
    pools: list[PoolSummary]
    waiting_on_nodes: int
    last_error: str | None


ServiceHistory = TypedDict(
    "ServiceHistory",
    {
        "from": "str",
        "to": "str",
        "step_seconds": "int",
        "resolution": "str",
        "items": "list[HistoryPointView]",
        "on_nodes": "list[NodesHistoryPointView]",
    },
)


class ServiceStats(TypedDict):
    """The whole service, and one page of its tenants by ID."""

    as_of: str
    age_seconds: int
    stale: bool
    at: str
    tenants: int
    pools: PoolCounts
    totals: ServiceTotals
    servers: list[ServerUse]
    nodes: NodeTotals | None
    evictions: dict[str, int]
    loop_lag: LoopLagView
    matches: int
    items: list[TenantStats]
    next_cursor: str | None


class ServiceTotals(TypedDict):
    """Current gauges, and counters since the service started."""

    active_connections: int
    idle_connections: int
    waiting_requests: int
    connections_acquired: int
    connections_released: int
    total_wait_time_ms: float
    timeouts: int
    rejected: int
    pool_limit_waits: int
    health_check_failures: int
    connections_opened: int
    connections_closed: int
    connections_lost: int
    connect_failures: int


StatsHistory = TypedDict(
    "StatsHistory",
    {
        "from": "str",
        "to": "str",
        "step_seconds": "int",
        "resolution": "str",
        "items": "list[HistoryPointView]",
        "on_nodes": "list[NodesHistoryPointView]",
        "tenant": "str | None",
        "pool_id": "str",
    },
)


class Sweep(TypedDict):
    """The result of evicting idle pools."""

    evicted: list[PoolSweepResult]
    skipped: list[PoolSweepResult]


class TenantBody(TypedDict):
    """A tenant's declaration."""

    server: NotRequired[str | None]
    strategy: NotRequired[PoolStrategy | None]
    weight: NotRequired[int]
    max_leases: NotRequired[int | None]
    labels: NotRequired[dict[str, str]]
    advisor_mode: NotRequired[AdvisorMode | None]


class TenantDeletion(TypedDict):
    """The result of deleting a tenant."""

    tenant: str
    closed: int
    cut: int
    login_disabled: bool


class TenantList(TypedDict):
    """A page of tenants."""

    matches: int
    items: list[TenantView]
    next_cursor: str | None


class TenantStats(TypedDict):
    """A tenant's counters, gauges and percentiles."""

    tenant: str
    server: str
    strategy: PoolStrategy
    pool: str
    pool_state: str
    active_connections: int
    idle_connections: int
    waiting_requests: int
    connections_acquired: int
    connections_released: int
    total_wait_time_ms: float
    timeouts: int
    rejected: int
    pool_limit_waits: int
    health_check_failures: int
    connections_opened: int
    connections_closed: int
    connections_lost: int
    connect_failures: int
    waiting_on_nodes: int
    waits_for: WaitView | None
    max_wait_time_ms: float
    created_at: str | None
    last_activity: str | None
    window_seconds: float
    wait: Latency
    hold: Latency
    connect: Latency


class TenantView(TypedDict):
    """A tenant."""

    id: str
    server: str
    strategy: PoolStrategy
    weight: int
    max_leases: int | None
    labels: dict[str, str]
    advisor_mode: AdvisorMode | None
    generation: int
    state: TenantPhase
    created_at: str
    updated_at: str
    provisioned_at: str | None
    isolation: IsolationView
    query_allowed: bool
    query_refusal: str | None
    pool: PoolSummary | None
    waiting_on_nodes: int
    stale: bool


class TrialConfig(TypedDict):
    """When a growth during saturation counts as a success, and what happens when it does not."""

    saturation: NotRequired[float]
    ticks: NotRequired[int]
    completions: NotRequired[int]
    max_ticks: NotRequired[int]
    min_growth: NotRequired[float]
    elasticity: NotRequired[float]
    certainty: NotRequired[float]
    ceiling_seconds: NotRequired[float]
    max_ceiling_seconds: NotRequired[float]


class TrialConfigBody(TypedDict):
    """When growth of a saturated pool is kept; omitted fields stay as they are."""

    saturation: NotRequired[float | None]
    ticks: NotRequired[int | None]
    completions: NotRequired[int | None]
    max_ticks: NotRequired[int | None]
    min_growth: NotRequired[float | None]
    elasticity: NotRequired[float | None]
    certainty: NotRequired[float | None]
    ceiling_seconds: NotRequired[float | None]
    max_ceiling_seconds: NotRequired[float | None]


Usage = TypedDict(
    "Usage",
    {
        "from": "str",
        "to": "str",
        "covered_from": "str",
        "covered_to": "str",
        "group_by": "str",
        "totals": "UsageTotals",
        "items": "list[UsageItem]",
        "next_cursor": "str | None",
    },
)


class UsageItem(TypedDict):
    """The usage of a group's tenants."""

    group: str | None
    tenants: int
    connection_seconds: float
    mean_connections: float
    share: float
    leases: int
    timeouts: int


class UsageTotals(TypedDict):
    """The usage of all groups together."""

    groups: int
    connection_seconds: float
    leases: int
    timeouts: int


class WaitView(TypedDict):
    """What callers wait for: the first limit that binds."""

    cause: str
    used: int | None
    limit: int | None
    detail: str
