// The whole service at a glance: its numbers, its trend, what to do, and its servers.

import { counted, milliseconds, number } from "../core/format.js";
import { html } from "../core/html.js";
import { live } from "../core/live.js";
import { useResource } from "../core/resource.js";
import { href } from "../core/router.js";
import { Chart } from "../parts/chart.js";
import { RangePicker, coveredBy, historyOf, periodOf } from "../parts/range.js";
import { View } from "../parts/view.js";
import { Recommendations, byUrgency } from "./advice.js";
import { FindingList } from "./findings.js";
import { FirstTenant } from "./first-run.js";
import { ServerCard, sumOfPools } from "./servers.js";
import { creation } from "./tenants.js";

const MAX_FINDINGS = 5;
const MAX_ADVICE = 5;
// A loop that is later than this makes callers wait by itself.
const LAG_MS = 100;

const TRENDS = [
  {
    title: "Leased connections and waiting callers",
    lines: [
      { key: "total_connections", label: "open", steps: true, fill: true },
      { key: "active_connections", label: "leased", steps: true },
      { key: "waiting_requests", label: "waiting", steps: true },
    ],
  },
  { title: "Leases", unit: "per second", lines: [{ key: "rate", label: "leases" }, { key: "timeoutRate", label: "timeouts" }] },
];

const ON_NODES = [
  {
    title: "On nodes: connections and waiting clients",
    lines: [
      { key: "total_connections", label: "open", steps: true, fill: true },
      { key: "active_connections", label: "in a transaction", steps: true },
      { key: "waiting_requests", label: "waiting", steps: true },
    ],
  },
  { title: "On nodes: transactions", unit: "per second", lines: [{ key: "rate", label: "transactions" }] },
];

export function Overview({ query }) {
  const state = live.use();
  const { stats, servers } = state;
  if (!stats) return html`<${View} title="Overview" />`;
  return html`
    <${View} title="Overview" request=${{ path: "v1/stats" }}>
      <${Tiles} ...${state} />
      ${stats.tenants === 0 ? html`<${FirstTenant} create=${creation(servers)} />` : html`<${ToDo} state=${state} /><${Trend} query=${query} />`}
      <section aria-label="Servers"><h2>Servers</h2>${servers.map((server) => html`<${ServerCard} key=${server.name} server=${server} />`)}</section>
    </${View}>`;
}

function Tiles({ stats, rate, servers }) {
  const { tenants, pools, totals, nodes, loop_lag } = stats;
  // Of the same moment as the servers below: `totals` may be a second older.
  const [leased, waiting] = ["active", "waiting"].map((name) => sumOfPools(servers, name));
  const hasNodes = nodes && Object.keys(nodes.by_state).length > 0;
  const onNodes = nodes?.waiting ?? 0;
  const tiles = [
    ["Tenants", number(tenants), href("tenants")],
    ["Open pools", number(pools.open), href("pools")],
    ["Leased now", number(leased), href("pools")],
    ["Waiting now", number(waiting + onNodes), href("pools"), waiting + onNodes > 0 && "bad-text",
      onNodes > 0 && html` <small>${number(waiting)} here, <a href=${href("nodes")}>${number(onNodes)} on nodes</a></small>`],
    ["Leases per second", number(rate, rate < 10 ? 1 : 0)],
    ["Timeouts since start", number(totals.timeouts), href("refusals", null, { code: "pool-timeout" })],
    ["Event loop lag", milliseconds(loop_lag.worst_ms), null, loop_lag.worst_ms > LAG_MS && "bad-text"],
    hasNodes && ["Clients of nodes", number(nodes.clients), href("nodes")],
  ];
  return html`
    <dl class="tiles" id="tiles">
      ${tiles.filter(Boolean).map(([name, value, link, css, parts]) => html`
        <div class="card" key=${name}><dt>${name}</dt><dd class=${css || undefined}>${link ? html`<a href=${link}>${value}</a>` : value}${parts}</dd></div>`)}
    </dl>`;
}

function ToDo({ state }) {
  const { findings, recommendations } = state;
  const advice = byUrgency(recommendations);
  const isQuiet = findings.length + advice.length === 0;
  const left = (items, limit, view, noun) =>
    items.length > limit && html`<p><a href=${href(view)}>All ${counted(items.length, noun)}</a></p>`;
  return html`
    <section aria-label="What to do" id="to-do">
      <h2>What to do</h2>
      ${isQuiet && html`<p class="card none">Nothing: no findings, and no open recommendations.</p>`}
      <${FindingList} findings=${findings.slice(0, MAX_FINDINGS)} />
      ${left(findings, MAX_FINDINGS, "findings", "finding")}
      <${Recommendations} items=${advice.slice(0, MAX_ADVICE)} />
      ${left(advice, MAX_ADVICE, "advice", "recommendation")}
    </section>`;
}

function Trend({ query }) {
  const { range, from, to } = query;
  const { data, problem } = useResource(() => historyOf("v1/stats/history", periodOf(query)), [range, from, to], { every: 3 });
  const rated = (points) => points.map((point, index) => {
    const seconds = coveredBy(point, data, points[index - 1]);
    return { ...point, rate: seconds && point.acquired / seconds, timeoutRate: seconds && point.timeouts / seconds };
  });
  const charts = data && [
    ...TRENDS.map((chart) => ({ ...chart, points: rated(data.points) })),
    ...(data.onNodes.length ? ON_NODES.map((chart) => ({ ...chart, points: rated(data.onNodes) })) : []),
  ];
  return html`
    <section aria-label="Trend" id="trend">
      <div class="bar"><h2>Trend</h2><${RangePicker} query=${query} request=${data?.request} /></div>
      ${problem && html`<p class="problem" role="alert">${problem.message}</p>`}
      ${data && html`
        <div class="charts">
          ${charts.map((chart) => html`<${Chart} key=${chart.title} ...${chart} from=${data.from} to=${data.to} />`)}
        </div>`}
    </section>`;
}
