// The details of one tenant or shared pool: statistics, history with events, and operations.

import { get, list, post, put, remove } from "./api.js";
import { drawChart } from "./chart.js";
import { ago, byId, h, milliseconds, paused, setText } from "./element.js";

const SPANS = [["15 min", 900, 15], ["1 h", 3600, 60], ["6 h", 21_600, 300], ["24 h", 86_400, 900]];

const NAMED_TENANTS = 10;
const MAX_TENANTS = 2000;
const REFUSALS = 20;

const CHARTS = [
  {
    title: "Connections and waiting callers",
    unit: "",
    lines: [
      { key: "total_connections", label: "size", steps: true, fill: true },
      { key: "active_connections", label: "active", steps: true },
      { key: "waiting_requests", label: "waiting", steps: true },
    ],
  },
  {
    title: "Wait and hold, p95",
    unit: "ms",
    lines: [{ key: "wait_p95_ms", label: "wait" }, { key: "hold_p95_ms", label: "hold" }],
  },
  { title: "Connects, p95", unit: "ms", lines: [{ key: "connect_p95_ms", label: "connect" }] },
];

export class Drawer {
  constructor({ act, confirm }) {
    this.act = act;
    this.confirm = confirm;
    this.place = byId("drawer");
    this.pool = null;
    this.span = SPANS[0];
    this.plots = [];
    this.place.addEventListener("keydown", (event) => {
      if (event.key === "Tab") this.keepFocus(event);
    });
    document.addEventListener("keydown", (event) => {
      const isInDialog = document.querySelector("dialog[open]") !== null;
      if (event.key === "Escape" && !isInDialog && !this.place.hidden) this.close();
    });
  }

  async open(pool) {
    if (this.pool === null) this.opener = document.activeElement;
    this.pool = pool;
    this.frame();
    this.place.hidden = false;
    document.body.classList.add("drawn");
    byId("drawer-close").focus();
    await this.refresh();
  }

  close() {
    this.place.hidden = true;
    this.pool = null;
    document.body.classList.remove("drawn");
    this.clear();
    this.opener?.focus();
  }

  // Tab goes round inside the drawer, which may cover the page; the mouse leaves it.
  keepFocus(event) {
    const stops = [...this.place.querySelectorAll("button:not([disabled]), input, a[href]")];
    const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
    if (document.activeElement !== from) return;
    event.preventDefault();
    to.focus();
  }

  clear() {
    for (const plot of this.plots) plot.destroy();
    this.plots = [];
  }

  frame() {
    const spans = SPANS.map((span) =>
      h("button", { type: "button", "aria-pressed": String(span === this.span), onclick: () => this.choose(span) }, span[0]));
    this.place.replaceChildren(
      h("div", { class: "bar" },
        h("h2", { id: "drawer-heading" }, this.pool),
        h("button", { id: "drawer-close", type: "button", title: "Close (Esc)", onclick: () => this.close() }, "Close")),
      h("p", { id: "drawer-error", role: "status", hidden: true }),
      h("dl", { id: "drawer-facts" }),
      h("div", { id: "drawer-actions", class: "buttons" }),
      h("div", { id: "drawer-spans", class: "buttons", role: "group", "aria-label": "Period" }, ...spans),
      ...CHARTS.map((_, at) => h("div", { id: `chart-${at}`, class: "chart" })),
      h("h3", {}, "Events"),
      h("ol", { id: "drawer-events" }),
      h("h3", { id: "drawer-refusals-heading", hidden: true }, "Refused requests"),
      h("ol", { id: "drawer-refusals" }),
    );
  }

  async choose(span) {
    this.span = span;
    for (const button of byId("drawer-spans").children) {
      button.setAttribute("aria-pressed", String(button.textContent === span[0]));
    }
    await this.refresh();
  }

  // Fetches everything; the result of a slower, earlier refresh is dropped.
  async refresh() {
    const pool = this.pool;
    const refresh = (this.refreshes = (this.refreshes ?? 0) + 1);
    if (pool === null) return;
    try {
      const data = await this.fetch(pool);
      if (refresh !== this.refreshes || this.pool !== pool) return;
      this.draw(data);
      this.showError(null);
    } catch (error) {
      if (refresh === this.refreshes && this.pool === pool) this.showError(error.message);
    }
  }

  showError(text) {
    byId("drawer-error").hidden = text === null;
    if (text !== null) setText(byId("drawer-error"), text);
  }

  async fetch(pool) {
    const [, seconds, step] = this.span;
    const to = Math.floor(Date.now() / 1000);
    const from = to - seconds;
    const range = `from=${isoTime(from)}&to=${isoTime(to)}&step_seconds=${step}`;
    const shared = isShared(pool);
    const path = shared ? `v1/pools/${pool}` : `v1/tenants/${pool}`;
    const filter = shared ? `pool=${pool}` : `tenant=${pool}`;
    const [subject, stats, history, events, recommendations, refusals] = await Promise.all([
      shared ? tenantsOf(pool) : get(path),
      shared ? null : get(`${path}/stats`),
      get(`${path}/stats/history?${range}`),
      list(`v1/events?${filter}&since=${isoTime(from)}&limit=100`, 100),
      list(`v1/recommendations?${filter}&limit=100`, 100),
      shared ? { items: [] } : get(`v1/refusals?tenant=${pool}&limit=${REFUSALS}`),
    ]);
    const marks = timeline(events.items, recommendations.items, from);
    return { subject, stats, points: history.items, from, to, marks, refusals: refusals.items };
  }

  draw({ subject, stats, points, from, to, marks, refusals }) {
    const shared = isShared(this.pool);
    const shown = shared ? factsOfPool(subject) : factsOfTenant(subject, stats, (pool) => this.open(pool));
    byId("drawer-facts").replaceChildren(
      ...shown.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    this.drawActions(shared ? subject : { tenants: [subject], more: false });
    const plotted = points.map((point) => ({ ...point, at: new Date(point.at) / 1000 }));
    this.clear();
    this.plots = CHARTS.map((chart, at) =>
      drawChart(byId(`chart-${at}`), { ...chart, points: plotted, marks, from, to }));
    const items = marks.map(({ at, text }) => h("li", {}, h("time", {}, ago(at * 1000)), ` ${text}`));
    byId("drawer-events").replaceChildren(...(items.length ? items : [h("li", {}, "No events in this period.")]));
    byId("drawer-refusals-heading").hidden = refusals.length === 0;
    byId("drawer-refusals").replaceChildren(...refusals.map(({ at, code, detail, request_id }) =>
      h("li", {}, h("time", {}, ago(at)), ` ${code}: ${detail} `, h("small", {}, `request ${request_id}`))));
  }

  // Only a pool has actions. That of a shared tenant is not its own: its drawer leads there.
  drawActions({ tenants, more }) {
    const actors = tenants.filter((each) => each.state === "provisioned");
    const touched = isShared(this.pool) ? `all ${counted(tenants, more)} of this pool` : "";
    const isOwn = isShared(this.pool) || tenants[0].strategy !== "shared";
    const pool = tenants[0]?.pool;
    const state = pool?.state ?? "closed";
    // A paused pool may be closed, too.
    const isOpen = state === "paused" ? pool.size > 0 : state !== "closed";
    // Keep the buttons while only numbers change.
    const drawnFor = `${this.pool} ${state} ${touched} ${actors.length > 0} ${isOpen}`;
    if (this.drawnFor === drawnFor && byId("drawer-actions").children.length) return;
    this.drawnFor = drawnFor;
    const actions = actors.length && isOwn ? this.actions({ state, isOpen, tenant: actors[0].id, touched }) : [];
    byId("drawer-actions").replaceChildren(...actions);
  }

  // The API reaches a shared pool through any of its tenants.
  actions({ state, isOpen, tenant, touched }) {
    const path = `v1/tenants/${tenant}/pool`;
    const scope = touched ? "?scope=pool" : "";
    const button = (label, run, question) =>
      h("button", { type: "button", onclick: () => this.run(label, run, question && (touched ? `${question} This affects ${touched}.` : question)) }, label);
    const size = h("input", { id: "drawer-size", type: "number", min: 1, max: 10_000, "aria-label": "max_size" });
    const resize = h("form", { class: "resize", onsubmit: (event) => {
      event.preventDefault();
      const maxSize = size.valueAsNumber;
      if (maxSize >= 1) this.run("Resize", () => put(`${path}${scope}`, { max_size: maxSize }));
    } }, h("label", { for: "drawer-size" }, "max_size"), size, h("button", {}, "Resize"));
    const always = [
      touched ? h("p", { class: "touched" }, `Each action affects ${touched}.`) : null,
      resize,
      state === "paused" ? button("Resume", () => post(`${path}/resume${scope}`))
        : button("Pause", () => post(`${path}/pause${scope}`), "Callers wait, and fail at their deadline, until the pool is resumed."),
    ].filter(Boolean);
    if (!isOpen) return always;
    return [
      ...always,
      button("Recycle", () => post(`${path}/recycle${scope}`)),
      button("Check", () => post(`${path}/check${scope}`)),
      button("Evict", () => remove(`${path}${scope}`), "This closes its connections. The next request opens the pool again."),
    ];
  }

  async run(label, action, question) {
    if (question && !(await this.confirm(`${label} ${this.pool}?`, question))) return;
    await this.act(action);
    await this.refresh();
  }
}

function isoTime(seconds) {
  return new Date(seconds * 1000).toISOString();
}

function isShared(pool) {
  return pool.startsWith("shared@");
}

// The tenants of a shared pool; *more*: there are others.
async function tenantsOf(pool) {
  const server = pool.slice("shared@".length);
  const { items, more } = await list(`v1/tenants?strategy=shared&server=${server}&limit=500`, MAX_TENANTS);
  return { tenants: items, more };
}

function counted(tenants, more) {
  return `${tenants.length}${more ? " or more" : ""} tenant${tenants.length === 1 ? "" : "s"}`;
}

function factsOfPool({ tenants, more }) {
  const named = tenants.slice(0, NAMED_TENANTS).map((each) => each.id).join(", ");
  const others = more || tenants.length > NAMED_TENANTS ? ", …" : "";
  return [
    ["Pool", describe(tenants[0]?.pool)],
    ["Serves", tenants.length ? `${counted(tenants, more)}: ${named}${others}` : "no tenants"],
  ];
}

function describe(pool) {
  if (!pool) return "not open";
  if (pool.pause) return `${paused(pool)}; ${pool.active} active, ${pool.waiting} waiting`;
  return `${pool.state}: ${pool.active} active, ${pool.idle} idle, ${pool.waiting} waiting`;
}

function factsOfTenant(view, stats, open) {
  const sharedPool = `shared@${view.server}`;
  const pool = view.strategy !== "shared" ? describe(view.pool)
    : [h("button", { type: "button", class: "link", onclick: () => open(sharedPool) }, sharedPool), `, ${describe(view.pool)}`];
  const pairs = [
    ["Strategy", `${view.strategy} on ${view.server}`],
    ["Tenant", `${view.state}, weight ${view.weight}`],
    ["Pool", pool],
    ["Wait p50, p95, p99", three(stats.wait)],
    ["Hold p50, p95, p99", three(stats.hold)],
    ["Leases", `${stats.connections_acquired}, ${stats.timeouts} timeouts, ${stats.rejected} rejected`],
  ];
  if (view.isolation?.assurance) pairs.push(["Isolation", view.isolation.assurance]);
  for (const check of view.isolation?.checks ?? []) {
    if (!check.ok) pairs.push([check.severity, `${check.name}: ${check.detail ?? ""}`]);
  }
  return pairs;
}

function three({ p50_ms, p95_ms, p99_ms }) {
  return [p50_ms, p95_ms, p99_ms].map(milliseconds).join(", ");
}

function timeline(events, recommendations, from) {
  const entries = [
    ...events.map((event) => ({
      at: new Date(event.at) / 1000,
      kind: "event",
      text: `${event.actor}: ${event.action}${event.reason ? ` (${event.reason})` : ""}`,
    })),
    ...recommendations.map((each) => ({
      at: new Date(each.created_at) / 1000,
      kind: "recommendation",
      text: `advisor: ${each.reason} [${each.status}]`,
    })),
  ];
  return entries.filter((each) => each.at >= from).sort((a, b) => b.at - a.at);
}
