// The audit trail: who changed what, when and why.

import { ago, dateTime } from "../core/format.js";
import { html } from "../core/html.js";
import { href } from "../core/router.js";
import { SelectFilter, TextFilters } from "../parts/filters.js";
import { More, usePages } from "../parts/pages.js";
import { Empty, View } from "../parts/view.js";
import { thingOf } from "./timeline.js";

const FILTERS = [
  { name: "tenant", label: "Tenant", placeholder: "acme" },
  { name: "pool", label: "Pool", placeholder: "shared@local" },
  { name: "action", label: "Action", placeholder: "pool.resized" },
];
const ORIGINS = [["request", "requests"], ["service", "the service itself"]];
const LIMIT = 100;

export function Events({ query }) {
  const { tenant, pool, action, origin } = query;
  const filter = { tenant, pool, action, origin, limit: LIMIT };
  const { items, problem, more } = usePages("v1/events", filter);
  return html`
    <${View} title="Events" lead="Who changed what, when and why." problem=${problem} request=${{ path: "v1/events", query: filter }}>
      <${TextFilters} filters=${FILTERS} query=${query}>
        <${SelectFilter} name="origin" label="By" value=${origin} options=${ORIGINS} none="everybody" />
      </${TextFilters}>
      ${items?.length === 0 && html`<${Empty} title="No events match."><p>Every change leaves one: by a person, a script or the service itself.</p></${Empty}>`}
      ${items?.length > 0 && html`
        <ol class="lines roomy">
          ${items.map((event) => html`<${Event} key=${event.id ?? event.at} event=${event} />`)}
        </ol>`}
      <${More} onMore=${more} />
    </${View}>`;
}

function Event({ event }) {
  const { at, actor, action, tenant, pool, reason, request_id, before, after } = event;
  const thing = thingOf(event);
  const [view, id] = (tenant && ["tenants", tenant]) || (pool && ["pools", pool]) || [action.startsWith("server.") ? "servers" : "nodes", thing];
  return html`
    <li>
      <time title=${dateTime(at)}>${ago(at)}</time>
      <div>
        <b>${action}</b> ${id && html`<a href=${href(view, id)}>${thing ?? id}</a>`} <span class="muted">by</span> ${actor}${reason && `: ${reason}`}
        ${request_id && html`<small class="request">request ${request_id}</small>`}
        <${Change} ...${{ before, after }} />
      </div>
    </li>`;
}

// What differs, also inside of objects; of a thing that was created or deleted, nothing.
function Change({ before, after }) {
  if (!before || !after) return null;
  const shown = (value) => (value === undefined || value === null ? "none" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const change = ([name, old, now]) => html`<code key=${name}>${name} ${shown(old)} → ${shown(now)}</code>`;
  const changes = differences(before, after);
  return changes.length > 0 && html`<div class="change">${changes.map(change)}</div>`;
}

function differences(before, after, path = "") {
  return Object.keys({ ...before, ...after }).flatMap((key) => {
    const [name, old, now] = [path + key, before[key], after[key]];
    if (isObject(old) && isObject(now)) return differences(old, now, `${name}.`);
    return JSON.stringify(old) === JSON.stringify(now) ? [] : [[name, old, now]];
  });
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
