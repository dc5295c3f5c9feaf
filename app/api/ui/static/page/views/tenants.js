// All tenants, page by page as the service filters them, and creating one.

import { send } from "../core/api.js";
import { number, paused } from "../core/format.js";
import { html, useEffect, useState } from "../core/html.js";
import { live } from "../core/live.js";
import { useResource } from "../core/resource.js";
import { go, href, setQuery } from "../core/router.js";
import { ActionButton } from "../parts/action.js";
import { SelectFilter, TextFilters } from "../parts/filters.js";
import { Table } from "../parts/table.js";
import { Empty, State, View } from "../parts/view.js";
import { FirstTenant } from "./first-run.js";
import { labelsIn } from "./labels.js";
import { TenantDrawer } from "./tenant.js";

const PAGE = 50;
const FILTERS = ["search", "state", "strategy", "server", "label"];
const SEARCH = [{ name: "search", label: "Search", placeholder: "part of the ID" }];
const STATES = ["declared", "provisioned", "deleting"];
const STRATEGIES = ["per_tenant", "per_database", "shared"];

const COLUMNS = [
  { title: "Tenant", cell: (tenant) => tenant.id },
  { title: "State", cell: (tenant) => html`<${State} state=${tenant.state} />`, class: "wide" },
  { title: "Pool", cell: (tenant) => poolCell(tenant), class: "waiting" },
  { title: "Strategy", cell: (tenant) => tenant.strategy, class: "wide" },
  { title: "Server", cell: (tenant) => tenant.server, class: "wide" },
  { title: "Weight", cell: (tenant) => tenant.weight, number: true, class: "wide" },
  { title: "Labels", cell: (tenant) => labelsOf(tenant), class: "wide" },
];

function poolCell(tenant) {
  const { pool, waiting_on_nodes: onNodes } = tenant;
  const waiting = [pool && !pool.pause && pool.waiting > 0 && `${pool.waiting} waiting`, onNodes > 0 && `${number(onNodes)} waiting on nodes`];
  return html`${poolOf(tenant)}${waiting.filter(Boolean).map((text) => html`, <b class="bad-text" key=${text}>${text}</b>`)}`;
}

function poolOf({ pool, state, strategy }) {
  if (!pool && state !== "provisioned") return html`<span class="warn-text">${state}</span>`;
  if (!pool) return html`<span class="muted">not open</span>`;
  if (pool.pause) return html`<span class="warn-text">${paused(pool)}</span>`;
  return html`${strategy === "shared" && "shared: "}${pool.active} of ${pool.size} active`;
}

function labelsOf({ labels }) {
  return Object.entries(labels).map(([key, value]) => html`<span class="badge" key=${key}>${key}: ${value}</span>`);
}

export function Tenants({ subject, query }) {
  const filters = Object.fromEntries(FILTERS.map((name) => [name, query[name] || undefined]));
  // The cursors of the pages before, so that one can go back.
  const [cursors, setCursors] = useState([]);
  const chosen = JSON.stringify(filters);
  useEffect(() => setCursors([]), [chosen]);
  const request = { path: "v1/tenants", query: { ...filters, limit: PAGE, cursor: cursors.at(-1) } };
  const { data, problem } = useResource(async () => (await send(request)).document, [request]);
  const { stats, servers } = live.use();
  const isFiltered = FILTERS.some((name) => filters[name]);
  const tools = html`<${ActionButton} action=${creation(servers)} isPrimary />`;
  const open = subject && html`<${TenantDrawer} key=${subject} id=${subject} query=${query} onClose=${() => go("tenants", null, filters)} />`;
  if (stats?.tenants === 0 && !isFiltered) return html`<${View} title="Tenants"><${FirstTenant} create=${creation(servers)} /></${View}>${open}`;
  return html`
    <${View} title="Tenants" lead=${stats && `${number(stats.tenants)} in total`} request=${request} tools=${tools} problem=${problem}>
      <${TextFilters} filters=${SEARCH} query=${filters}>
        <${SelectFilter} name="state" label="State" value=${filters.state} options=${STATES} />
        <${SelectFilter} name="strategy" label="Strategy" value=${filters.strategy} options=${STRATEGIES} />
        ${servers.length > 1 && html`
          <${SelectFilter} name="server" label="Server" value=${filters.server} options=${servers.map(({ name }) => name)} />`}
        ${filters.label && html`<button type="button" onClick=${() => setQuery({ label: null })}>${filters.label} ✕</button>`}
      </${TextFilters}>
      ${data?.items.length === 0 && html`
        <${Empty} title="No tenant matches."><p>Change the search, or <a href=${href("tenants")}>show all tenants</a>.</p></${Empty}>`}
      ${data?.items.length > 0 && html`
        <${Table} label="Tenants" columns=${COLUMNS} rows=${data.items} keyOf=${({ id }) => id} hrefOf=${({ id }) => href("tenants", id, filters)} />
        <div class="pages">
          <span role="status">${cursors.length * PAGE + 1} to ${cursors.length * PAGE + data.items.length} of ${number(data.matches)}</span>
          <button type="button" disabled=${!cursors.length} onClick=${() => setCursors(cursors.slice(0, -1))}>Previous</button>
          <button type="button" disabled=${!data.next_cursor} onClick=${() => setCursors([...cursors, data.next_cursor])}>Next</button>
        </div>`}
    </${View}>${open}`;
}

export function creation(servers) {
  return {
    label: "New tenant",
    title: "New tenant",
    text: "A declaration first; provisioning then creates its role, and its schema or database.",
    fields: [
      {
        name: "id", label: "ID", value: "", placeholder: "acme", help: "Lower-case letters, digits and hyphens.",
        required: true, maxlength: 48,
      },
      { name: "strategy", label: "Strategy", type: "select", value: "per_tenant", options: [
        ["per_tenant", "per_tenant: own pool, schema and role"],
        ["per_database", "per_database: own pool, database and role"],
        ["shared", "shared: one pool per server, for trusted SQL"],
      ] },
      { name: "server", label: "Server", type: "select", value: servers[0]?.name, options: servers.map(({ name }) => [name, name]) },
      { name: "labels", label: "Labels", type: "lines", value: "", placeholder: "plan: gold", help: "One per line, as key: value." },
      { name: "isProvisioned", label: "Provision it at once", type: "checkbox", value: true },
    ],
    request: ({ id, strategy, server, labels }) => ({
      method: "PUT",
      path: `v1/tenants/${encodeURIComponent(id || "acme")}`,
      body: { strategy, server, labels: labelsIn(labels) },
      ifNoneMatch: "*",
    }),
    outcome: ({ id }) => `Tenant ${id} was created.`,
    done: async ({ id }, { isProvisioned }) => {
      go("tenants", id);
      if (isProvisioned) await send({ method: "POST", path: `v1/tenants/${id}/provision` });
    },
  };
}
