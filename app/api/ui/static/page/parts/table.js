// A table of things that have a page of their own: each row is a link, headings sort.

import { html } from "../core/html.js";

// *columns*: {title, cell(row)}, and optionally key (it can be sorted by), number, class. The first one is the link.
export function Table({ label, columns, rows, keyOf, hrefOf, classOf, order, onOrder }) {
  const [first, ...others] = columns;
  return html`
    <div class="scroll">
      <table aria-label=${label}>
        <thead><tr>${columns.map((column) => html`<${Heading} ...${{ column, order, onOrder }} key=${column.title} />`)}</tr></thead>
        <tbody>
          ${rows.map((row) => html`
            <tr key=${keyOf(row)} class=${classOf?.(row)}>
              <th scope="row"><a class="row" href=${hrefOf(row)}>${first.cell(row)}</a></th>
              ${others.map((column) => html`<td key=${column.title} class=${css(column)}>${column.cell(row)}</td>`)}
            </tr>`)}
        </tbody>
      </table>
    </div>`;
}

function Heading({ column, order, onOrder }) {
  const sorts = order?.key === column.key && column.key;
  const direction = sorts ? (order.isDown ? "descending" : "ascending") : undefined;
  return html`
    <th scope="col" class=${css(column)} aria-sort=${direction}>
      ${column.key && onOrder ? html`<button type="button" onClick=${() => onOrder(next(column, order))}>${column.title}</button>` : column.title}
    </th>`;
}

// First click: natural order, numbers from the largest; second: reversed; third: the list's own again.
function next(column, order) {
  const natural = Boolean(column.number);
  if (order?.key !== column.key) return { key: column.key, isDown: natural };
  return order.isDown === natural ? { key: column.key, isDown: !natural } : null;
}

export function sorted(rows, columns, order, own) {
  const column = order && columns.find((each) => each.key === order.key);
  const value = column ? column.value : own;
  const sign = column ? (order.isDown ? -1 : 1) : -1;
  return [...rows].sort((a, b) => sign * compare(value(a), value(b)));
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

function css(column) {
  return [column.number && "number", column.class].filter(Boolean).join(" ") || undefined;
}

// Moves the focus among the rows' links, with j and k.
export function step(by) {
  const links = [...document.querySelectorAll("main a.row")];
  const at = links.indexOf(document.activeElement);
  links[Math.min(links.length - 1, Math.max(0, at + by))]?.focus();
}
