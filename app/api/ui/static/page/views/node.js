// One node: what it may have of each server, who waits on it, and what can be done to it.

import { get, send } from "../core/api.js";
import { ago, counted, duration, number } from "../core/format.js";
import { html } from "../core/html.js";
import { isSilent } from "../core/live.js";
import { useResource } from "../core/resource.js";
import { href } from "../core/router.js";
import { ActionButton } from "../parts/action.js";
import { CopyAsCurl } from "../parts/copy.js";
import { Drawer } from "../parts/drawer.js";
import { SelectFilter, TextFilters } from "../parts/filters.js";
import { Badge, Facts, State } from "../parts/view.js";
import { actionsOf } from "./node-actions.js";
import { OnNodes } from "./on-nodes.js";

const LIMIT = 20;
const ORDERS = [["-waiting", "most waiting"], ["-clients", "most clients"], ["-active", "most active"], ["tenant", "name"]];
const SEARCH = [{ name: "tenant", label: "Tenant", placeholder: "part of the ID" }];

export function NodeDrawer({ name, query, onClose }) {
  const path = `v1/nodes/${encodeURIComponent(name)}`;
  const { data, problem } = useResource(() => send({ path }), [path]);
  const node = problem?.status === 404 ? null : data?.document;
  return html`
    <${Drawer} title=${name} kind="Node" tools=${html`<${CopyAsCurl} request=${{ path }} />`} problem=${problem} onClose=${onClose}>
      ${node && html`
        <${Actions} node=${node} etag=${data.etag} />
        ${node.problem && html`<p class="finding warning"><${Badge} kind="bad">problem</${Badge}> <span class="text">${node.problem}</span></p>`}
        ${node.warnings.map((warning) => html`<p class="finding warning" key=${warning}><${Badge} kind="warn">warning</${Badge}> <span class="text">${warning}</span></p>`)}
        <${Details} node=${node} />
        <${ServersOf} node=${node} />
        <${TenantsOf} path=${path} query=${query} />`}
    </${Drawer}>`;
}

export function NodeState({ node: { state, paused, draining, problem, vulnerable, up_to_date: isCurrent } }) {
  return html`
    <${State} state=${state} />${paused && html` <${Badge} kind="warn">paused</${Badge}>`}
    ${draining && state !== "draining" && html` <${Badge} kind="warn">draining</${Badge}>`}
    ${problem && html` <${Badge} kind="bad">problem</${Badge}>`}
    ${vulnerable && html` <${Badge} kind="warn">vulnerable</${Badge}>`}
    ${state === "ready" && !isCurrent && html` <${Badge} kind="warn">outdated</${Badge}>`}`;
}

function Actions({ node, etag }) {
  const { edit, pause, resume, drain, remove } = actionsOf(node, etag);
  const isHeld = node.paused || node.draining;
  const shown = [isHeld && resume, !node.paused && pause, !node.draining && drain, edit, remove].filter(Boolean);
  return html`
    <div class="buttons" id="node-actions">${shown.map((action) => html`
      <${ActionButton} key=${action.label} action=${action} isPrimary=${action === resume} />`)}</div>`;
}

function Details({ node }) {
  const { engine, agent, silent_seconds: silent, created_at: created } = node;
  const labels = Object.entries(node.labels);
  return html`
    <${Facts} pairs=${[
      ["State", html`<${NodeState} node=${node} /> <small>created ${ago(created)}</small>`],
      ["Address", node.address ?? "none: it is in no connection string"],
      ["Pooler", engine ?? "it has not reported yet"],
      agent && ["Agent", `version ${agent}`],
      ["Last report", silent === null ? "none yet" : `${duration(silent)} ago`],
      ["Configuration", node.up_to_date ? "the latest is in force" : "the latest is not in force yet"],
      [isSilent(node) ? "Clients then" : "Clients",
        html`${number(node.clients)}${node.waiting > 0 && html`, <b class="bad-text">${number(node.waiting)} waiting</b>`}`],
      ["Serves", html`${counted(node.tenants, "tenant")}: ${selected(node)}`],
      labels.length > 0 && ["Labels", labels.map(([key, value]) => html`<span class="badge" key=${key}>${key}: ${value}</span> `)],
    ]} />`;
}

function selected({ selector }) {
  const wanted = Object.entries(selector);
  if (!wanted.length) return "all with a role of their own";
  return wanted.map(([key, value]) => html`<a class="badge" key=${key} href=${href("tenants", null, { label: `${key}:${value}` })}>${key}: ${value}</a> `);
}

function ServersOf({ node }) {
  if (!node.servers.length) return html`<p class="muted">It has no connections of any server yet.</p>`;
  return html`
    <h3>Connections</h3>
    <div class="scroll"><table id="node-servers" aria-label="Connections of each server">
      <thead><tr><th scope="col">Server</th><th scope="col" class="number">Used</th><th scope="col" class="number">Allotment</th>
        <th scope="col" class="number wide" title="No other may have them, because this node may still have them.">Held</th>
        <th scope="col" class="number wide">Limit</th></tr></thead>
      <tbody>${node.servers.map(({ server, connections, allotment, held }) => html`
        <tr key=${server}>
          <th scope="row"><a href=${href("servers", server)}>${server}</a></th>
          <td class="number">${number(connections)}</td><td class="number">${number(allotment)}</td>
          <td class="number wide">${number(held)}</td><td class="number wide">${number(node.limits[server])}</td>
        </tr>`)}</tbody>
    </table></div>`;
}

function TenantsOf({ path, query }) {
  const request = { path: `${path}/tenants`, query: { sort: query.sort || "-longest_wait_ms", search: query.tenant, limit: LIMIT } };
  const { data, problem } = useResource(() => get(request.path, request.query), [request]);
  if (problem) return html`<p class="problem" role="alert">${problem.message}</p>`;
  if (!data) return null;
  return html`
    <div class="bar"><h3>Tenants</h3><${CopyAsCurl} request=${request} /></div>
    <${TextFilters} filters=${SEARCH} query=${query}>
      <${SelectFilter} name="sort" label="Order" value=${query.sort} options=${ORDERS} none="longest wait" />
    </${TextFilters}>
    ${data.items.length === 0 && html`<p class="muted">None that it has reported.</p>`}
    ${data.items.length > 0 && html`<${OnNodes} items=${data.items} title="Tenant" nameOf=${({ tenant }) => tenant} hrefOf=${({ tenant }) => href("tenants", tenant)} />`}
    ${data.matches > data.items.length && html`<p class="muted">${number(data.items.length)} of ${number(data.matches)} are shown.</p>`}`;
}
