// One pool: what it holds, whom it serves, how it went, what the advisor says, and what can be done to it.

import { findTagged, get } from "../core/api.js";
import { counted, milliseconds, number } from "../core/format.js";
import { html } from "../core/html.js";
import { isShared, live, serverOf } from "../core/live.js";
import { useResource } from "../core/resource.js";
import { href } from "../core/router.js";
import { CopyAsCurl } from "../parts/copy.js";
import { Drawer } from "../parts/drawer.js";
import { RangePicker, historyOf, periodOf } from "../parts/range.js";
import { Facts, TenantLinks } from "../parts/view.js";
import { History } from "./history.js";
import { Leases } from "./leases.js";
import { PoolActions } from "./pool-actions.js";
import { describe, shareOf } from "./tenant.js";
import { Timeline, timelineOf } from "./timeline.js";
import { WhatIf } from "./what-if.js";

const NAMED_TENANTS = 10;
const EVERY = 3;

// The API reaches a shared pool through any of its tenants.
// *isKnown*: it is open or paused; to ask for another one would be a refusal in the service's log.
async function load(id, query, isKnown) {
  const shared = isShared(id);
  const filter = { strategy: "shared", server: serverOf(id), state: "provisioned", limit: NAMED_TENANTS };
  const tenants = shared ? (await get("v1/tenants", filter)).items.map((tenant) => tenant.id) : [id];
  const [view, history] = await Promise.all([
    tenants.length && isKnown ? findTagged(`v1/tenants/${encodeURIComponent(tenants[0])}/pool`) : null,
    historyOf(`v1/pools/${encodeURIComponent(id)}/stats/history`, periodOf(query)),
  ]);
  return { tenants, view, history, marks: await timelineOf({ pool: id }, history) };
}

// A shared pool by its id; the other operation shows one tenant's pool, with what the advisor says.
const requestOf = (id, tenant) =>
  (isShared(id) ? { path: "v1/pools", query: { search: id } } : { path: `v1/tenants/${tenant}/pool` });

export function PoolDrawer({ id, query, onClose }) {
  const { range, from, to } = query;
  const isKnown = live.use().pools.some(({ pool_id }) => pool_id === id);
  const { data, problem } = useResource(() => load(id, query, isKnown), [id, range, from, to, isKnown], { every: EVERY });
  const tools = data?.tenants.length > 0 && html`<${CopyAsCurl} request=${requestOf(id, data.tenants[0])} />`;
  return html`
    <${Drawer} title=${id} kind="Pool" tools=${tools} problem=${problem} onClose=${onClose}>
      ${data && html`
        <${Details} id=${id} ...${data} />
        <${Leases} filter=${{ pool: id }} />
        <${RangePicker} query=${query} request=${data.history.request} />
        <${History} ...${data.history} marks=${data.marks} />
        <${Timeline} entries=${data.marks} />`}
    </${Drawer}>`;
}

function Details({ id, tenants, view }) {
  // Numbers of the list are newer than those of the details.
  const now = live.use().pools.find(({ pool_id }) => pool_id === id);
  return html`
    <${Facts} pairs=${[
      ["State", now ? describe({ ...now, state: now.pause ? "paused" : now.state }) : "not open"],
      now && ["Size", `${now.size} of ${now.desired.max_size}; min ${now.desired.min_size}, warm-up ${now.desired.warmup_size}`],
      view?.nodes?.length > 0 && ["Share", shareOf(view)],
      now?.waits_for && ["Waits for", html`<b class="bad-text">${now.waits_for.detail}</b>`],
      now && ["Wait p99", milliseconds(now.wait_p99_ms)],
      now && ["Asked for", `${number(now.access_count)} times since it opened`],
      ["Serves", isShared(id) ? serves(tenants, now?.tenants) : html`<a href=${href("tenants", id)}>tenant ${id}</a>`],
      view?.advice && ["Advisor", adviceText(view.advice, view.recommendation)],
    ]} />
    ${(now?.leak_suspects ?? []).map((leak) => html`
      <p class="finding warning" key=${leak.pid}><span class="text"><b>Leak?</b> ${leakText(leak)}</span></p>`)}
    ${tenants.length > 0 && html`<${PoolActions} pool=${id} tenant=${tenants[0]} view=${now && view} />`}
    ${now?.open && html`<${WhatIf} tenant=${tenants[0]} />`}`;
}

function serves(tenants, count = tenants.length) {
  if (!tenants.length) return "no tenants";
  return html`${counted(count, "tenant")}: <${TenantLinks} ids=${tenants} more=${count > tenants.length} />`;
}

// What mode "apply" must not apply is an open recommendation.
function adviceText({ current_size, new_size, reason, blocked_by }, recommendation) {
  const sizes = new_size === current_size ? "" : `${current_size} → ${new_size}: `;
  return `${sizes}${reason}${blocked_by ? `. Not ${recommendation ? "applied" : "recommended"}: ${blocked_by}` : ""}`;
}

function leakText({ tenant, age_seconds, taken_at, pid }) {
  return `${tenant} has held a lease for ${Math.round(age_seconds)} s, acquired at ${taken_at} (pid ${pid})`;
}
