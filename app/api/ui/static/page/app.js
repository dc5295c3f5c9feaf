// The page: navigation, the view that the address names, and what lies above all views.

import { dashboard } from "./core/grafana.js";
import { html, render, useEffect } from "./core/html.js";
import { live, run } from "./core/live.js";
import { href, route } from "./core/router.js";
import { ActionDialog } from "./parts/action.js";
import { KeyDialog, askForKey } from "./parts/key.js";
import { Notice } from "./parts/notice.js";
import { Shortcuts, showShortcuts } from "./parts/shortcuts.js";
import { toggleTheme } from "./parts/theme.js";
import { Empty, View } from "./parts/view.js";
import { Advice } from "./views/advice.js";
import { Events } from "./views/events.js";
import { Findings } from "./views/findings.js";
import { Keys } from "./views/keys.js";
import { Nodes } from "./views/nodes.js";
import { Overview } from "./views/overview.js";
import { Pools } from "./views/pools.js";
import { RefusalsView } from "./views/refusals.js";
import { Servers } from "./views/servers.js";
import { Tenants } from "./views/tenants.js";
import { Usage } from "./views/usage.js";

const VIEWS = {
  overview: ["Overview", Overview],
  tenants: ["Tenants", Tenants],
  pools: ["Pools", Pools],
  nodes: ["Nodes", Nodes],
  servers: ["Servers", Servers],
  advice: ["Advice", Advice, ({ recommendations }) => recommendations.length],
  findings: ["Findings", Findings, ({ findings }) => findings.length],
  usage: ["Usage", Usage],
  events: ["Events", Events],
  refusals: ["Refusals", RefusalsView],
  keys: ["API keys", Keys],
};

function App() {
  const { view, subject, query } = route.use();
  const state = live.use();
  useEffect(() => {
    document.querySelector("#side [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [view]);
  const [title, Current] = VIEWS[view] ?? ["Not found", NotFound];
  useEffect(() => {
    document.title = `${subject ?? title} · Poolkeeper`;
  }, [subject, title]);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <${Navigation} current=${view} state=${state} />
    <main id="main" tabindex="-1">
      ${state.problem && html`<p id="error" class="problem" role="alert">${state.problem}</p>`}
      <${Notice} />
      <${Current} key=${view} subject=${subject} query=${query} />
    </main>
    <${ActionDialog} /><${KeyDialog} /><${Shortcuts} />`;
}

// The address belongs to the views.
function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Navigation({ current, state }) {
  const { about } = state;
  const link = ([name, [title, , count]]) => {
    const open = count?.(state);
    return html`
      <li key=${name}>
        <a href=${href(name)} aria-current=${name === current ? "page" : undefined}>${title}${open > 0 && html` <span class="count">${open}</span>`}</a>
      </li>`;
  };
  return html`
    <header id="side">
      <a class="brand" title=${about && `Version ${about.version}`} href=${href("overview")}>
        <img src="page/icon.svg" alt="" width="24" height="24" />Poolkeeper</a>
      <nav aria-label="Views"><ul>${Object.entries(VIEWS).map(link)}</ul></nav>
      <div class="tools">
        <p id="updated" role="status">${state.at && `as of ${state.at.toLocaleTimeString("sv")}`}</p>
        ${about?.instance.url && html`<p id="instance" class="wide" title="The active instance">${new URL(about.instance.url).host}</p>`}
        <a href="docs">API docs</a>
        ${about?.documents_url && html`<a class="wide" href=${about.documents_url}>Documents</a>`}
        ${about?.grafana_url && html`<a class="wide" href=${dashboard(about.grafana_url, "poolkeeper-fleet")}>Grafana</a>`}
        <button type="button" class="quiet" onClick=${askForKey}>API key</button>
        <button type="button" class="quiet" title="Light or dark (t)" onClick=${toggleTheme}>Theme</button>
        <button type="button" class="quiet wide" title="Keyboard shortcuts (?)" onClick=${showShortcuts}>Shortcuts</button>
      </div>
    </header>`;
}

function NotFound() {
  return html`
    <${View} title="Not found">
      <${Empty} title="There is no such view."><p><a href=${href("overview")}>Go to the overview</a>.</p></${Empty}>
    </${View}>`;
}

render(html`<${App} />`, document.getElementById("app"));
run();
