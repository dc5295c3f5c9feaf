// Buttons that copy: a request as curl, an SQL statement.

import { asCurl, copy } from "../core/curl.js";
import { html, useEffect, useState } from "../core/html.js";

const SHOWN_MS = 2000;

export function Copy({ label, text, title }) {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    const timer = isCopied ? setTimeout(() => setCopied(false), SHOWN_MS) : null;
    return () => clearTimeout(timer);
  }, [isCopied]);
  const run = async () => {
    await copy(text());
    setCopied(true);
  };
  return html`<button type="button" class="quiet" title=${title} onClick=${run}>${isCopied ? "Copied" : label}</button>`;
}

export function CopyAsCurl({ request }) {
  return html`<${Copy} label="Copy as curl" title=${asCurl(request)} text=${() => asCurl(request)} />`;
}
