// A request as a curl command, and copying it. The key is never part of it.

import { address, key } from "./api.js";

export function asCurl({ method = "GET", path, query, body, ifMatch, ifNoneMatch }) {
  const url = new URL(address(path, query), document.baseURI.split("#")[0]);
  return [
    `curl ${method === "GET" ? "" : `-X ${method} `}${quoted(url.href)}`,
    key.get() && '-H "Authorization: Bearer $POOLKEEPER_API_KEY"',
    ifMatch && `-H ${quoted(`If-Match: ${ifMatch}`)}`,
    ifNoneMatch && `-H ${quoted(`If-None-Match: ${ifNoneMatch}`)}`,
    body !== undefined && "-H 'Content-Type: application/json'",
    body !== undefined && `-d ${quoted(JSON.stringify(body))}`,
  ].filter(Boolean).join(" \\\n  ");
}

// For a shell: single quotes; one inside ends the quotation for a moment.
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// Only a secure origin has navigator.clipboard; a service in a private network has none.
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
