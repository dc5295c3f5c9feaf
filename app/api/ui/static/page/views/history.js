// The charts of a pool's or tenant's history; of one on nodes more.

import { html } from "../core/html.js";
import { Chart } from "../parts/chart.js";

const CONNECTIONS = [
  { key: "total_connections", label: "size", steps: true, fill: true },
  { key: "active_connections", label: "active", steps: true },
  { key: "waiting_requests", label: "waiting", steps: true },
];
const TIMES = [{ key: "wait_p95_ms", label: "wait" }, { key: "hold_p95_ms", label: "hold" }];

const CHARTS = [
  { title: "Connections and waiting callers", lines: CONNECTIONS },
  { title: "Wait and hold, p95", unit: "ms", lines: TIMES },
  { title: "Connects, p95", unit: "ms", lines: [{ key: "connect_p95_ms", label: "connect" }] },
];
// Poolers count sums: times are estimated.
const ON_NODES = [
  { title: "On nodes: connections and waiting clients", lines: CONNECTIONS },
  { title: "On nodes: wait and hold, p95, estimated", unit: "ms", lines: TIMES },
];

export function History({ points, onNodes, from, to, marks }) {
  const shown = [
    ...CHARTS.map((chart) => ({ ...chart, points })),
    ...(onNodes.length ? ON_NODES.map((chart) => ({ ...chart, points: onNodes })) : []),
  ];
  return shown.map((chart) => html`<${Chart} key=${chart.title} ...${chart} ...${{ from, to, marks }} />`);
}
