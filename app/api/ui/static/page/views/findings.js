// What needs attention, as the service lists it: the worst first, each cause once.

import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import { live } from "../core/live.js";
import { href } from "../core/router.js";
import { Empty, TenantLinks, View } from "../parts/view.js";
import { CheckLine } from "./tenant.js";

export function Findings() {
  const { at, findings } = live.use();
  return html`
    <${View} title="Findings" lead="What needs attention: servers, pools, nodes, checks of the service, and isolation."
      request=${{ path: "v1/findings" }}>
      ${at && findings.length === 0 && html`
        <${Empty} title="No findings."><p>Every server is available, every node reports, no pool is paused, and each tenant is isolated as promised.</p></${Empty}>`}
      <${FindingList} findings=${findings} />
    </${View}>`;
}

export function FindingList({ findings }) {
  return html`
    <ul class="advice">
      ${findings.map((finding) => html`
        <li class=${`card listed ${finding.severity}`} key=${keyOf(finding)}>
          <${CheckLine} ...${finding} name=${finding.check} />
          <${Concerned} ...${finding} />
        </li>`)}
    </ul>`;
}

// The detail tells causes of one check apart that concern the same tenants; its ages change.
const keyOf = ({ check, severity, server, nodes, tenants, detail }) =>
  JSON.stringify([check, severity, server, nodes[0] ?? tenants[0], detail?.replace(/[\d.]+ s\b/g, "")]);

// Where it is, and which tenants it affects; nothing for the service itself.
function Concerned({ server, nodes, node_count, count, tenants }) {
  if (!server && !node_count && !count) return null;
  return html`
    <p class="muted">${counted(count, "tenant")}${server && html` on <a href=${href("servers", server)}>${server}</a>`}${node_count > 0 && html`<${OnNodes} names=${nodes} count=${node_count} />`}${count > 0 && ": "}<${TenantLinks} ids=${tenants} more=${count > tenants.length} /></p>`;
}

function OnNodes({ names, count }) {
  const links = names.map((name, index) => html`${index > 0 && ", "}<a href=${href("nodes", name)}>${name}</a>`);
  return count > 1 ? html` on ${count} nodes (${links}${count > names.length && ", …"})` : html` on node ${links}`;
}
