// The API keys by name: what each permits, and until when. The keys themselves are stored nowhere.

import { get } from "../core/api.js";
import { ago, dateTime } from "../core/format.js";
import { html } from "../core/html.js";
import { useResource } from "../core/resource.js";
import { Badge, Empty, TenantLinks, View } from "../parts/view.js";

export function Keys() {
  const { data, problem } = useResource(() => get("v1/keys"), [], { every: 6 });
  return html`
    <${View} title="API keys" lead="Created and revoked with poolkeeper keys, on the service's machine." problem=${problem}
      request=${{ path: "v1/keys" }}>
      ${data?.items.length === 0 && html`
        <${Empty} title=${data.required ? "There are no keys." : "No keys are in use: every program on this machine has all rights."}>
          <p>Create the first one; from then on each request needs a key:</p><p><code>poolkeeper keys create ops --scope admin</code></p></${Empty}>`}
      ${data?.items.length > 0 && html`
        <div class="scroll"><table aria-label="API keys">
          <thead><tr>
            <th scope="col">Name</th><th scope="col">Scopes</th><th scope="col">Tenants</th>
            <th scope="col" class="wide">Created</th><th scope="col">Last used</th><th scope="col">Expires</th>
          </tr></thead>
          <tbody>${data.items.map((key) => html`
            <tr key=${key.name}>
              <th scope="row">${key.name}</th>
              <td>${key.scopes.join(", ")}</td>
              <td>${key.tenants === null ? "all" : html`<${TenantLinks} ids=${key.tenants} />`}</td>
              <td class="wide"><time title=${dateTime(key.created_at)}>${ago(key.created_at)}</time></td>
              <td>${key.last_used_at ? ago(key.last_used_at) : html`<span title=${`Uses are known since ${dateTime(data.uses_since)}`}>not since ${ago(data.uses_since)}</span>`}</td>
              <td>${key.expired ? html`<${Badge} kind="bad">expired</${Badge}>` : (key.expires_at?.slice(0, 10) ?? "never")}</td>
            </tr>`)}</tbody>
        </table></div>`}
    </${View}>`;
}
