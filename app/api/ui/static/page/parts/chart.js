// Lines over time, with events and recommendations as marks on the same axis.

/* global uPlot */

import { dateTime } from "../core/format.js";
import { html, useLayoutEffect, useRef } from "../core/html.js";
import { withGaps } from "./gaps.js";
import { theme } from "./theme.js";

const HEIGHT = 140;
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4"];

// Resolves a colour of the style sheet for a canvas. One that depends on the theme has a value on an element only.
function css(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

// *lines*: {key, label, steps, fill}; *points*: {at, …}, in seconds; *marks*: {at, kind}.
export function Chart({ title, unit = "", lines, points, marks = [], from, to }) {
  const place = useRef(null);
  const plot = useRef(null);
  const shown = useRef({});
  const { name } = theme.use();
  shown.current = { marks, from, to };
  const drawnPoints = withGaps(points);
  const data = [drawnPoints.map(({ at }) => at), ...lines.map(({ key }) => drawnPoints.map((point) => point[key] ?? null))];
  useLayoutEffect(() => {
    const element = place.current;
    const colours = { axis: css("--muted"), rule: css("--rule"), warn: css("--warn"), lines: COLOURS.map(css) };
    const drawn = new uPlot(options({ unit, lines, colours, shown, width: element.clientWidth }), data, element);
    const resized = new ResizeObserver(() => element.clientWidth && drawn.setSize({ width: element.clientWidth, height: HEIGHT }));
    resized.observe(element);
    plot.current = drawn;
    return () => {
      resized.disconnect();
      drawn.destroy();
    };
  }, [name]);
  useLayoutEffect(() => plot.current.setData(data));
  return html`<figure class="chart"><figcaption>${title}${unit && html`<small> ${unit}</small>`}</figcaption><div ref=${place}></div></figure>`;
}

function options({ unit, lines, colours, shown, width }) {
  const axis = { stroke: colours.axis, grid: { stroke: colours.rule, width: 1 }, ticks: { show: false } };
  const series = lines.map((line, at) => ({
    label: line.label,
    stroke: colours.lines[at],
    width: 1.5,
    fill: line.fill ? colours.lines[at].replace("rgb(", "rgba(").replace(")", ", 0.15)") : undefined,
    paths: line.steps ? uPlot.paths.stepped({ align: -1 }) : undefined,
    points: { show: (plot) => plot.data[0].length < 3 },
    value: (_, value) => (value === null || value === undefined ? "" : `${+value.toFixed(1)} ${unit}`),
  }));
  return {
    width: Math.max(width, 200),
    height: HEIGHT,
    cursor: { sync: { key: "time" }, y: false },
    scales: {
      x: { time: true, range: () => [shown.current.from, shown.current.to] },
      y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] },
    },
    axes: [{ ...axis, size: 32, values: (_, times) => times.map(timeLabel) }, { ...axis, size: 46 }],
    series: [{ label: "", value: (_, at) => (at ? dateTime(at * 1000) : "") }, ...series],
    hooks: { draw: [(plot) => drawMarks(plot, shown.current.marks, colours)] },
  };
}

// The date at midnight, otherwise the time.
function timeLabel(at) {
  const [date, time] = dateTime(at * 1000).split(" ");
  return time === "00:00:00" ? date.slice(5) : time.slice(0, time.endsWith(":00") ? 5 : 8);
}

// A vertical line at each mark: dashed for events, solid for recommendations.
function drawMarks(plot, marks, colours) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  for (const { at, kind } of marks) {
    const x = plot.valToPos(at, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = kind === "recommendation" ? colours.warn : colours.axis;
    ctx.setLineDash(kind === "recommendation" ? [] : [4, 4]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}
