// What to do: findings that need a person, and open recommendations with their reasons.

import { h, paused, setChildren, setText } from "./element.js";

const MAX_RECOMMENDATIONS = 20;
// No line moves for this long after the mouse moved over the list.
const HOLD_MS = 5000;

export class Recommendations {
  constructor(place, actions) {
    this.place = place;
    this.actions = actions;
    this.lines = new Map();
    this.away = new Set();
    this.items = [];
    this.heldUntil = 0;
    place.addEventListener("mousemove", () => { this.heldUntil = Date.now() + HOLD_MS; });
    place.addEventListener("mouseleave", () => {
      this.heldUntil = 0;
      this.draw();
    });
  }

  // *away*: the pools whose server is unavailable; no size can be applied there.
  show(recommendations, findings, away = new Set()) {
    this.away = away;
    const shown = [...recommendations].sort(byUrgency).slice(0, MAX_RECOMMENDATIONS);
    const left = recommendations.length - shown.length;
    this.items = [
      ...findings.map((finding) => ({ key: `finding ${finding.key ?? finding.text}`, finding })),
      ...shown.map((recommendation) => ({ key: lineOf(recommendation), recommendation })),
    ];
    if (left) this.items.push({ key: "more", text: `and ${left} more recommendations` });
    if (!this.items.length) {
      this.items.push({ key: "none", class: "none", text: "No findings and no open recommendations." });
    }
    this.draw();
  }

  // Existing lines keep their elements. While the mouse moves over the list, no line moves: closed
  // ones keep their place, greyed out, and new ones are appended.
  draw() {
    const wanted = this.items.map((item) => this.line(item));
    const held = Date.now() < this.heldUntil ? [...this.place.children] : [];
    const lines = [...held, ...wanted.filter((line) => !held.includes(line))];
    for (const line of lines) setClosed(line, !wanted.includes(line));
    setChildren(this.place, lines);
    for (const [key, { element }] of this.lines) if (!lines.includes(element)) this.lines.delete(key);
  }

  line(item) {
    let line = this.lines.get(item.key);
    if (!line) {
      line = { item };
      line.element = h("li", {}, ...this.parts(line));
      this.lines.set(item.key, line);
    }
    line.item = item;
    const { recommendation, finding } = item;
    line.element.className = finding ? `finding ${finding.severity}` : recommendation ? `recommendation ${recommendation.action}` : item.class ?? "";
    const text = line.element.querySelector(".text");
    const size = line.element.querySelector(".size");
    setText(text, item.text ?? finding?.text ?? recommendation.reason);
    if (size) setText(size, sizes(recommendation));
    if (recommendation) line.element.querySelector(".primary")?.toggleAttribute("hidden", this.away.has(recommendation.pool));
    return line.element;
  }

  // A button acts on what its line shows at the time of the click.
  parts(line) {
    const { recommendation, finding } = line.item;
    const { open, decide } = this.actions;
    const button = (label, run, kind) => h("button", { type: "button", class: kind, onclick: run }, label);
    const text = h("span", { class: "text" });
    if (finding) {
      const subject = finding.pool ?? finding.tenant;
      return [h("strong", {}, finding.severity), text, subject ? button("Details", () => open(subject)) : null];
    }
    if (!recommendation) return [text];
    return [
      button(recommendation.pool, () => open(recommendation.pool), "link"),
      h("strong", { class: "size" }),
      text,
      h("span", { class: "buttons" },
        recommendation.kind === "placement" ? null : button("Apply", () => decide(line.item.recommendation, "apply"), "primary"),
        button("Dismiss", () => decide(line.item.recommendation, "dismiss"))),
    ];
  }
}

// Recommendations with the same key say the same, perhaps with another size than before.
export function lineOf({ pool, tenant, kind, action, max_size }) {
  return `${kind} ${pool} ${tenant ?? ""} ${action} ${max_size}`;
}

export function sizes({ kind, max_size, new_size }) {
  return kind === "placement" || new_size === undefined ? "" : `${max_size} → ${new_size}`;
}

// Growth first: callers wait for it.
function byUrgency(a, b) {
  return (b.action === "scale_up") - (a.action === "scale_up");
}

function setClosed(line, isClosed) {
  line.classList.toggle("closed", isClosed);
  for (const button of line.querySelectorAll(".buttons button")) button.disabled = isClosed;
}

export function unreachable(servers, pools) {
  const away = new Set(servers.filter((server) => server.state !== "available").map((server) => server.name));
  return new Set(pools.filter((pool) => away.has(pool.server)).map((pool) => pool.pool_id));
}

// Findings from the state of servers and pools and from failed readiness checks.
export function findingsOf(servers, pools, readiness) {
  const found = [];
  for (const server of servers) {
    if (server.state !== "available") {
      found.push({ key: `server ${server.name}`, severity: "critical", text: `Server ${server.name} is ${server.state}: ${server.last_error ?? "no contact"}` });
    }
  }
  for (const pool of pools) {
    for (const leak of pool.leak_suspects) {
      const since = Math.round(leak.age_seconds);
      const key = `leak ${pool.pool_id} ${leak.pid} ${leak.taken_at} ${leak.tenant}`;
      found.push({ key, severity: "warning", pool: pool.pool_id, text: `${leak.tenant} has held a lease for ${since} s, acquired at ${leak.taken_at} (pid ${leak.pid})` });
    }
    if (pool.pause) {
      found.push({ key: `paused ${pool.pool_id}`, severity: "warning", pool: pool.pool_id, text: `Pool ${pool.pool_id} was ${paused(pool)} and grants no leases` });
    }
  }
  // Unavailable servers are listed above.
  for (const { name, ok, required, detail } of readiness?.checks ?? []) {
    if (!ok && name !== "servers") {
      found.push({ key: `check ${name}`, severity: required ? "critical" : "warning", text: `${name}: ${detail ?? "failed"}` });
    }
  }
  return found.sort((a, b) => (a.severity === b.severity ? 0 : a.severity === "critical" ? -1 : 1));
}
