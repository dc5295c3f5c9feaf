// Who used connections for how long, over any period that is stored.

import { get } from "../core/api.js";
import { counted, dateTime, duration, number } from "../core/format.js";
import { html } from "../core/html.js";
import { useResource } from "../core/resource.js";
import { href } from "../core/router.js";
import { SelectFilter, TextFilter } from "../parts/filters.js";
import { RangePicker, isoPeriod } from "../parts/range.js";
import { Table } from "../parts/table.js";
import { Empty, View } from "../parts/view.js";

const USUAL = "24h";
const LIMIT = 100;
const GROUPS = ["pool", "server"];

const COLUMNS = [
  { title: "Group", cell: ({ group }) => group ?? "others" },
  { title: "Connection time", cell: ({ connection_seconds }) => duration(connection_seconds), number: true },
  { title: "Share", cell: ({ share }) => html`<${Share} share=${share} />`, number: true },
  { title: "Connections on average", cell: ({ mean_connections }) => number(mean_connections, 2), number: true, class: "wide" },
  { title: "Leases", cell: ({ leases }) => number(leases), number: true, class: "wide" },
  { title: "Timeouts", cell: ({ timeouts }) => number(timeouts), number: true, class: "wide" },
  { title: "Tenants", cell: ({ tenants }) => number(tenants), number: true, class: "wide" },
];

function Share({ share }) {
  const percent = share > 0 && share < 0.001 ? "<0.1" : (100 * share).toFixed(1);
  return html`<span class="share wide"><span style=${{ width: `${100 * share}%` }}></span></span> ${percent} %`;
}

export function Usage({ query }) {
  const { range, from, to, group, label } = query;
  const grouping = label ? `label:${label}` : group || "tenant";
  const asked = () => ({ ...isoPeriod(query, USUAL), group_by: grouping, limit: LIMIT });
  const { data, problem } = useResource(() => get("v1/usage", asked()), [range, from, to, grouping], { every: 12 });
  const hrefOf = (row) => linkOf(data.group_by, row.group);
  return html`
    <${View} title="Usage" lead="Who held connections of the service's own pools for how long; those on nodes are not counted." problem=${problem}
      request=${{ path: "v1/usage", query: asked() }}>
      <div class="filters">
        <${RangePicker} query=${query} usual=${USUAL} />
        <${SelectFilter} name="group" label="Group by" value=${group} options=${GROUPS} none="tenant" />
        <${TextFilter} name="label" label="or by label" placeholder="plan" value=${label ?? ""} />
      </div>
      ${data?.items.length === 0 && html`<${Empty} title="Nothing was used in this period."><p>Use is stored each minute, from the first lease on.</p></${Empty}>`}
      ${data?.items.length > 0 && html`
        <p class="muted">${number(data.totals.groups)} in total: ${duration(data.totals.connection_seconds)} of connection time, ${counted(data.totals.leases, "lease")}.
          From ${dateTime(data.covered_from)} to ${dateTime(data.covered_to)}.</p>
        <${Table} label="Usage" columns=${COLUMNS} rows=${data.items} keyOf=${({ group: name }) => name ?? ""} hrefOf=${hrefOf} />
        ${data.next_cursor && html`<p class="muted">The first ${LIMIT} of ${number(data.totals.groups)} are shown; the API lists all.</p>`}`}
    </${View}>`;
}

function linkOf(grouping, name) {
  if (name === null) return href("tenants");
  if (grouping === "tenant") return href("tenants", name);
  if (grouping === "pool") return href("pools", name);
  if (grouping === "server") return href("servers", name);
  return href("tenants", null, { label: `${grouping.slice("label:".length)}:${name}` });
}
