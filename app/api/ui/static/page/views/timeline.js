// What happened to a pool or tenant within a period: audit events and recommendations.

import { list } from "../core/api.js";
import { ago, dateTime } from "../core/format.js";
import { html } from "../core/html.js";
import { href } from "../core/router.js";
import { sizes } from "./advice.js";

const MAX_SHOWN = 100;

// Newest first; each is a mark in the charts, too.
export async function timelineOf(filter, { from }) {
  const since = new Date(from * 1000).toISOString();
  const [events, recommendations] = await Promise.all([
    list("v1/events", { ...filter, since, limit: MAX_SHOWN }, MAX_SHOWN),
    list("v1/recommendations", { ...filter, limit: MAX_SHOWN }, MAX_SHOWN),
  ]);
  const entries = [
    ...events.map((event) => ({ at: new Date(event.at) / 1000, kind: "event", who: event.actor, text: textOf(event) })),
    ...recommendations.map((each) =>
      ({ at: new Date(each.created_at) / 1000, kind: "recommendation", who: "advisor", text: `${sizes(each)} (${each.status}): ${each.reason}` })),
  ];
  return entries.filter(({ at }) => at >= from).sort((a, b) => b.at - a.at);
}

function textOf(event) {
  const { action, reason } = event;
  return [action, thingOf(event), reason && `(${reason})`].filter(Boolean).join(" ");
}

// What an event is about, if that is a credential of its tenant, a node, or a server.
export function thingOf({ action, before, after }) {
  const { user, name } = after ?? before ?? {};
  return /^(node|server)\./.test(action) ? name : user;
}

export function Timeline({ entries }) {
  return html`
    <h3>Events</h3>
    <ol class="lines" id="timeline">
      ${entries.length === 0 && html`<li class="muted">No events in this period.</li>`}
      ${entries.map(({ at, who, text }) => html`
        <li key=${`${at} ${text}`}><time title=${dateTime(at * 1000)}>${ago(at * 1000)}</time><span><b>${who}</b> ${text}</span></li>`)}
      ${entries.length >= MAX_SHOWN && html`<li class="muted">The newest are shown. Choose a shorter period, or see <a href=${href("events")}>all events</a>.</li>`}
    </ol>`;
}

export function Refusals({ items }) {
  if (!items.length) return null;
  return html`
    <h3>Latest refused requests</h3>
    <ol class="lines" id="refusals">
      ${items.map(({ id, at, code, detail, request_id }) => html`
        <li key=${id}><time title=${dateTime(at)}>${ago(at)}</time><span><b>${code}</b> ${detail} <small>request ${request_id}</small></span></li>`)}
    </ol>`;
}
