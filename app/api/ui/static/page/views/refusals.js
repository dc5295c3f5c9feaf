// Why recent requests were refused.

import { ago, dateTime, number } from "../core/format.js";
import { html } from "../core/html.js";
import { href } from "../core/router.js";
import { TextFilters } from "../parts/filters.js";
import { More, usePages } from "../parts/pages.js";
import { Badge, Empty, View } from "../parts/view.js";

const FILTERS = [
  { name: "tenant", label: "Tenant", placeholder: "acme" },
  { name: "code", label: "Code", placeholder: "pool-timeout" },
  { name: "request_id", label: "Request ID", placeholder: "from the log" },
];
const LIMIT = 100;
const SAME = ["tenant", "code", "status", "method", "path", "actor"];

// A flood of the same refusal is one line: the latest, with how many there were and since when.
function grouped(items) {
  const groups = new Map();
  for (const each of items) {
    const key = JSON.stringify(SAME.map((name) => each[name]));
    const group = groups.get(key) ?? { ...each, count: 0 };
    groups.set(key, { ...group, count: group.count + 1, since: each.at });
  }
  return [...groups.values()];
}

export function RefusalsView({ query }) {
  const { tenant, code, request_id } = query;
  const filter = { tenant, code, request_id, limit: LIMIT };
  const { items, problem, more } = usePages("v1/refusals", filter);
  return html`
    <${View} title="Refusals" lead="Why requests were refused: the latest of each tenant since the service started." problem=${problem}
      request=${{ path: "v1/refusals", query: filter }}>
      <${TextFilters} filters=${FILTERS} query=${query} />
      ${items?.length === 0 && html`
        <${Empty} title="No refusals match."><p>Older ones are in the service's log, one line each, with the same request ID.</p></${Empty}>`}
      ${items?.length > 0 && html`
        <ol class="lines roomy">
          ${grouped(items).map((each) => html`
            <li key=${each.id}>
              <time title=${dateTime(each.at)}>${ago(each.at)}</time>
              <div>
                <${Badge} kind=${each.status >= 500 ? "bad" : "warn"}>${each.status}</${Badge}> <b>${each.code}</b>${" "}
                ${each.tenant && html`<a href=${href("tenants", each.tenant)}>${each.tenant}</a> `}${each.detail}
                <div><small>${each.method} ${each.path}, by ${each.actor ?? "an unknown caller"}, request ${each.request_id}${each.count > 1 && html`; <b>${number(each.count)} like this</b> since ${ago(each.since)}`}</small></div>
              </div>
            </li>`)}
        </ol>`}
      <${More} onMore=${more} />
    </${View}>`;
}
