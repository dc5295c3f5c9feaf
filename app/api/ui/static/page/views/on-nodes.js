// Tenants on a node, or a tenant on its nodes: their connections, their clients, and their load of the last minute.

import { milliseconds, number } from "../core/format.js";
import { html } from "../core/html.js";
import { State } from "../parts/view.js";

const SHARE = "How many connections of the tenant's max_size it may have here now.";
const MEASURED = "Of the last minute, or since it was idle.";
const ESTIMATED = "Estimated: PgBouncer counts sums, and no single transaction.";

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
  const measured = (text) => html`<th scope="col" class="number wide" title=${MEASURED}>${text}</th>`;
  return html`
    <div class="scroll"><table class="on-nodes" aria-label=${`${title}s with their load`}>
      <thead><tr><th scope="col">${title}</th><th scope="col">State</th><th scope="col" class="number">Active</th>
        <th scope="col" class="number" title=${SHARE}>Share</th>
        <th scope="col" class="number" title="Of its clients.">Waiting</th>${measured("Per second")}${measured("Hold")}${measured("Wait")}
        <th scope="col" class="number" title=${ESTIMATED}>p99 <small>est.</small></th></tr></thead>
      <tbody>${items.map((each) => html`
        <tr key=${nameOf(each)} class=${each.waiting ? "is-waiting" : undefined}>
          <th scope="row"><a href=${hrefOf(each)}>${nameOf(each)}</a></th>
          <td title=${stateText(each)}><${State} state=${each.state} /></td>
          <td class="number" title=${`${each.connections} open, at most ${each.size}`}>${each.active} of ${each.size}</td>
          <td class="number">${number(each.share)}</td>
          <td class="number waiting" title=${each.waiting ? `The first for ${milliseconds(each.longest_wait_ms)}` : null}>${number(each.waiting)} of ${number(each.clients)}</td>
          <td class="number wide">${number(each.transactions_per_second, 1)}</td>
          <td class="number wide">${milliseconds(each.hold_ms)}</td>
          <td class="number wide">${milliseconds(each.wait_ms)}</td>
          <td class="number">${milliseconds(each.wait_p99_ms)}</td>
        </tr>`)}</tbody>
    </table></div>`;
}
