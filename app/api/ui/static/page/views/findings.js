// What needs attention: servers, pools, nodes and checks of the service, and what the isolation audit found.

import { get } from "../core/api.js";
import { counted, duration, paused } from "../core/format.js";
import { html } from "../core/html.js";
import { live } from "../core/live.js";
import { useResource } from "../core/resource.js";
import { href } from "../core/router.js";
import { Badge, Empty, TenantLinks, View } from "../parts/view.js";
import { leakText } from "./pool.js";
import { CheckLine } from "./tenant.js";

// From the state of servers, pools and nodes, and from failed readiness checks; the worst first.
export function findingsOf({ servers, pools, nodes, readiness }) {
  const found = [
    ...servers.filter(({ state }) => state !== "available").map(({ name, state, last_error }) => ({
      key: `server ${name}`, severity: "critical", link: href("servers", name), text: `Server ${name} is ${state}: ${last_error ?? "no contact"}`,
    })),
    ...servers.filter(({ state, last_error }) => state === "available" && last_error).map(({ name, last_error }) => ({
      key: `server ${name}`, severity: "warning", link: href("servers", name), text: `Server ${name} opens no new connection: ${last_error}`,
    })),
    ...servers.filter(({ read_only }) => read_only).map(({ name }) => ({
      key: `read-only ${name}`, severity: "warning", link: href("servers", name), text: `Server ${name} takes no writes: default_transaction_read_only is on`,
    })),
    ...pools.flatMap(({ pool_id, leak_suspects }) => leak_suspects.map((leak) => ({
      key: `leak ${pool_id} ${leak.pid} ${leak.taken_at} ${leak.tenant}`, severity: "warning", link: href("pools", pool_id),
      text: leakText(leak),
    }))),
    ...pools.filter(({ pause }) => pause).map((pool) => ({
      key: `paused ${pool.pool_id}`, severity: "warning", link: href("pools", pool.pool_id),
      text: `Pool ${pool.pool_id} was ${paused(pool)} and grants no leases`,
    })),
    ...nodes.flatMap((node) => ofNode(node, servers)),
    ...vulnerable(nodes),
    // Servers are listed above.
    ...(readiness?.checks ?? []).filter(({ ok, name }) => !ok && name !== "servers").map(({ name, required, detail }) => ({
      key: `check ${name}`, severity: required ? "critical" : "warning", link: name === "isolation" ? href("findings") : null,
      text: `${name}: ${detail ?? "failed"}`,
    })),
  ];
  return found.sort((a, b) => (b.severity === "critical") - (a.severity === "critical"));
}

// What a person must do something about; a pause or a drain is what one wanted, but may be forgotten.
function ofNode({ name, state, problem, paused: isPaused, silent_seconds: silent }, servers) {
  // An unavailable server is a finding of its own, once for all its nodes.
  const isServers = servers.some((server) => server.state !== "available" && problem?.startsWith(`Server ${server.name} is `));
  const since = silent === null ? "since the service started" : `for ${duration(silent)}`;
  const found = {
    stale: state === "stale" && `has not reported ${since}; it may go on with the connections that it has`,
    gone: state === "gone" && `has not reported ${since}, and has no connections`,
    problem: problem && !isServers && `has a problem: ${problem}`,
    paused: isPaused && "is paused: its clients wait",
  };
  return Object.entries(found).filter(([, text]) => text).map(([kind, text]) => ({
    key: `node ${name} ${kind}`, severity: "warning", link: href("nodes", name), text: `Node ${name} ${text}`,
  }));
}

// One finding for all nodes with the same PgBouncer.
function vulnerable(nodes) {
  const known = nodes.filter((node) => node.vulnerable);
  return [...new Set(known.map(({ engine }) => engine))].map((engine) => {
    const [first, ...others] = known.filter((node) => node.engine === engine);
    const more = others.length ? ` and ${counted(others.length, "other")}` : "";
    return {
      key: `vulnerable ${engine}`, severity: "warning", link: others.length ? href("nodes") : href("nodes", first.name),
      text: `Node ${first.name}${more} ${more ? "run" : "runs"} ${engine}, which has known vulnerabilities`,
    };
  });
}

export function FindingList({ findings }) {
  return html`
    <ul class="advice findings">
      ${findings.map(({ key, severity, text, link }) => html`
        <li key=${key} class=${`card finding ${severity}`}>
          <${Badge} kind=${severity === "critical" ? "bad" : "warn"}>${severity}</${Badge}><span class="text">${text}</span>
          ${link && html`<a class="button" href=${link}>Details</a>`}
        </li>`)}
    </ul>`;
}

// Checks of the service's list that the page shows live, by `findingsOf`.
const LIVE = new Set(["server", "node_silent", "node_problem", "catalog", "poller", "loops", "keys"]);

export function Findings() {
  const state = live.use();
  // The service's own list says more of these.
  const findings = findingsOf(state).filter(({ key }) => key !== "check isolation" && !key.startsWith("vulnerable "));
  const { data, problem } = useResource(() => get("v1/findings"), [], { every: 6 });
  const listed = data?.items.filter(({ check }) => !LIVE.has(check)) ?? [];
  const isEmpty = state.at && data && findings.length + listed.length === 0;
  return html`
    <${View} title="Findings" lead="What needs attention: servers, pools, nodes, checks of the service, and isolation." problem=${problem}
      request=${{ path: "v1/findings" }}>
      ${isEmpty && html`
        <${Empty} title="No findings."><p>Every server is available, every node reports, no pool is paused, and each tenant is isolated as promised.</p></${Empty}>`}
      <${FindingList} findings=${findings} />
      <${Failed} title="Logins of tenants" items=${listed.filter(({ check }) => check === "tenant_login")} />
      <${Failed} title="Nodes" items=${listed.filter(({ nodes }) => nodes.length)} />
      <${Failed} title="Isolation of tenants" items=${listed.filter(({ nodes, check }) => !nodes.length && check !== "tenant_login")} />
    </${View}>`;
}

function OnNodes({ names, count }) {
  const links = names.map((name, index) => html`${index > 0 && ", "}<a href=${href("nodes", name)}>${name}</a>`);
  return count > 1 ? html` on ${count} nodes (${links}${count > names.length && ", …"})` : html` on node ${links}`;
}

// The findings that the service lists, each with the tenants that it affects.
function Failed({ title, items }) {
  return items.length > 0 && html`
    <h2>${title}</h2>
    ${items.map(({ check, severity, server, nodes, node_count, detail, count, tenants }) => html`
      <article class="card" key=${`${check} ${severity} ${server} ${nodes[0]} ${tenants[0]} ${detail}`}>
        <${CheckLine} ...${{ name: check, severity, detail }} />
        <p class="muted">${counted(count, "tenant")}${server && ` on ${server}`}${node_count > 0 && html`<${OnNodes} names=${nodes} count=${node_count} />`}${count > 0 && ": "}<${TenantLinks} ids=${tenants} more=${count > tenants.length} /></p>
      </article>`)}`;
}
