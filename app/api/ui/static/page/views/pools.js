// Open and paused pools, the most urgent first.

import { counted, milliseconds, number, paused } from "../core/format.js";
import { html, useState } from "../core/html.js";
import { MAX_POOLS, live } from "../core/live.js";
import { go, href, setQuery } from "../core/router.js";
import { ActionButton } from "../parts/action.js";
import { Spark } from "../parts/spark.js";
import { Table, sorted } from "../parts/table.js";
import { Badge, Empty, State, View } from "../parts/view.js";
import { PoolDrawer } from "./pool.js";

const MAX_ROWS = 100;
const LIST = { path: "v1/pools", query: { sort: "-waiting", limit: 500 } };

const COLUMNS = [
  { title: "Pool", key: "pool", value: (pool) => pool.pool_id, cell: (pool) => pool.pool_id },
  { title: "State", key: "state", value: (pool) => pool.state, cell: stateCell },
  { title: "Waiting", key: "waiting", value: allWaiting, cell: waitingCell, number: true, class: "waiting" },
  { title: "Wait p99", key: "wait", value: (pool) => pool.wait_p99_ms ?? -1, cell: (pool) => milliseconds(pool.wait_p99_ms), number: true, class: "wide" },
  { title: "Active", key: "active", value: (pool) => pool.active, cell: (pool) => number(pool.active), number: true, class: "wide" },
  { title: "Size", key: "size", value: (pool) => pool.size, cell: (pool) => `${pool.size} of ${pool.desired.max_size}`, number: true },
  { title: "Recent load", cell: (pool) => html`<${Trail} pool=${pool.pool_id} />`, class: "wide" },
  { title: "Tenants", key: "tenants", value: (pool) => pool.tenants, cell: (pool) => number(pool.tenants), number: true, class: "wide" },
  { title: "Strategy", key: "strategy", value: (pool) => pool.strategy, cell: (pool) => pool.strategy, class: "wide" },
  { title: "Server", key: "server", value: (pool) => pool.server, cell: (pool) => pool.server, class: "wide" },
];

// A pool with more than one late caller in a hundred has a problem, even if nobody waits now.
const LATE_MS = 100;
const LATE = "More than 1 % of its callers in the last minutes waited over 100 ms.";

function stateCell(pool) {
  const leaks = pool.leak_suspects.length;
  const state = pool.pause ? "paused" : pool.state;
  const isLate = state === "ready" && pool.wait_p99_ms > LATE_MS;
  return html`
    <span class="state" title=${pool.pause ? paused(pool) : isLate ? LATE : null}>
      ${isLate ? html`<${Badge} kind="warn">ready, callers late</${Badge}>` : html`<${State} state=${state} />`}
      ${leaks > 0 && html` <${Badge} kind="warn">${counted(leaks, "leak")}?</${Badge}>`}</span>`;
}

function waitingCell({ waiting, waiting_on_nodes, waits_for }) {
  const here = (waiting > 0 || !waiting_on_nodes) && html`<span title=${waits_for && `For ${waits_for.detail}`}>${number(waiting)}</span>`;
  return html`${here}${waiting_on_nodes > 0 && html`${here && " + "}${number(waiting_on_nodes)} on nodes`}`;
}

function allWaiting({ waiting, waiting_on_nodes }) {
  return waiting + waiting_on_nodes;
}

function Trail({ pool }) {
  return html`<${Spark} values=${live.use().trails.get(pool)} label="Leased connections and waiting callers" />`;
}

function classOf(pool) {
  if (allWaiting(pool)) return "is-waiting";
  return pool.leak_suspects.length ? "is-leaking" : undefined;
}

// By waiting callers, then suspected leaks, then wait time, then utilization.
function urgency(pool) {
  const full = pool.active / Math.max(pool.desired.max_size, 1);
  return allWaiting(pool) * 1e6 + pool.leak_suspects.length * 1e5 + Math.min(pool.wait_p99_ms ?? 0, 9e4) + full;
}

const eviction = {
  label: "Evict idle pools",
  title: "Evict idle pools",
  text: "Closes every pool that nobody has used for longer than its idle timeout. Busy pools and those with a min_size stay.",
  request: () => ({ method: "POST", path: "v1/pools/evict-expired" }),
  outcome: ({ evicted, skipped }) => `${counted(evicted.length, "pool")} evicted, ${skipped.length} left open.`,
};

export function Pools({ subject, query }) {
  const { pools, at } = live.use();
  const [order, setOrder] = useState(null);
  const [isAll, setAll] = useState(false);
  const terms = (query.search ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (pool) => terms.every((term) => `${pool.pool_id} ${pool.server} ${pool.strategy} ${pool.state}`.includes(term));
  const found = sorted(pools.filter(matches), COLUMNS, order, urgency);
  const shown = isAll ? found : found.slice(0, MAX_ROWS);
  const filters = { search: query.search };
  const openFirst = (event) => {
    event.preventDefault();
    if (found.length) go("pools", found[0].pool_id, filters);
  };
  return html`
    <${View} title="Pools" lead="Open and paused pools; a closed one opens with its tenant's next request." request=${LIST}
      tools=${html`<${ActionButton} action=${eviction} />`}>
      ${pools.length > 0 && html`
        <form class="filters" role="search" onSubmit=${openFirst}>
          <label>Search <input id="search" type="search" placeholder="pool, server, strategy, state" title="Search (/)" autocomplete="off"
            spellcheck=${false} value=${query.search ?? ""} onInput=${(event) => setQuery({ search: event.target.value })} /></label>
          <span role="status" id="count" class="muted">${found.length} of ${pools.length}</span>
        </form>`}
      ${at && pools.length === 0 && html`
        <${Empty} title="No pool is open."><p>A pool opens with its tenant's first request. <a href=${href("tenants")}>See the tenants</a>.</p></${Empty}>`}
      ${pools.length > 0 && found.length === 0 && html`
        <${Empty} title="No open pool matches.">
          <p>Tenants without an open pool are listed under <a href=${href("tenants", null, filters)}>Tenants</a>.</p></${Empty}>`}
      ${shown.length > 0 && html`
        <${Table} label="Pools" columns=${COLUMNS} rows=${shown} order=${order} onOrder=${setOrder} classOf=${classOf}
          keyOf=${({ pool_id }) => pool_id} hrefOf=${({ pool_id }) => href("pools", pool_id, filters)} />`}
      ${pools.length >= MAX_POOLS && html`
        <p class="muted">These are the ${number(MAX_POOLS)} with the most waiting callers; there may be more. The details of each tenant show its pool.</p>`}
      ${shown.length < found.length && html`<button type="button" onClick=${() => setAll(true)}>Show all ${found.length}</button>`}
    </${View}>
    ${subject && html`<${PoolDrawer} key=${subject} id=${subject} query=${query} onClose=${() => go("pools", null, filters)} />`}`;
}
