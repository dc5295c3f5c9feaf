// The advisor's open recommendations by urgency, each with its reason, evidence and expected effect.

import { get, send } from "../core/api.js";
import { ago, unbroken } from "../core/format.js";
import { html, useEffect, useRef, useState } from "../core/html.js";
import { MAX_RECOMMENDATIONS, live } from "../core/live.js";
import { useResource } from "../core/resource.js";
import { href } from "../core/router.js";
import { ActionButton, perform } from "../parts/action.js";
import { CopyAsCurl } from "../parts/copy.js";
import { Badge, Empty, View } from "../parts/view.js";
import { effect } from "./what-if.js";

// No line moves for this long after the mouse moved over the list.
const HOLD_MS = 5000;
const OLD_MS = 60_000;
// A recommendation is superseded at most once per interval; beyond that something else is wrong.
const MAX_ATTEMPTS = 3;
const OPEN = { path: "v1/recommendations", query: { status: "open" } };

const URGENCIES = [
  { name: "now", title: "Callers wait now", kind: "bad" },
  { name: "grow", title: "Grow before callers wait", kind: "warn" },
  { name: "budget", title: "Leave others their share of the budget", kind: "" },
  { name: "placement", title: "Move to another kind of pool", kind: "" },
  { name: "trial", title: "Fewer connections may end more leases", kind: "warn" },
  { name: "shrink", title: "Lower a limit that the load does not need", kind: "good" },
  { name: "unreachable", title: "Lower a limit that can never be reached", kind: "" },
];

export function urgencyOf({ kind, action, reason_code: reason, metrics, evidence }) {
  if (kind === "placement") return "placement";
  if (reason === "at_maximum") return "unreachable";
  if (reason === "past_knee" || reason === "growth_undone") return "trial";
  if (action !== "scale_up") return reason === "server_budget" ? "budget" : "shrink";
  // Who waits at this moment does so for another reason if the size carries the load.
  const areWaiting = metrics?.waiting_requests > 0 && reason !== "room_for_bursts";
  return areWaiting || evidence?.late_share > 0 ? "now" : "grow";
}

const rank = (each) => URGENCIES.findIndex(({ name }) => name === urgencyOf(each));
export const byUrgency = (recommendations) =>
  [...recommendations].sort((a, b) => rank(a) - rank(b) || (b.metrics?.waiting_requests ?? 0) - (a.metrics?.waiting_requests ?? 0));

// What its badge says; who waited when it was made may wait no longer.
const titleOf = (each, isWaiting) => (urgencyOf(each) === "now" && !isWaiting ? "Callers have waited" : URGENCIES[rank(each)].title);
const isWaitedFor = (pool) => [pool, ...(pool?.nodes ?? [])].some((place) => place?.waiting > 0);

// Recommendations with the same line say the same, perhaps with another size than before.
const lineOf = ({ pool, tenant, kind, action, max_size }) => `${kind} ${pool} ${tenant ?? ""} ${action} ${max_size}`;

const request = ({ id }, decision) => ({ method: "POST", path: `v1/recommendations/${id}/${decision}` });

export const sizes = ({ kind, placement, max_size, new_size }) =>
  (kind === "placement" ? String(placement ?? "").replaceAll("_", " ") : `${max_size} → ${new_size}`);

export function Advice() {
  const { recommendations, at } = live.use();
  return html`
    <${View} title="Advice" lead=${html`<${Mode} />`} request=${OPEN}>
      ${at && recommendations.length === 0 && html`
        <${Empty} title="No open recommendations.">
          <p>Each pool's details say why its size fits, and answer “what if callers had to wait less?”.
            ${" "}<a href=${href("pools")}>See the pools</a>.</p></${Empty}>`}
      <${Recommendations} items=${byUrgency(recommendations)} isDetailed />
      ${recommendations.length >= MAX_RECOMMENDATIONS && html`<p class="muted">The newest ${MAX_RECOMMENDATIONS} are shown; there may be more.</p>`}
    </${View}>`;
}

function Mode() {
  const { data } = useResource(async () => {
    const { document, etag } = await send({ path: "v1/advisor" });
    return { ...document, etag };
  }, [], { every: 6 });
  if (!data) return null;
  const change = {
    label: "Change",
    title: "Change the advisor",
    fields: [
      { name: "mode", label: "Mode", type: "select", value: data.mode, options: [
        ["off", "off: nothing is sampled"], ["recommend", "recommend: a person decides"], ["apply", "apply: sizes are set at once"]] },
      { name: "rule", label: "Rule", type: "select", value: data.rule, options: [
        ["demand", "demand: the size follows the load"], ["hysteresis", "hysteresis: thresholds"]] },
    ],
    affects: "all pools of the service",
    request: (body) => ({ method: "PUT", path: "v1/advisor", body, ifMatch: data.etag }),
    outcome: ({ mode, rule }) => `The advisor's mode is ${mode}, its rule ${rule}.`,
  };
  return html`Mode <b>${data.mode}</b>, rule <b>${data.rule}</b> <${ActionButton} action=${change} kind="link" />`;
}

// While the mouse moves over the list, no line moves: closed ones keep their place, greyed out, and new ones are appended.
export function Recommendations({ items, isDetailed }) {
  const { servers, pools } = live.use();
  const [heldUntil, setHeldUntil] = useState(0);
  const drawn = useRef([]);
  const held = Date.now() < heldUntil ? drawn.current : [];
  const current = new Map(items.map((each) => [lineOf(each), each]));
  const kept = new Set(held.map(({ line }) => line));
  const lines = [
    ...held.map(({ line, item }) => ({ line, item: current.get(line) ?? item, isClosed: !current.has(line) })),
    ...items.filter((each) => !kept.has(lineOf(each))).map((each) => ({ line: lineOf(each), item: each, isClosed: false })),
  ];
  useEffect(() => {
    drawn.current = lines;
  });
  const away = new Set(servers.filter(({ state }) => state !== "available").map(({ name }) => name));
  const poolOf = ({ pool }) => pools.find(({ pool_id }) => pool_id === pool);
  const isAway = (item) => away.has(poolOf(item)?.server ?? item.pool.split("@")[1]);
  return html`
    <ul class="advice" onMouseMove=${() => setHeldUntil(Date.now() + HOLD_MS)} onMouseLeave=${() => setHeldUntil(0)}>
      ${lines.map(({ line, item, isClosed }) => html`<${Line} key=${line} ...${{ item, isClosed, isDetailed }} isAway=${isAway(item)} title=${titleOf(item, isWaitedFor(poolOf(item)))} />`)}
    </ul>`;
}

// Its reason describes the time when it was made.
const isOld = (time) => Date.now() - new Date(time) > OLD_MS;

// A button acts on what its line shows at the time of the click.
function Line({ item, title, isClosed, isAway, isDetailed }) {
  const { kind } = URGENCIES[rank(item)];
  const { pool, reason, confidence, created_at, expected } = item;
  return html`
    <li class=${`card recommendation${isClosed ? " closed" : ""}`}>
      <div class="what">
        <${Badge} kind=${kind}>${title}</${Badge}><a href=${href("pools", pool)}>${pool}</a><strong class="size">${sizes(item)}</strong>
      </div>
      <p class="text">${unbroken(isOld(created_at) ? `${ago(created_at)}: ${reason}` : reason)}</p>
      ${isDetailed && html`<p class="muted">${unbroken(`Made ${ago(created_at)}, with ${confidence} confidence. ${expected ? effect(expected) : ""}`)}</p>`}
      <div class="buttons">
        ${item.kind !== "placement" && (isAway
          ? html`<span class="muted">Its server is unavailable.</span>`
          : html`<button type="button" class="primary" disabled=${isClosed} onClick=${() => decide(item, "apply")}>Apply</button>`)}
        <button type="button" disabled=${isClosed} onClick=${() => decide(item, "dismiss")}>Dismiss</button>
        ${isDetailed && item.kind !== "placement" && html`<${CopyAsCurl} request=${request(item, "apply")} />`}
      </div>
    </li>`;
}

// Applies or dismisses a recommendation. If it was superseded after it was drawn by one that differs in its size only,
// decides on that one instead and says so.
function decide(drawn, decision) {
  const done = decision === "apply" ? "applied" : "dismissed";
  return perform({
    request: () => request(drawn, decision),
    outcome: () => `${drawn.pool}: ${sizes(drawn)} was ${done}.`,
    recover: (error) => decideOnSuccessor(drawn, decision, error),
  });
}

async function decideOnSuccessor(drawn, decision, error) {
  let [each, problem] = [drawn, error];
  for (let left = MAX_ATTEMPTS; left > 1; left -= 1) {
    if (problem.code !== "recommendation-closed") throw problem;
    const { items } = await get("v1/recommendations", { status: "open", pool: each.pool });
    const gone = each.id;
    each = items.find((other) => other.id !== gone && lineOf(other) === lineOf(drawn));
    if (!each) throw problem;
    try {
      await send(request(each, decision));
      return `The recommendation for ${each.pool} changed in the meantime: ${sizes(each)} was ${decision === "apply" ? "applied" : "dismissed"}.`;
    } catch (failed) {
      problem = failed;
    }
  }
  throw problem;
}
