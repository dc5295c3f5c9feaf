// What to do while there are no tenants.

import { html } from "../core/html.js";
import { ActionButton } from "../parts/action.js";
import { CopyAsCurl } from "../parts/copy.js";
import { Empty } from "../parts/view.js";

const CREATE = { method: "PUT", path: "v1/tenants/acme", body: { strategy: "per_tenant" } };
const QUERY = { method: "POST", path: "v1/tenants/acme/query", body: { sql: "SELECT 1" } };

export function FirstTenant({ create }) {
  return html`
    <${Empty} title="There are no tenants yet.">
      <p>A tenant is a customer of your application, with a schema, a database or rows of its own. Its first request opens its connection pool.</p>
      <ol>
        <li>Create one. <span class="buttons"><${ActionButton} action=${create} isPrimary /><${CopyAsCurl} request=${CREATE} /></span></li>
        <li>Run a statement in it, as your application will. <${CopyAsCurl} request=${QUERY} /></li>
        <li>Watch its pool here. After some minutes of use the advisor says which size fits.</li>
      </ol>
    </${Empty}>`;
}
