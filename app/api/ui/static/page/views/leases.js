// Who holds a connection now and who waits for one, in a pool or of a tenant; the oldest first.

import { get } from "../core/api.js";
import { duration, number } from "../core/format.js";
import { html } from "../core/html.js";
import { useResource } from "../core/resource.js";
import { href } from "../core/router.js";
import { CopyAsCurl } from "../parts/copy.js";
import { Badge } from "../parts/view.js";

const LIMIT = 20;

export function Leases({ filter }) {
  const request = { path: "v1/leases", query: { ...filter, limit: LIMIT } };
  const { data } = useResource(() => get(request.path, request.query), [filter]);
  if (!data) return null;
  return html`
    <div class="bar"><h3>Now: ${number(data.active)} leased, ${number(data.waiting)} waiting</h3><${CopyAsCurl} request=${request} /></div>
    ${data.items.length > 0 && html`
      <ol class="lines" id="leases">
        ${data.items.map(({ state, tenant, age_seconds, pid, task, taken_at, statement, position, waits_for }) => html`
          <li key=${`${tenant} ${pid} ${task} ${position}`}>
            <time>${duration(age_seconds)}</time>
            <span><${Badge} kind=${state === "waiting" ? "warn" : "good"}>${state === "waiting" ? `waiting, ${position}` : "leased"}</${Badge}>
              ${!filter.tenant && html` <a href=${href("tenants", tenant)}>${tenant}</a>`} ${statement ? html`<code>${statement}</code>` : taken_at} <small>${[pid && `pid ${pid}`, task, !filter.tenant && waits_for && `waits for ${waits_for.detail}`].filter(Boolean).join(", ")}</small></span>
          </li>`)}
      </ol>
      ${data.next_cursor && html`<p class="muted">The ${LIMIT} oldest of ${number(data.active + data.waiting)} are shown.</p>`}`}`;
}
