// The table of pools, most urgent first, with search and keyboard navigation.

import { byId, h, milliseconds, paused, setChildren, setText } from "./element.js";

const MAX_ROWS = 100;

const COLUMNS = [
  { title: "Pool", key: "pool_id", of: (pool) => pool.pool_id },
  { title: "State", key: "state", of: (pool) => pool.state, show: (pool) => (pool.pause ? paused(pool) : pool.state), class: "wide" },
  { title: "Waiting", key: "waiting", of: (pool) => pool.waiting, number: true },
  { title: "Wait p99", key: "wait", of: (pool) => pool.wait_p99_ms ?? -1, show: (pool) => milliseconds(pool.wait_p99_ms), number: true },
  { title: "Active", key: "active", of: (pool) => pool.active, number: true, class: "wide" },
  { title: "Size", key: "size", of: (pool) => pool.size, show: (pool) => `${pool.size} of ${pool.desired.max_size}`, number: true },
  { title: "Leaks", key: "leaks", of: (pool) => pool.leak_suspects.length, show: (pool) => pool.leak_suspects.length || "–", number: true, class: "wide" },
  { title: "Tenants", key: "tenants", of: (pool) => pool.tenants, number: true, class: "wide" },
  { title: "Server", key: "server", of: (pool) => pool.server, class: "wide" },
  { title: "Strategy", key: "strategy", of: (pool) => pool.strategy, class: "wide" },
];

// By waiting callers, then suspected leaks, then wait time, then utilization.
export function urgency(pool) {
  const full = pool.active / Math.max(pool.desired.max_size, 1);
  return pool.waiting * 1e6 + pool.leak_suspects.length * 1e5 + Math.min(pool.wait_p99_ms ?? 0, 9e4) + full;
}

export class PoolTable {
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.pools = [];
    this.order = { key: "urgency", down: true };
    this.terms = [];
    this.all = false;
    this.rows = new Map();
    byId("search").addEventListener("input", (event) => this.search(event.target.value));
    byId("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.openFirst();
    });
    byId("more").addEventListener("click", () => {
      this.all = true;
      this.draw();
    });
    this.drawHeadings();
  }

  show(pools) {
    this.pools = pools;
    this.draw();
  }

  search(text) {
    this.terms = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.draw();
  }

  openFirst() {
    const first = this.found()[0];
    // A tenant without an open pool has no row, but it has a history.
    const named = byId("search").value.trim().toLowerCase();
    if (first) this.onOpen(first.pool_id);
    else if (named) this.onOpen(named);
  }

  step(by) {
    const rows = [...byId("rows").querySelectorAll("button.open")];
    const at = rows.indexOf(document.activeElement);
    rows[Math.min(rows.length - 1, Math.max(0, at + by))]?.focus();
  }

  found() {
    const matches = (pool) => {
      const text = `${pool.pool_id} ${pool.server} ${pool.strategy} ${pool.state}`;
      return this.terms.every((term) => text.includes(term));
    };
    const column = COLUMNS.find((each) => each.key === this.order.key);
    const value = column ? column.of : urgency;
    const sign = this.order.down ? -1 : 1;
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    return this.pools
      .filter(matches)
      .sort((a, b) => sign * compare(value(a), value(b)) || compare(a.pool_id, b.pool_id));
  }

  drawHeadings() {
    const heading = (column) => {
      const chosen = this.order.key === column.key;
      const direction = chosen ? (this.order.down ? "descending" : "ascending") : "none";
      return h(
        "th",
        { scope: "col", class: css(column), "aria-sort": direction },
        h("button", { type: "button", onclick: () => this.sortBy(column) }, column.title),
      );
    };
    byId("headings").replaceChildren(...COLUMNS.map(heading));
  }

  // First click: natural order; second: reversed; third: by urgency again.
  sortBy(column) {
    const natural = Boolean(column.number);
    if (this.order.key !== column.key) this.order = { key: column.key, down: natural };
    else if (this.order.down === natural) this.order = { key: column.key, down: !natural };
    else this.order = { key: "urgency", down: true };
    this.drawHeadings();
    byId("headings").querySelectorAll("button")[COLUMNS.indexOf(column)].focus();
    this.draw();
  }

  draw() {
    const found = this.found();
    const shown = this.all ? found : found.slice(0, MAX_ROWS);
    const rows = shown.map((pool) => this.row(pool));
    // Existing rows keep their elements, so focus and selection survive an update.
    setChildren(byId("rows"), rows);
    const ids = new Set(this.pools.map((pool) => pool.pool_id));
    for (const id of this.rows.keys()) if (!ids.has(id)) this.rows.delete(id);
    setText(byId("count"), `${found.length} of ${this.pools.length}`);
    byId("more").hidden = shown.length === found.length;
    setText(byId("more"), `Show all ${found.length}`);
    this.drawNoPools(found.length);
  }

  drawNoPools(count) {
    byId("no-pools").hidden = count > 0;
    const text = this.pools.length
      ? "No open pool matches. Press Enter to open the tenant with this name."
      : "No pool is open. A pool opens with its tenant's first request.";
    setText(byId("no-pools"), text);
  }

  row(pool) {
    let row = this.rows.get(pool.pool_id);
    if (!row) {
      const open = h("button", { type: "button", class: "open", onclick: () => this.onOpen(pool.pool_id) }, pool.pool_id);
      const cells = COLUMNS.slice(1).map((column) => h("td", { class: css(column) }));
      row = h("tr", {}, h("th", { scope: "row" }, open), ...cells);
      this.rows.set(pool.pool_id, row);
    }
    COLUMNS.slice(1).forEach((column, at) => {
      setText(row.children[at + 1], String((column.show ?? column.of)(pool)));
    });
    row.className = pool.waiting ? "waiting" : pool.leak_suspects.length ? "leaking" : "";
    return row;
  }
}

function css(column) {
  return [column.number ? "number" : "", column.class ?? ""].join(" ").trim();
}
