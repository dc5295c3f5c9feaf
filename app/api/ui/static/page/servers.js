// Each server's connection budget as a bar: how much of it each pool holds.

import { h, setText } from "./element.js";

// Number of pools with a segment of their own; the others share one.
const NAMED_POOLS = 12;
// A segment below this share has its name in the tooltip only.
const MIN_LABEL_SHARE = 0.05;

export function drawServers(place, servers, onPool) {
  place.replaceChildren(...servers.map((server) => drawServer(server, onPool)));
}

function drawServer(server, onPool) {
  const { limit, used, contended } = server.budget;
  const isAvailable = server.state === "available";
  const active = server.pools.reduce((sum, pool) => sum + pool.active, 0);
  const waiting = server.pools.reduce((sum, pool) => sum + pool.waiting, 0);
  const parts = [
    `${used} of ${limit} connections`,
    `${active} active`,
    waiting ? `${waiting} waiting` : null,
    contended ? "budget exhausted: a pool cannot open the connection it needs" : null,
    isAvailable ? null : `${server.state}: ${server.last_error ?? "no contact"}`,
  ].filter(Boolean);
  return h(
    "article",
    { class: `server${isAvailable ? "" : " unavailable"}${contended ? " contended" : ""}` },
    h("h3", {}, server.name, h("small", {}, ` ${server.host}:${server.port}`)),
    h("p", {}, parts.join(" · ")),
    h("div", { class: "budget", role: "group", "aria-label": `Budget of ${server.name}` }, ...segments(server, onPool)),
  );
}

function segments(server, onPool) {
  const { limit, used } = server.budget;
  const total = Math.max(limit, used, 1);
  const holding = server.pools.filter((pool) => pool.size > 0).sort((a, b) => b.size - a.size);
  const named = holding.slice(0, NAMED_POOLS);
  const rest = holding.slice(NAMED_POOLS);
  const restSize = rest.reduce((sum, pool) => sum + pool.size, 0);
  const counted = holding.reduce((sum, pool) => sum + pool.size, 0);
  const drawn = named.map((pool, index) => poolSegment(pool, index, total, onPool));
  if (restSize) drawn.push(segment(restSize / total, "rest", `${rest.length} others: ${restSize}`));
  // Connections that are opening or closing are in no pool's size.
  if (used > counted) drawn.push(segment((used - counted) / total, "moving", `${used - counted} opening or closing`));
  if (limit > used) drawn.push(segment((limit - used) / total, "free", `${limit - used} free`));
  return drawn;
}

function poolSegment(pool, index, total, onPool) {
  const label = `${pool.pool_id}: ${pool.active} active, ${pool.idle} idle, ${pool.waiting} waiting`;
  const busy = pool.size ? (100 * pool.active) / pool.size : 0;
  return h(
    "button",
    {
      type: "button",
      class: `segment hue-${index % 6}`,
      style: { width: `${(100 * pool.size) / total}%` },
      title: label,
      "aria-label": label,
      onclick: () => onPool(pool.pool_id),
    },
    h("span", { class: "busy", style: { height: `${busy}%` } }),
    pool.size / total < MIN_LABEL_SHARE ? null : h("span", { class: "name" }, `${pool.pool_id} ${pool.size}`),
  );
}

function segment(share, kind, label) {
  return h(
    "span",
    { class: `segment ${kind}`, style: { width: `${100 * share}%` }, title: label },
    share < MIN_LABEL_SHARE ? null : h("span", { class: "name" }, label),
  );
}

export function drawHeadline(place, stats) {
  const { totals } = stats;
  const parts = [
    `${stats.tenants} tenants`,
    `${stats.pools.open} pools open`,
    `${totals.active_connections} active`,
    `${totals.waiting_requests} waiting`,
    `${totals.timeouts} timeouts`,
  ];
  if (stats.loop_lag.worst_ms > 100) parts.push(`event loop lag ${Math.round(stats.loop_lag.worst_ms)} ms`);
  setText(place, parts.join(" · "));
}
