// What to do: findings that want a person, and open recommendations with their reasons.

import { h, say } from "./element.js";

const SHOWN = 20;
// Nothing changes place for so long after the mouse moved in the list.
const HELD_MS = 5000;

export class Advice {
  constructor(place, actions) {
    this.place = place;
    this.actions = actions;
    this.lines = new Map();
    this.items = [];
    this.heldUntil = 0;
    place.addEventListener("mousemove", () => { this.heldUntil = Date.now() + HELD_MS; });
    place.addEventListener("mouseleave", () => {
      this.heldUntil = 0;
      this.draw();
    });
  }

  show(recommendations, findings) {
    const shown = [...recommendations].sort(byUrgency).slice(0, SHOWN);
    const left = recommendations.length - shown.length;
    this.items = [
      ...findings.map((finding) => ({ key: `finding ${finding.key ?? finding.text}`, finding })),
      ...shown.map((advice) => ({ key: lineOf(advice), advice })),
    ];
    if (left) this.items.push({ key: "more", text: `and ${left} more recommendations` });
    if (!this.items.length) {
      this.items.push({ key: "well", class: "well", text: "Nothing: no finding, no open recommendation." });
    }
    this.draw();
  }

  // What stays stays the same element. Under the mouse nothing shifts either: what is gone keeps
  // its place, greyed, and what is new comes last, until the mouse is elsewhere or at rest.
  draw() {
    const wanted = this.items.map((item) => this.line(item));
    const held = Date.now() < this.heldUntil ? [...this.place.children] : [];
    const lines = [...held, ...wanted.filter((line) => !held.includes(line))];
    for (const line of lines) setGone(line, !wanted.includes(line));
    const differs = lines.length !== this.place.children.length || lines.some((line, at) => line !== this.place.children[at]);
    if (differs) {
      const focused = this.place.contains(document.activeElement) ? document.activeElement : null;
      this.place.replaceChildren(...lines);
      focused?.focus({ preventScroll: true });
    }
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
    const { advice, finding } = item;
    line.element.className = finding ? `finding ${finding.severity}` : advice ? `recommendation ${advice.action}` : item.class ?? "";
    const text = line.element.querySelector(".text");
    const size = line.element.querySelector(".size");
    say(text, item.text ?? finding?.text ?? advice.reason);
    if (size) say(size, sizes(advice));
    return line.element;
  }

  // What buttons do is decided by what their line says when they are pressed.
  parts(line) {
    const { advice, finding } = line.item;
    const { open, settle } = this.actions;
    const button = (label, run, kind) => h("button", { type: "button", class: kind, onclick: run }, label);
    const text = h("span", { class: "text" });
    if (finding) {
      const subject = finding.pool ?? finding.tenant;
      return [h("strong", {}, finding.severity), text, subject ? button("Look", () => open(subject)) : null];
    }
    if (!advice) return [text];
    return [
      button(advice.pool, () => open(advice.pool), "link"),
      h("strong", { class: "size" }),
      text,
      h("span", { class: "buttons" },
        advice.kind === "placement" ? null : button("Apply", () => settle(line.item.advice, "apply"), "primary"),
        button("Dismiss", () => settle(line.item.advice, "dismiss"))),
    ];
  }
}

// Advice of the same line says the same, if perhaps with another number than a moment ago.
export function lineOf({ pool, tenant, kind, action, max_size }) {
  return `${kind} ${pool} ${tenant ?? ""} ${action} ${max_size}`;
}

export function sizes({ kind, max_size, new_size }) {
  return kind === "placement" || new_size === undefined ? "" : `${max_size} → ${new_size}`;
}

// Somebody waits for a growth; nobody for a smaller pool.
function byUrgency(a, b) {
  return (b.action === "scale_up") - (a.action === "scale_up");
}

function setGone(line, isGone) {
  line.classList.toggle("gone", isGone);
  for (const button of line.querySelectorAll(".buttons button")) button.disabled = isGone;
}

// What the pools and servers themselves give away.
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
      found.push({ key, severity: "warning", pool: pool.pool_id, text: `${leak.tenant} holds a lease for ${since} s, taken at ${leak.taken_at} (pid ${leak.pid})` });
    }
    if (pool.state === "paused") {
      found.push({ key: `paused ${pool.pool_id}`, severity: "warning", pool: pool.pool_id, text: `Pool ${pool.pool_id} is paused: it lends nothing` });
    }
  }
  // Servers that are away are told above, one by one.
  for (const { name, ok, required, detail } of readiness?.checks ?? []) {
    if (!ok && name !== "servers") {
      found.push({ key: `check ${name}`, severity: required ? "critical" : "warning", text: `${name}: ${detail ?? "not well"}` });
    }
  }
  return found.sort((a, b) => (a.severity === b.severity ? 0 : a.severity === "critical" ? -1 : 1));
}
