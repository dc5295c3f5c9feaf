// Tenants on a node, or a tenant on its nodes: their connections, their clients, and what is estimated of their load.

import { milliseconds, number } from "../core/format.js";
import { html } from "../core/html.js";
import { State } from "../parts/view.js";

const ESTIMATED = "Estimated from sums of the last minute: PgBouncer counts no single transaction.";

const STATES = {
  open: "It may have connections now.",
  closing: "Its last transactions end; then others have their turn.",
  closed: "Its clients wait until others have had their turn.",
  paused: "Somebody paused it, or other places have all its connections now: its clients wait.",
};

const stateText = ({ state, node, node_state: nodeState }) =>
  (nodeState === "ready" ? STATES[state] : `${STATES[state]} This is what ${node} reported last; it is ${nodeState}.`);

// *nameOf*, *hrefOf*: of a row.
export function OnNodes({ items, title, nameOf, hrefOf }) {
  const estimate = (text) => html`<th scope="col" class="number wide" title=${ESTIMATED}>${text} <small>est.</small></th>`;
  return html`
    <div class="scroll"><table class="on-nodes" aria-label=${`${title}s with their load`}>
      <thead><tr><th scope="col">${title}</th><th scope="col">State</th><th scope="col" class="number">Active</th><th scope="col" class="number">Clients</th>
        <th scope="col" class="number">Waiting</th>${estimate("Per second")}${estimate("Hold")}${estimate("Wait p99")}</tr></thead>
      <tbody>${items.map((each) => html`
        <tr key=${nameOf(each)} class=${each.waiting ? "is-waiting" : undefined}>
          <th scope="row"><a href=${hrefOf(each)}>${nameOf(each)}</a></th>
          <td title=${stateText(each)}><${State} state=${each.state} /></td>
          <td class="number" title=${`${each.connections} open, at most ${each.size}`}>${each.active} of ${each.size}</td>
          <td class="number">${number(each.clients)}</td>
          <td class="number waiting" title=${each.waiting ? `The first for ${milliseconds(each.longest_wait_ms)}` : null}>${number(each.waiting)}</td>
          <td class="number wide">${number(each.transactions_per_second, 1)}</td>
          <td class="number wide">${milliseconds(each.hold_ms)}</td>
          <td class="number wide">${milliseconds(each.wait_p99_ms)}</td>
        </tr>`)}</tbody>
    </table></div>`;
}
