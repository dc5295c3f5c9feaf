// The servers: each one's connection budget as a bar, how much of it each pool holds.

import { number } from "../core/format.js";
import { html } from "../core/html.js";
import { live } from "../core/live.js";
import { href } from "../core/router.js";
import { Facts, State, View } from "../parts/view.js";

// Number of pools with a segment of their own; the others share one.
const NAMED_POOLS = 12;
const LOST = "They broke off, and Postgres may still have them: no other is opened instead until it shows that they have ended.";

export function Servers({ subject }) {
  const { servers } = live.use();
  const shown = subject ? servers.filter(({ name }) => name === subject) : servers;
  return html`
    <${View} title="Servers" lead="Declared in the service's settings. All pools and nodes share a server's connection budget."
      request=${{ path: "v1/servers" }}>
      ${subject && html`<p><a href=${href("servers")}>All servers</a></p>`}
      ${subject && servers.length > 0 && shown.length === 0 && html`<p class="problem">No server ${subject} is declared.</p>`}
      ${shown.map((server) => html`<${ServerCard} key=${server.name} server=${server} isDetailed />`)}
    </${View}>`;
}

// How many connections or callers of all pools on *servers* are *name*: active, waiting.
export function sumOfPools(servers, name) {
  return servers.flatMap(({ pools }) => pools).reduce((total, pool) => total + pool[name], 0);
}

export function ServerCard({ server, isDetailed }) {
  const { limit, used, lost, nodes, nodes_open, kept_free, contended } = server.budget;
  const sum = (name) => sumOfPools([server], name);
  const isAvailable = server.state === "available";
  return html`
    <article class=${`card server${isAvailable ? "" : " unavailable"}`}>
      <div class="bar">
        <h2><a href=${href("servers", server.name)}>${server.name}</a> <small>${server.host}:${server.port}</small></h2>
        <${State} state=${server.state} />
      </div>
      ${server.read_only && html`<p class="bad-text">Takes no writes: default_transaction_read_only is on.</p>`}
      <p>${used - lost} of ${limit} connections${lost > 0 && html`, <span title=${LOST}>${lost} lost</span>`}${nodes > 0 && html`, <a href=${href("nodes")}>on nodes</a> ${nodes_open} of ${nodes}`}, ${sum("active")} active, ${sum("waiting")} waiting${server.waiting_on_nodes > 0 && ` + ${server.waiting_on_nodes} on nodes`}
        ${contended && html`<b class="bad-text"> Budget exhausted: ${whoWaits(sum("waiting"), server.waiting_on_nodes)}.</b>`}</p>
      ${server.last_error && html`<p class="bad-text">${server.last_error}</p>`}
      <${Budget} server=${server} />
      ${isDetailed && html`
        <${Facts} pairs=${[
          ["Postgres", server.version ?? "not reached yet"],
          ["max_connections", number(server.max_connections)],
          ["Not for pools", html`<span title="Reserved by Postgres, used by the service itself, or left to others.">${number(kept_free)}</span>`],
          ["Accepts writes", server.read_only === null ? "–" : server.read_only ? "no: read-only" : "yes"],
          ["Tenants", html`<a href=${href("tenants", null, { server: server.name })}>show</a>`],
        ]} />`}
    </article>`;
}

// Who cannot have a connection of the budget: callers, clients of nodes, or a pool that keeps more open than it has.
function whoWaits(here, onNodes) {
  if (here > 0) return onNodes > 0 ? "callers and clients of nodes wait for a connection" : "callers wait for a connection";
  return onNodes > 0 ? "clients of nodes wait for their tenants' turn" : "a pool cannot open the connection it needs";
}

function Budget({ server }) {
  const { limit, used, lost, nodes, nodes_open } = server.budget;
  const free = limit - used - nodes;
  const total = Math.max(limit, used, 1);
  const holding = server.pools.filter(({ size }) => size > 0).sort((a, b) => b.size - a.size || (a.pool_id < b.pool_id ? -1 : 1));
  const rest = holding.slice(NAMED_POOLS);
  const sizeOf = (pools) => pools.reduce((sum, { size }) => sum + size, 0);
  // Connections that are opening or closing are in no pool's size.
  const moving = used - lost - sizeOf(holding);
  return html`
    <div class="budget" role="group" aria-label=${`Budget of ${server.name}`}>
      ${holding.slice(0, NAMED_POOLS).map((pool, at) => html`<${PoolSegment} key=${pool.pool_id} ...${{ pool, at, total }} />`)}
      <${Segment} kind="rest" size=${sizeOf(rest)} label=${`${rest.length} others: ${sizeOf(rest)}`} total=${total} />
      <${Segment} kind="lost" size=${lost} label=${`${lost} lost`} total=${total} />
      <${Segment} kind="moving" size=${moving} label=${`${moving} opening or closing`} total=${total} />
      <${Segment} kind="free" size=${free} label=${`${free} free`} total=${total} />
      <${NodesSegment} size=${nodes} open=${nodes_open} total=${total} />
    </div>`;
}

function PoolSegment({ pool, at, total }) {
  const label = `${pool.pool_id}: ${pool.active} active, ${pool.idle} idle, ${pool.waiting} waiting`;
  return html`
    <a class=${`segment hue-${at % 6}`} style=${{ width: `${(100 * pool.size) / total}%` }} href=${href("pools", pool.pool_id)}
      title=${label} aria-label=${label}>
      <span class="busy" style=${{ height: `${(100 * pool.active) / pool.size}%` }}></span>
      <span class="name">${pool.pool_id} ${pool.size}</span>
    </a>`;
}

function NodesSegment({ size, open, total }) {
  if (size <= 0) return null;
  const label = `on nodes: ${open} open of ${size} left to them`;
  return html`
    <a class="segment nodes" style=${{ width: `${(100 * size) / total}%` }} href=${href("nodes")} title=${label} aria-label=${label}>
      <span class="busy" style=${{ height: `${Math.min(100, (100 * open) / size)}%` }}></span>
      <span class="name">nodes ${open} of ${size}</span>
    </a>`;
}

function Segment({ kind, size, label, total }) {
  if (size <= 0) return null;
  return html`
    <span class=${`segment ${kind}`} style=${{ width: `${(100 * size) / total}%` }} title=${label}>
      <span class="name">${label}</span>
    </span>`;
}
