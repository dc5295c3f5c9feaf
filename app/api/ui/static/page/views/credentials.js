// Credentials of applications: users and passwords with which they connect as a tenant.

import { get } from "../core/api.js";
import { ago, dateTime } from "../core/format.js";
import { html, useState } from "../core/html.js";
import { useResource } from "../core/resource.js";
import { ActionButton } from "../parts/action.js";
import { Copy, CopyAsCurl } from "../parts/copy.js";
import { Badge } from "../parts/view.js";

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
  if (problem) return html`<p class="problem" role="alert">${problem.message}</p>`;
  return data && html`
    <div class="buttons"><${ActionButton} action=${creation(tenant, path)} /><${CopyAsCurl} request=${{ path }} /></div>
    ${data.items.length === 0 && html`<p class="muted">There are none.</p>`}
    ${data.items.length > 0 && html`
      <div class="scroll"><table id="credentials" aria-label="Credentials of applications">
        <thead><tr><th scope="col">User</th><th scope="col">Expires</th><th scope="col">Last used</th><th scope="col"></th></tr></thead>
        <tbody>${data.items.map((credential) => html`
          <tr key=${credential.name}>
            <th scope="row" title=${`created ${dateTime(credential.created_at)}`}>${credential.user}</th>
            <td>${credential.expired ? html`<${Badge} kind="bad">expired</${Badge}>` : (credential.expires_at?.slice(0, 10) ?? "never")}</td>
            <td>${credential.last_used_at ? ago(credential.last_used_at) : "never"}</td>
            <td><${ActionButton} action=${revocation(credential, path)} /></td>
          </tr>`)}</tbody>
      </table></div>`}`;
}

function creation(tenant, path) {
  return {
    label: "New credential",
    title: `New credential of ${tenant}`,
    text: "A user and a password with which an application connects as the tenant. The password is shown once.",
    fields: [
      {
        name: "name", label: "Name", value: "", placeholder: "web", help: "Lower-case letters, digits and hyphens.",
        required: true, maxlength: 48, pattern: "[a-z0-9]([a-z0-9\\-]*[a-z0-9])?",
      },
      { name: "days", label: "Days until it expires", type: "number", min: 1, max: 10_000, help: "Empty: it never expires." },
    ],
    request: ({ name, days }) => ({ method: "POST", path, body: { name: name || "new", expires_at: days ? inDays(days) : null } }),
    outcome: ({ user, connection_string: url }) => html`
      Credential ${user} was created. Its password is shown only now: <code>${url}</code> <${Copy} label="Copy" text=${() => url} />`,
  };
}

function revocation({ name, user }, path) {
  return {
    label: "Revoke",
    title: `Revoke ${user}`,
    text: "Its password is refused from then on.",
    isDangerous: true,
    request: () => ({ method: "DELETE", path: `${path}/${encodeURIComponent(name)}`, ifMatch: "*" }),
    outcome: () => `Credential ${user} was revoked.`,
  };
}

const inDays = (days) => new Date(Date.now() + days * DAY_MS).toISOString();
