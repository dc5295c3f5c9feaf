// Credentials of applications: users and passwords with which they connect as a tenant.

import { get } from "../core/api.js";
import { ago, dateTime } from "../core/format.js";
import { html, useEffect, useRef, useState } from "../core/html.js";
import { useResource } from "../core/resource.js";
import { href } from "../core/router.js";
import { ActionButton } from "../parts/action.js";
import { Copy, CopyAsCurl } from "../parts/copy.js";
import { Badge, Facts } from "../parts/view.js";

const EVERY = 6;
const DAY_MS = 86_400_000;

// Fetched when somebody asks: a key that may only read is refused, which the service's log would say.
export function Credentials({ tenant }) {
  const [isOpen, setOpen] = useState(false);
  return html`
    <div class="bar" id="credentials-bar"><h3>Credentials of applications</h3>
      <button type="button" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>${isOpen ? "Hide" : "Show"} credentials</button></div>
    ${isOpen && html`<${List} tenant=${tenant} />`}`;
}

function List({ tenant }) {
  const path = `v1/tenants/${encodeURIComponent(tenant)}/credentials`;
  const { data, problem } = useResource(() => get(path), [path], { every: EVERY });
  const [issued, setIssued] = useState(null);
  const forget = ({ user }) => setIssued((shown) => (shown?.user === user ? null : shown));
  if (problem) return html`<p class="problem" role="alert">${problem.message}</p>`;
  return data && html`
    <div class="buttons"><${ActionButton} action=${creation(tenant, path, setIssued)} /><${CopyAsCurl} request=${{ path }} /></div>
    ${issued && html`<${Issued} credential=${issued} onClose=${() => setIssued(null)} />`}
    ${data.items.length === 0 && html`<p class="muted">There are none.</p>`}
    ${data.items.length > 0 && html`
      <div class="scroll"><table id="credentials" aria-label="Credentials of applications">
        <thead><tr><th scope="col">User</th><th scope="col">Expires</th><th scope="col" title="On nodes every 10 s: short connections are missed.">Last seen</th><th scope="col">Action</th></tr></thead>
        <tbody>${data.items.map((credential) => html`
          <tr key=${credential.name}>
            <th scope="row" title=${`created ${dateTime(credential.created_at)}`}>${credential.user}</th>
            <td>${credential.expired ? html`<${Badge} kind="bad">expired</${Badge}>` : (credential.expires_at?.slice(0, 10) ?? "never")}</td>
            <td>${credential.last_used_at ? ago(credential.last_used_at) : "never"}</td>
            <td><${ActionButton} action=${revocation(credential, path, forget)} /></td>
          </tr>`)}</tbody>
      </table></div>`}`;
}

// What the service has said once and does not know any more.
function Issued({ credential, onClose }) {
  const { user, password, connection_string: service, node_connection_string: nodes, node_connection_strings: each } = credential;
  const secrets = [
    ["Password", password],
    each.length > 1 && ["For psql, psycopg, asyncpg", nodes],
    ...each.map((one, at) => [each.length > 1 ? `For any driver, node ${at + 1}` : "For any driver", one]),
    ["For POST /sql", service],
  ];
  const panel = useRef(null);
  useEffect(() => panel.current.scrollIntoView({ block: "center" }), [user]);
  return html`
    <section class="card issued" id="issued" ref=${panel} aria-label=${`New credential ${user}`}>
      <div class="bar"><h3>${user}: copy it now, it is not shown again</h3><button type="button" onClick=${onClose}>Done</button></div>
      <${Facts} pairs=${secrets.map((secret) => secret && [secret[0], html`
        <code>${secret[1]}</code> <${Copy} label="Copy" title=${`Copy: ${secret[0]}`} text=${() => secret[1]} />`])} />
      ${nodes && html`<p class="muted">If the node's PgBouncer is older than 1.21, most drivers must not prepare statements.</p>`}
      ${!nodes && html`<p class="muted">No ready <a href=${href("nodes")}>node</a> serves this tenant, so drivers cannot connect yet.</p>`}
    </section>`;
}

function creation(tenant, path, show) {
  return {
    label: "New credential",
    title: `New credential of ${tenant}`,
    text: "A user and a password with which an application connects as the tenant. The password is shown once.",
    fields: [
      {
        name: "name", label: "Name", value: "", placeholder: "web", help: "Lower-case letters, digits and hyphens.",
        required: true, maxlength: 48,
      },
      { name: "days", label: "Days until it expires", type: "number", min: 1, max: 10_000, help: "Empty: it never expires." },
    ],
    request: ({ name, days }) => ({ method: "POST", path, body: { name: name || "new", expires_at: days ? inDays(days) : null } }),
    outcome: ({ user }) => `Credential ${user} was created.`,
    done: show,
  };
}

function revocation({ name, user }, path, forget) {
  return {
    label: "Revoke",
    title: `Revoke ${user}`,
    text: "Its password is refused from then on.",
    isDangerous: true,
    request: () => ({ method: "DELETE", path: `${path}/${encodeURIComponent(name)}`, ifMatch: "*" }),
    outcome: () => `Credential ${user} was revoked.`,
    done: forget,
  };
}

const inDays = (days) => new Date(Date.now() + days * DAY_MS).toISOString();
