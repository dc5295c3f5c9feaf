// Lines over time, with events and recommendations as marks on the same axis.

/* global uPlot */

const HEIGHT = 150;
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4"];

// Resolves a colour of the style sheet for a canvas. One that depends on the theme has a value on
// an element only.
function css(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

// A vertical line at each mark: dashed for events, solid for recommendations.
function markLines(marks, solid, dashed) {
  return {
    hooks: {
      draw: (plot) => {
        const { ctx, bbox } = plot;
        ctx.save();
        ctx.lineWidth = devicePixelRatio;
        for (const { at, kind } of marks) {
          const x = plot.valToPos(at, "x", true);
          if (x < bbox.left || x > bbox.left + bbox.width) continue;
          ctx.strokeStyle = kind === "recommendation" ? solid : dashed;
          ctx.setLineDash(kind === "recommendation" ? [] : [4, 4]);
          ctx.beginPath();
          ctx.moveTo(x, bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
        }
        ctx.restore();
      },
    },
  };
}

// Draws a chart into *place*: points of {at, …}, and for each line its key, label and whether it fills.
export function drawChart(place, { title, unit, lines, points, marks, from, to }) {
  place.replaceChildren();
  const axis = { stroke: css("--muted"), grid: { stroke: css("--rule"), width: 1 }, ticks: { show: false } };
  const colours = COLOURS.map(css);
  const series = lines.map((line, at) => ({
    label: line.label,
    stroke: colours[at],
    width: 1.5,
    fill: line.fill ? colours[at].replace("rgb(", "rgba(").replace(")", ", 0.18)") : undefined,
    paths: line.steps ? uPlot.paths.stepped({ align: -1 }) : undefined,
    points: { show: points.length < 3 },
    spanGaps: false,
    value: (_, value) => (value === null || value === undefined ? "–" : `${+value.toFixed(1)} ${unit}`),
  }));
  const options = {
    title,
    width: Math.max(place.clientWidth, 240),
    height: HEIGHT,
    cursor: { sync: { key: "drawer" }, y: false },
    scales: { x: { time: true, range: [from, to] }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [axis, { ...axis, size: 46 }],
    series: [{}, ...series],
    plugins: [markLines(marks, css("--warn"), css("--muted"))],
  };
  const data = [points.map((point) => point.at), ...lines.map((line) => points.map((point) => point[line.key]))];
  return new uPlot(options, data, place);
}
