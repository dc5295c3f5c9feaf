// Periods of history: the last minutes to everything that is stored, or from one time to another.

import { get } from "../core/api.js";
import { html, useEffect, useState } from "../core/html.js";
import { setQuery } from "../core/router.js";
import { CopyAsCurl } from "./copy.js";

const HOUR = 3600;
const DAY = 24 * HOUR;
const PRESETS = [
  ["15m", "15 min", 900], ["1h", "1 h", HOUR], ["6h", "6 h", 6 * HOUR], ["24h", "24 h", DAY],
  ["7d", "7 d", 7 * DAY], ["30d", "30 d", 30 * DAY], ["all", "All", null], ["custom", "Custom", null],
];
const DEFAULT = "15m";
const STEPS = [5, 15, 60, 300, 900, HOUR, 4 * HOUR, DAY];
const MAX_POINTS = 240;
const LEAST_SECONDS = 30;
// The API's limit of steps.
const MOST_DAYS = 1999;

const iso = (seconds) => new Date(seconds * 1000).toISOString();
const stepOf = (seconds) => STEPS.find((step) => seconds / step <= MAX_POINTS) ?? DAY;

// The period that the address names; *usual* if it names none that there is.
function rangeOf({ range, from, to }, usual = DEFAULT) {
  if (PRESETS.some(([name]) => name === range)) return range;
  return from && to ? "custom" : usual;
}

// From and to, in seconds, as the address says; *from* is null for everything.
export function periodOf(query, usual) {
  const range = rangeOf(query, usual);
  const now = Math.floor(Date.now() / 1000);
  if (range === "custom") {
    const [start, end] = [query.from, query.to].map((time) => Math.floor(new Date(time) / 1000));
    if (start < end) return { from: start, to: end };
  }
  if (range === "all") return { from: null, to: now };
  const seconds = PRESETS.find(([name]) => name === range)[2] ?? HOUR;
  return { from: now - seconds, to: now };
}

// The same for a request of use; everything that is stored if *from* is null.
export function isoPeriod(query, usual) {
  const { from, to } = periodOf(query, usual);
  return { from: iso(from ?? to - MOST_DAYS * DAY), to: iso(to) };
}

// A history within a period: {points, onNodes, from, to, step, request}.
export async function historyOf(path, { from, to }) {
  const queryOf = (start, step) => ({ from: iso(start), to: iso(to), step_seconds: step });
  const fetched = (start, step) => get(path, queryOf(start, step));
  let start = from;
  if (start === null) {
    const { items, on_nodes: onNodes } = await fetched(to - MOST_DAYS * DAY, DAY);
    start = Math.min(to - HOUR, ...[...items.slice(0, 1), ...onNodes.slice(0, 1)].map(({ at }) => new Date(at) / 1000));
  }
  const step = stepOf(to - start);
  // From the start of a step, so that the first one is whole.
  const first = start - (start % step);
  const { items, on_nodes: onNodes } = await fetched(first, step);
  return { points: items.map(timed), onNodes: onNodes.map(timed), from: start, to, step, request: { path, query: queryOf(first, step) } };
}

const timed = (point) => ({ ...point, at: new Date(point.at) / 1000 });

// Seconds that a step of a history covers: those of the last one may not be over yet. Null while polls, which count
// what was since the poll before, say too little of it. After a gap without polls, as while the catalog takes no
// samples, the first step counts what was since the step *before*, too.
export function coveredBy({ at }, { to, step }, before) {
  const seconds = Math.min(at + step, to, Date.now() / 1000) - at;
  if (seconds < Math.min(step, LEAST_SECONDS)) return null;
  const gap = before ? at - before.at - step : 0;
  return gap > LEAST_SECONDS ? seconds + gap : seconds;
}

// *request*: what is shown of the period, for a script.
export function RangePicker({ query, usual, request }) {
  const chosen = rangeOf(query, usual);
  return html`
    <div class="range">
      <div class="segmented" role="group" aria-label="Period">
        ${PRESETS.map(([name, label]) => html`
          <button key=${name} type="button" aria-pressed=${String(name === chosen)} onClick=${() => setQuery({ range: name })}>${label}</button>`)}
      </div>
      ${chosen === "custom" && html`<${Custom} query=${query} />`}
      ${request && html`<${CopyAsCurl} request=${request} />`}
    </div>`;
}

function Custom({ query }) {
  const [from, setFrom] = useState("");
  const [to, setTo] = useState("");
  useEffect(() => {
    const now = Date.now();
    setFrom(local(query.from, now - HOUR * 1000));
    setTo(local(query.to, now));
  }, [query.from, query.to]);
  // In UTC: a colleague who gets the address may be elsewhere.
  const show = (event) => {
    event.preventDefault();
    setQuery({ range: "custom", from: utc(from), to: utc(to) });
  };
  return html`
    <form class="buttons" onSubmit=${show}>
      <label>From <input type="datetime-local" value=${from} max=${to} required onInput=${(event) => setFrom(event.target.value)} /></label>
      <label>to <input type="datetime-local" value=${to} min=${from} required onInput=${(event) => setTo(event.target.value)} /></label>
      <button>Show</button>
    </form>`;
}

// As an input of local time has it; *usual* unless *time* is one.
function local(time, usual) {
  const date = new Date(Number.isNaN(Date.parse(time)) ? usual : time);
  return new Date(date - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function utc(time) {
  return `${new Date(time).toISOString().slice(0, 16)}Z`;
}
