// One tenant: what was declared, how it is isolated, what it waited for, and what can be done to it.

import { findTagged, get, send } from "../core/api.js";
import { ago, counted, dateTime, milliseconds, number, paused } from "../core/format.js";
import { dashboard } from "../core/grafana.js";
import { html } from "../core/html.js";
import { isShared, live } from "../core/live.js";
import { useResource } from "../core/resource.js";
import { href } from "../core/router.js";
import { ActionButton } from "../parts/action.js";
import { Copy, CopyAsCurl } from "../parts/copy.js";
import { Drawer } from "../parts/drawer.js";
import { RangePicker, historyOf, periodOf } from "../parts/range.js";
import { Badge, Facts, State } from "../parts/view.js";
import { Credentials } from "./credentials.js";
import { History } from "./history.js";
import { Leases } from "./leases.js";
import { OnNodes } from "./on-nodes.js";
import { PoolActions } from "./pool-actions.js";
import { adoptable, deletion, edit, provisioning, rotation } from "./tenant-actions.js";
import { Refusals, Timeline, timelineOf } from "./timeline.js";

const REFUSALS = 20;
// Charts change slowly.
const EVERY = 3;

// *nodes*: all there are, as far as the key may see them.
async function load(id, query, nodes) {
  const path = `v1/tenants/${encodeURIComponent(id)}`;
  const [{ document: tenant, etag }, stats, history] = await Promise.all([
    send({ path }),
    get(`${path}/stats`),
    historyOf(`${path}/stats/history`, periodOf(query)),
  ]);
  const [pool, marks, refusals] = await Promise.all([
    // One that is neither open nor paused nor on a node would be a refusal in the service's log.
    tenant.strategy !== "shared" && (tenant.pool || nodes.some((node) => hasReported(node, tenant))) ? findTagged(`${path}/pool`) : null,
    timelineOf({ tenant: id }, history),
    get("v1/refusals", { tenant: id, limit: REFUSALS }),
  ]);
  return { tenant, etag, stats, history, pool, marks, refusals: refusals.items };
}

const hasReported = ({ state, up_to_date: isCurrent, selector }, { labels }) =>
  state === "ready" && isCurrent && Object.entries(selector).every(([key, value]) => labels[key] === value);

export function TenantDrawer({ id, query, onClose }) {
  const { range, from, to } = query;
  const { about, nodes } = live.use();
  const { data, problem } = useResource(() => load(id, query, nodes), [id, range, from, to, nodes.length], { every: EVERY });
  const grafana = about?.grafana_url;
  const tools = html`
    ${grafana && html`<a class="wide" href=${dashboard(grafana, "poolkeeper-tenant", { tenant: id })}>Grafana</a>`}
    <${CopyAsCurl} request=${{ path: `v1/tenants/${id}` }} />`;
  return html`
    <${Drawer} title=${id} kind="Tenant" tools=${tools} problem=${problem} onClose=${onClose}>
      ${data && !(problem?.status === 404) && html`
        <${Details} ...${data} />
        ${data.pool?.nodes.length > 0 && html`
          <h3>On nodes</h3>
          <${OnNodes} items=${data.pool.nodes} title="Node" nameOf=${({ node }) => node} hrefOf=${({ node }) => href("nodes", node)} />`}
        ${data.tenant.strategy !== "shared" && html`<${Credentials} tenant=${id} />`}
        <${Leases} filter=${{ tenant: id }} />
        <${RangePicker} query=${query} request=${data.history.request} />
        <${History} ...${data.history} marks=${data.marks} />
        <${Timeline} entries=${data.marks} />
        <${Refusals} items=${data.refusals} />`}
    </${Drawer}>`;
}

function Details({ tenant, etag, stats, pool }) {
  const { strategy, server, isolation } = tenant;
  const poolId = strategy === "shared" ? `shared@${server}` : tenant.id;
  const isProvisioned = tenant.state === "provisioned";
  return html`
    <div class="buttons" id="tenant-actions">
      ${tenant.state === "declared" && html`<${ActionButton} action=${provisioning(tenant)} isPrimary />`}
      <${ActionButton} action=${edit(tenant, etag)} />
      ${isProvisioned && html`<${ActionButton} action=${adoptable(tenant)} /><${ActionButton} action=${rotation(tenant)} />`}
      <${ActionButton} action=${deletion(tenant, etag)} />
    </div>
    <${Facts} pairs=${[
      ["State", html`<${State} state=${tenant.state} /> <small>created ${ago(tenant.created_at)}</small>`],
      ["Placement", html`${strategy} on <a href=${href("servers", server)}>${server}</a>`],
      ["Pool", html`<a href=${href("pools", poolId)}>${isShared(poolId) ? poolId : "its own"}</a>, ${describe(tenant.pool)}${pool?.nodes.length > 0 && `; share ${shareOf(pool)}`}`],
      ["Settings", settings(tenant)],
      Object.keys(tenant.labels).length > 0 && ["Labels", labels(tenant)],
      stats.waits_for && ["Waits for", html`<b class="bad-text">${stats.waits_for.detail}</b>`],
      ["Wait p50, p95, p99", three(stats.wait)],
      ["Hold p50, p95, p99", three(stats.hold)],
      ["Leases", `${number(stats.connections_acquired)}; ${number(stats.timeouts)} timeouts, ${number(stats.rejected)} rejected`],
      ["Isolation", isolationOf(isolation)],
    ]} />
    ${isolation.checks.filter(({ ok }) => !ok).map((check) => html`<${CheckLine} key=${check.name} ...${check} />`)}
    ${isProvisioned && strategy !== "shared" && html`<${PoolActions} pool=${tenant.id} tenant=${tenant.id} view=${isDeclared(pool) ? pool : null} />`}`;
}

// One that is on nodes alone was never opened nor changed here.
const isDeclared = (pool) => pool && (pool.open || pool.generation > 0);

function settings({ weight, max_leases, advisor_mode }) {
  return [`weight ${weight}`, max_leases && `at most ${counted(max_leases, "lease")}`, advisor_mode && `advisor: ${advisor_mode}`].filter(Boolean).join(", ");
}

function labels({ labels: all }) {
  return Object.entries(all).map(([key, value]) => html`
    <a class="badge" key=${key} href=${href("tenants", null, { label: `${key}:${value}` })}>${key}: ${value}</a>`);
}

export function CheckLine({ name, severity, detail }) {
  const sql = detail?.match(/Run: (.+)$/s)?.[1];
  return html`
    <p class=${`finding ${severity}`}><${Badge} kind=${severity === "critical" ? "bad" : "warn"}>${severity.replace("_", " ")}</${Badge}>
      <span class="text"><b>${name.replaceAll("_", " ")}</b> ${detail}</span>
      ${sql && html`<${Copy} label="Copy SQL" title=${sql} text=${() => sql} />`}</p>`;
}

function isolationOf({ assurance, database, schema, role, checked_at }) {
  const where = [database && `database ${database}`, schema && `schema ${schema}`, role && `role ${role}`].filter(Boolean).join(", ");
  return html`${assurance}: ${where} ${checked_at && html`<small title=${dateTime(checked_at)}>checked ${ago(checked_at)}</small>`}`;
}

export function describe(pool) {
  if (!pool) return "not open";
  // Who holds and awaits them is below, of a moment of its own.
  return `${pool.pause ? paused(pool) : pool.state}, ${counted(pool.size, "connection")} open`;
}

// The rest is on nodes.
export const shareOf = ({ share, desired }) => `${number(share)} of ${number(desired.max_size)}`;

function three({ p50_ms, p95_ms, p99_ms }) {
  return milliseconds(p50_ms, p95_ms, p99_ms);
}
