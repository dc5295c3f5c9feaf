// What to do: findings that want a person, and open recommendations with their reasons.

import { h } from "./element.js";

const SHOWN = 20;

// Somebody waits for a growth; nobody for a smaller pool.
function byUrgency(a, b) {
  return (b.action === "scale_up") - (a.action === "scale_up");
}

// Only drawn anew when something in it changed, so that a button under the mouse stays.
let drawn = "";

export function drawAdvice(place, { recommendations, findings }, actions) {
  const now = JSON.stringify([recommendations, findings]);
  if (now === drawn) return;
  drawn = now;
  const items = [
    ...findings.map((finding) => drawFinding(finding, actions)),
    ...[...recommendations].sort(byUrgency).slice(0, SHOWN).map((each) => drawRecommendation(each, actions)),
  ];
  if (recommendations.length > SHOWN) {
    items.push(h("li", {}, `and ${recommendations.length - SHOWN} more recommendations`));
  }
  if (!items.length) items.push(h("li", { class: "well" }, "Nothing: no finding, no open recommendation."));
  place.replaceChildren(...items);
}

// What the pools and servers themselves give away.
export function findingsOf(servers, pools, readiness) {
  const found = [];
  for (const server of servers) {
    if (server.state !== "available") {
      found.push({ severity: "critical", text: `Server ${server.name} is ${server.state}: ${server.last_error ?? "no contact"}` });
    }
  }
  for (const pool of pools) {
    for (const leak of pool.leak_suspects) {
      const since = Math.round(leak.age_seconds);
      found.push({ severity: "warning", pool: pool.pool_id, text: `${leak.tenant} holds a lease for ${since} s, taken at ${leak.taken_at} (pid ${leak.pid})` });
    }
    if (pool.state === "paused") {
      found.push({ severity: "warning", pool: pool.pool_id, text: `Pool ${pool.pool_id} is paused: it lends nothing` });
    }
  }
  for (const check of Object.values(readiness?.checks ?? {})) {
    for (const finding of check.findings ?? []) found.push(finding);
  }
  return found.sort((a, b) => (a.severity === b.severity ? 0 : a.severity === "critical" ? -1 : 1));
}

function drawFinding(finding, { open }) {
  const subject = finding.pool ?? finding.tenant;
  return h(
    "li",
    { class: `finding ${finding.severity}` },
    h("strong", {}, finding.severity),
    h("span", { class: "text" }, finding.text),
    subject ? h("button", { type: "button", onclick: () => open(subject) }, "Look") : null,
  );
}

function drawRecommendation(each, { open, apply, dismiss }) {
  const isMove = each.kind === "move";
  const size = isMove || each.new_size === undefined ? "" : `${each.max_size} → ${each.new_size}`;
  return h(
    "li",
    { class: `recommendation ${each.action}` },
    h("button", { type: "button", class: "link", onclick: () => open(each.pool) }, each.pool),
    h("strong", {}, size),
    h("span", { class: "text" }, each.reason),
    h("span", { class: "buttons" },
      isMove ? null : h("button", { type: "button", class: "primary", onclick: () => apply(each) }, "Apply"),
      h("button", { type: "button", onclick: () => dismiss(each) }, "Dismiss")),
  );
}
