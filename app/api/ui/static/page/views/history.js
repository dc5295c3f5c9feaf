// The charts of a pool's or tenant's history.

import { html } from "../core/html.js";
import { Chart } from "../parts/chart.js";

const CHARTS = [
  {
    title: "Connections and waiting callers",
    lines: [
      { key: "total_connections", label: "size", steps: true, fill: true },
      { key: "active_connections", label: "active", steps: true },
      { key: "waiting_requests", label: "waiting", steps: true },
    ],
  },
  { title: "Wait and hold, p95", unit: "ms", lines: [{ key: "wait_p95_ms", label: "wait" }, { key: "hold_p95_ms", label: "hold" }] },
  { title: "Connects, p95", unit: "ms", lines: [{ key: "connect_p95_ms", label: "connect" }] },
];

export function History({ points, from, to, marks }) {
  return CHARTS.map((chart) => html`<${Chart} key=${chart.title} ...${chart} ...${{ points, from, to, marks }} />`);
}
