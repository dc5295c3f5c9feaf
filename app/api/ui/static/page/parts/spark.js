// A small line without axes: how a number went lately.

import { html } from "../core/html.js";

const WIDTH = 80;
const HEIGHT = 20;

export function Spark({ values = [], label }) {
  if (values.length < 2) return html`<span class="muted">–</span>`;
  const most = Math.max(1, ...values);
  const x = (at) => (at * WIDTH) / (values.length - 1);
  const y = (value) => HEIGHT - 1 - (value * (HEIGHT - 2)) / most;
  const line = values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  return html`
    <svg class="spark" width=${WIDTH} height=${HEIGHT} viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`${label}, at most ${most}`}>
      <polygon points=${`0,${HEIGHT} ${line} ${WIDTH},${HEIGHT}`} /><polyline points=${line} />
    </svg>`;
}
