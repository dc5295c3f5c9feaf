// Each server's connection budget as one bar: who holds how much of it.

import { h, say } from "./element.js";

// So many pools have a piece of their own; the others share one.
const NAMED = 12;
// A narrower piece has no room for its name; its tooltip has.
const ROOM = 0.05;

export function drawServers(place, servers, onPool) {
  place.replaceChildren(...servers.map((server) => drawServer(server, onPool)));
}

function drawServer(server, onPool) {
  const { limit, used, contended } = server.budget;
  const well = server.state === "available";
  const active = server.pools.reduce((sum, pool) => sum + pool.active, 0);
  const waiting = server.pools.reduce((sum, pool) => sum + pool.waiting, 0);
  const words = [
    `${used} of ${limit} connections`,
    `${active} active`,
    waiting ? `${waiting} waiting` : null,
    contended ? "budget exhausted: a pool wants a connection and cannot have it" : null,
    well ? null : `${server.state}: ${server.last_error ?? "no contact"}`,
  ].filter(Boolean);
  return h(
    "article",
    { class: `server${well ? "" : " unwell"}${contended ? " contended" : ""}` },
    h("h3", {}, server.name, h("small", {}, ` ${server.host}:${server.port}`)),
    h("p", {}, words.join(" · ")),
    h("div", { class: "budget", role: "group", "aria-label": `Budget of ${server.name}` }, ...pieces(server, onPool)),
  );
}

function pieces(server, onPool) {
  const { limit, used } = server.budget;
  const whole = Math.max(limit, used, 1);
  const holding = server.pools.filter((pool) => pool.size > 0).sort((a, b) => b.size - a.size);
  const named = holding.slice(0, NAMED);
  const rest = holding.slice(NAMED);
  const restSize = rest.reduce((sum, pool) => sum + pool.size, 0);
  const counted = holding.reduce((sum, pool) => sum + pool.size, 0);
  const drawn = named.map((pool, index) => piece(pool, index, whole, onPool));
  if (restSize) drawn.push(part(restSize / whole, "rest", `${rest.length} others: ${restSize}`));
  // Connections that are being opened or closed belong to no pool's size yet, or no more.
  if (used > counted) drawn.push(part((used - counted) / whole, "moving", `${used - counted} opening or closing`));
  if (limit > used) drawn.push(part((limit - used) / whole, "free", `${limit - used} free`));
  return drawn;
}

function piece(pool, index, whole, onPool) {
  const label = `${pool.pool_id}: ${pool.active} active, ${pool.idle} idle, ${pool.waiting} waiting`;
  const busy = pool.size ? (100 * pool.active) / pool.size : 0;
  return h(
    "button",
    {
      type: "button",
      class: `piece hue-${index % 6}`,
      style: { width: `${(100 * pool.size) / whole}%` },
      title: label,
      "aria-label": label,
      onclick: () => onPool(pool.pool_id),
    },
    h("span", { class: "busy", style: { height: `${busy}%` } }),
    pool.size / whole < ROOM ? null : h("span", { class: "name" }, `${pool.pool_id} ${pool.size}`),
  );
}

function part(share, kind, label) {
  return h(
    "span",
    { class: `piece ${kind}`, style: { width: `${100 * share}%` }, title: label },
    share < ROOM ? null : h("span", { class: "name" }, label),
  );
}

export function drawHeadline(place, stats) {
  const { totals } = stats;
  const words = [
    `${stats.tenants} tenants`,
    `${stats.pools.open} pools open`,
    `${totals.active_connections} active`,
    `${totals.waiting_requests} waiting`,
    `${totals.timeouts} timeouts`,
  ];
  if (stats.loop_lag.worst_ms > 100) words.push(`event loop ${Math.round(stats.loop_lag.worst_ms)} ms late`);
  say(place, words.join(" · "));
}
