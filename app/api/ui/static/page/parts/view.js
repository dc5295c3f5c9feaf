// The frame of a view: its title, what it shows, its tools; and what it says while it is empty.

import { html } from "../core/html.js";
import { href } from "../core/router.js";
import { CopyAsCurl } from "./copy.js";

// *request*: what it shows, for a script.
export function View({ title, lead, request, tools, problem, children }) {
  return html`
    <header class="view">
      <h1>${title}</h1>
      <div class="buttons">${request && html`<${CopyAsCurl} request=${request} />`}${tools}</div>
      ${lead && html`<p>${lead}</p>`}
    </header>
    ${problem && html`<p class="problem" role="alert">${problem.message}</p>`}
    ${children}`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><p><b>${title}</b></p>${children}</div>`;
}

export function Facts({ pairs }) {
  return html`
    <dl class="facts">
      ${pairs.filter(Boolean).map(([name, value], at) => html`<div key=${at}><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>`;
}

export function Badge({ kind, children }) {
  return html`<span class=${`badge ${kind ?? ""}`}>${children}</span>`;
}

const KINDS = {
  ready: "good", provisioned: "good", available: "good", open: "good",
  paused: "warn", draining: "warn", declared: "warn", joining: "warn", stale: "warn",
  unavailable: "bad", deleting: "bad", gone: "bad",
};

export function State({ state }) {
  return html`<${Badge} kind=${KINDS[state]}>${state}</${Badge}>`;
}

export function TenantLinks({ ids, more }) {
  return html`${ids.map((id, at) => html`${at ? ", " : ""}<a key=${id} href=${href("tenants", id)}>${id}</a>`)}${more && ", …"}`;
}
